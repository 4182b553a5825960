"""PPO's loss (Schulman et al. 2017, eq. 7 and 9): one number per sample, to be averaged. B samples, A candidates."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from experiments.agents.ppo.action_scores import entropy


class LossTerms(NamedTuple):
    """The terms of PPO's loss, and what is logged beside them; each (B,), or a number after `means`."""

    policy_loss: Any  # clipped surrogate, to minimise
    value_loss: Any  # clipped squared error, before its coefficient; 0 without values
    entropy: Any  # nats
    approx_kl: Any  # KL(old || new), nats; no gradient from here on
    clip_fraction: Any  # 1 where the ratio lies outside 1 +- clip
    ratio_error: Any  # |ratio - 1|

    def total(self, entropy_coef: float, value_loss_coef: float = 0.0) -> Any:
        """policy - entropy_coef * entropy + value_loss_coef * value: what PPO minimises."""
        return self.policy_loss - entropy_coef * self.entropy + value_loss_coef * self.value_loss

    def means(self) -> LossTerms:
        """Means over the samples; of `ratio_error` the maximum."""
        means = LossTerms(*(float(term.cpu().double().mean()) for term in self))
        return means._replace(ratio_error=float(self.ratio_error.max()))


def ppo_loss(
    log_policy: Tensor,
    actions: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    *,
    clip: float,
    value_loss: Tensor | None = None,
) -> LossTerms:
    """The terms of PPO's loss for decisions under the policy being trained.

    Args:
        log_policy: (B, A) log-probabilities, nats; -inf where a state has fewer than A candidates.
        actions: (B,) the taken candidates.
        old_log_probs: (B,) of the taken candidates under the policy that collected the data.
        advantages: (B,)
        clip: epsilon.
        value_loss: (B,) of `value_loss` or `broadcast_value_loss`; None where the critic learns by itself.
    """
    log_probs = log_policy.gather(1, actions[:, None])[:, 0]
    policy = policy_loss(log_probs, old_log_probs, advantages, clip=clip)
    value = torch.zeros_like(policy) if value_loss is None else value_loss
    with torch.no_grad():
        distance = (torch.exp(log_probs - old_log_probs) - 1).abs()
        kl = approximate_kl(log_probs, old_log_probs)
    return LossTerms(policy, value, entropy(log_policy), kl, (distance > clip).to(distance.dtype), distance)


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


def approximate_kl(log_probs: Tensor, old_log_probs: Tensor) -> Tensor:
    """KL(old || new) by (r - 1) - log r (Schulman 2020, "Approximating KL divergence", k3). (B,), nats."""
    log_ratio = log_probs - old_log_probs
    return torch.exp(log_ratio) - 1 - log_ratio
