"""One gradient step of PPO, run by every LLM process on its share of a minibatch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from experiments.agents.ppo.calibration import Biases
from experiments.agents.ppo.llm_policy import VALUE, LLMPolicy
from experiments.agents.ppo.losses import LossTerms, broadcast_value_loss, ppo_loss, value_loss
from experiments.nonfinite import can_be_taken
from lamorel import BaseUpdater

ROWS = ("actions", "old_log_probs", "old_values", "advantages", "returns")  # per-sample tensors of a minibatch


@dataclass(frozen=True)
class PPOUpdateConfig:
    """Settings of the gradient step; see configs/base.yaml for their meaning."""

    lr: float
    value_lr: float | None
    betas: tuple[float, float]
    adam_eps: float
    clip_eps: float
    entropy_coef: float
    value_loss_coef: float
    max_grad_norm: float
    critic_broadcast: bool


class PPOUpdater(BaseUpdater):
    """Loss = mean(policy) - entropy_coef * mean(entropy) + value_loss_coef * mean(value); one Adam over all."""

    def __init__(self, config: PPOUpdateConfig, policy: LLMPolicy) -> None:
        super().__init__()
        self.config = config
        self.policy = policy

    def setup(self) -> None:
        """Make the optimiser before a checkpoint may be loaded into it."""
        llm: list[torch.nn.Parameter] = []
        heads: list[torch.nn.Parameter] = []
        for name, parameter in self._llm_module.module.named_parameters():
            if parameter.requires_grad:
                (heads if name.startswith("_module_functions") else llm).append(parameter)
        value_lr = self.config.lr if self.config.value_lr is None else self.config.value_lr
        groups = [{"params": llm, "lr": self.config.lr}, {"params": heads, "lr": value_lr}]
        self.parameters = llm + heads
        self.optimizer = torch.optim.Adam(
            [group for group in groups if group["params"]], betas=self.config.betas, eps=self.config.adam_eps
        )

    def perform_update(
        self, contexts: list[str], candidates: list[list[str]], _current_batch_ids: Any, **kwargs: Any
    ) -> dict[str, float]:
        """One step on this share. `kwargs` holds the whole minibatch's tensors named in `ROWS`, each (M,), and `biases`
        of the candidates, or None.

        A loss that is not finite in any process makes all gradients so in every process (`accumulate`), and none takes
        the step.

        Returns:
            means over the share of `LossTerms`, its size `samples`, the loss, and the gradient norm before clipping.
        """
        rows = {name: kwargs[name][_current_batch_ids] for name in ROWS}
        value_targets = (kwargs["old_values"], kwargs["returns"]) if self.config.critic_broadcast else None
        self.optimizer.zero_grad(set_to_none=True)
        _, terms = self.accumulate(
            partial(self._sample_losses, value_targets=value_targets, biases=kwargs["biases"]),
            [*self.policy.policy_keys, VALUE],
            contexts,
            candidates,
            texts=candidates,
            **rows,
        )
        grad_norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm))
        means = terms.means()
        loss = means.total(self.config.entropy_coef, self.config.value_loss_coef)
        if can_be_taken(loss, grad_norm):
            self.optimizer.step()
        return {**means._asdict(), "loss": loss, "grad_norm": grad_norm, "samples": float(len(contexts))}

    def _sample_losses(
        self,
        outputs: list[dict[str, Tensor]],
        *,
        value_targets: tuple[Tensor, Tensor] | None,
        biases: Biases | None,
        texts: list[list[str]],
        actions: Tensor,
        old_log_probs: Tensor,
        old_values: Tensor,
        advantages: Tensor,
        returns: Tensor,
    ) -> tuple[Tensor, LossTerms]:
        """Losses and terms of a chunk of samples."""
        clip, config = self.config.clip_eps, self.config
        log_policy, values = self.policy.log_probs(outputs, texts, biases), self.policy.values(outputs)
        if value_targets is None:
            value = value_loss(values, old_values, returns, clip=clip)
        else:
            all_old, all_returns = (targets.to(values.device) for targets in value_targets)
            value = broadcast_value_loss(values, all_old, all_returns, clip=clip)
        terms = ppo_loss(log_policy, actions, old_log_probs, advantages, clip=clip, value_loss=value)
        return terms.total(config.entropy_coef, config.value_loss_coef), terms
