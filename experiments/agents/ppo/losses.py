"""The two loss terms of PPO (Schulman et al. 2017, eq. 7 and 9), one number per sample: their mean is the loss."""

from __future__ import annotations

import torch
from torch import Tensor


def policy_loss(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, *, clip: float) -> Tensor:
    """Clipped surrogate, to minimise: -min(r * A, clip(r, 1 - eps, 1 + eps) * A) with r = exp(log_prob - old_log_prob).

    Args:
        log_probs: (B,) of the taken actions under the policy being trained, nats.
        old_log_probs: (B,) under the policy that collected the data; the ratio is 1 on an update's first minibatch.
        advantages: (B,)
        clip: epsilon.

    Returns:
        (B,)
    """
    ratio = torch.exp(log_probs - old_log_probs)
    return -torch.minimum(ratio * advantages, torch.clamp(ratio, 1 - clip, 1 + clip) * advantages)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, *, clip: float) -> Tensor:
    """Clipped squared error max((v - R)^2, (v_old + clip(v - v_old, +-eps) - R)^2), without a factor 1/2.

    The clip is in units of the return, so it depends on `reward_scale`.

    Args:
        values, old_values, returns: (B,), or shapes that broadcast (`broadcast_value_loss`).
        clip: epsilon.

    Returns:
        (B,)
    """
    clipped = old_values + torch.clamp(values - old_values, -clip, clip)
    return torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)


def broadcast_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, *, clip: float) -> Tensor:
    """The released value loss: values (B, 1) against (M,) targets, so every value is pulled to every target.

    PAPER-DIFF(2): in the released code the shapes broadcast to (B, B). For comparison only.

    Args:
        values: (B,) of the samples at hand.
        old_values, returns: (M,) of the whole minibatch.

    Returns:
        (B,), the mean over the minibatch's targets for each sample.
    """
    return value_loss(values[:, None], old_values[None], returns[None], clip=clip).mean(dim=1)


@torch.no_grad()
def ratio_terms(log_probs: Tensor, old_log_probs: Tensor, *, clip: float) -> dict[str, Tensor]:
    """What is logged of the ratio of new to old probability, each (B,).

    Returns:
        `approx_kl` (nats), `clip_fraction` (1 where the ratio lies outside 1 +- clip), `ratio_error` (|ratio - 1|).
    """
    distance = (torch.exp(log_probs - old_log_probs) - 1).abs()
    return {
        "approx_kl": approximate_kl(log_probs, old_log_probs),
        "clip_fraction": (distance > clip).to(distance.dtype),
        "ratio_error": distance,
    }


def approximate_kl(log_probs: Tensor, old_log_probs: Tensor) -> Tensor:
    """KL(old || new) by (r - 1) - log r (Schulman 2020, "Approximating KL divergence", k3). (B,), nats."""
    log_ratio = log_probs - old_log_probs
    return torch.exp(log_ratio) - 1 - log_ratio
