"""One gradient step of PPO on a network of one's own (Symbolic-PPO, vector PPO): one Adam over all of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from experiments.agents.ppo.losses import LossTerms, ppo_loss, value_loss
from experiments.agents.ppo.rollout import Samples
from experiments.nonfinite import can_be_taken


@dataclass(frozen=True)
class NetworkUpdateConfig:
    """Settings of the gradient step; see configs/base.yaml for their meaning."""

    lr: float
    betas: tuple[float, float]
    adam_eps: float
    clip_eps: float
    entropy_coef: float
    value_loss_coef: float
    max_grad_norm: float


def make_optimizer(network: nn.Module, config: NetworkUpdateConfig) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), lr=config.lr, betas=config.betas, eps=config.adam_eps)


def gradient_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    log_policy: Tensor,
    values: Tensor,
    samples: Samples,
    config: NetworkUpdateConfig,
) -> dict[str, float]:
    """Loss = mean(policy) - entropy_coef * mean(entropy) + value_loss_coef * mean(value); nothing where not finite.

    Args:
        log_policy: (B, A) log-probabilities that the network gives now, with their graph.
        values: (B,) likewise.
        samples: the B decisions.

    Returns:
        what is logged of the step, as `BasePPOAgent` reads it.
    """
    actions, old_log_probs, old_values, advantages, returns = (row.to(values.device) for row in samples[1:-1])
    value = value_loss(values, old_values, returns, clip=config.clip_eps)
    terms = ppo_loss(log_policy, actions, old_log_probs, advantages, clip=config.clip_eps, value_loss=value)
    mean = LossTerms(*(term.mean() for term in terms))
    loss = mean.total(config.entropy_coef, config.value_loss_coef)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    grad_norm = torch.nn.utils.clip_grad_norm_(network.parameters(), config.max_grad_norm)
    if can_be_taken(loss.item(), grad_norm.item()):
        optimizer.step()
    report = {name: term.item() for name, term in mean._asdict().items()}
    ratio_error = terms.ratio_error.max().item()
    return {**report, "ratio_error": ratio_error, "loss": loss.item(), "grad_norm": grad_norm.item()}
