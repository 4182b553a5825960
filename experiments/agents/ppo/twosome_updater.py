"""One gradient step of TWOSOME's actor or critic, run by every LLM process on its share of the step's samples."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from experiments.agents.ppo.calibration import Biases
from experiments.agents.ppo.llm_policy import VALUE, LLMPolicy
from experiments.agents.ppo.losses import LossTerms, ppo_loss, value_loss
from experiments.nonfinite import can_be_taken
from lamorel import BaseUpdater

ACTOR, CRITIC = "actor", "critic"
ACTOR_TERMS = ("policy_loss", "entropy", "approx_kl", "clip_fraction", "ratio_error")


@dataclass(frozen=True)
class TwosomeUpdateConfig:
    """Settings of the gradient steps; see configs/base.yaml for their meaning."""

    betas: tuple[float, float]
    adam_eps: float
    clip_eps: float
    entropy_coef: float
    value_loss_coef: float
    max_grad_norm: float
    target_kl: float


class TwosomeUpdater(BaseUpdater):
    """Two optimisers: AdamW over the LoRA weights, Adam over the critic's MLP; learning rates come with every step.

    PAPER-DIFF(18): the released code clips the actor's gradient together with what is left of the critic's, and its
    critic's optimiser holds the LoRA weights as well; here each optimiser has, and clips, its own parameters.
    """

    actor: torch.optim.AdamW
    critic: torch.optim.Adam

    def __init__(self, config: TwosomeUpdateConfig, policy: LLMPolicy) -> None:
        super().__init__()
        self.config = config
        self.policy = policy

    def setup(self) -> None:
        """Make both optimisers before a checkpoint may be loaded into them."""
        module = self._llm_module.module
        options: dict[str, Any] = {"betas": self.config.betas, "eps": self.config.adam_eps}
        adapters = [parameter for parameter in module._LLM_model.parameters() if parameter.requires_grad]
        self.actor = torch.optim.AdamW(adapters, weight_decay=0.0, **options)
        self.critic = torch.optim.Adam(module._module_functions.parameters(), **options)

    def state_dict(self) -> dict[str, Any]:
        return {"actor": self.actor.state_dict(), "critic": self.critic.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.actor.load_state_dict(state["actor"])
        self.critic.load_state_dict(state["critic"])

    def perform_update(
        self, contexts: list[str], candidates: list[list[str]], _current_batch_ids: Any, **kwargs: Any
    ) -> dict[str, float]:
        """One gradient step on this share.

        A loss that is not finite in any process makes all gradients so in every process, and none takes the step.

        Args:
            **kwargs: `part` (ACTOR or CRITIC), `lr`, `biases` of the candidates or None, and of the step's M samples
                `actions`, `old_log_probs` and `advantages` for the actor, (M,); `old_values`, `returns` and, where they
                are kept, `features` (M, hidden) for the critic.

        Returns:
            of the actor means over the share of `ACTOR_TERMS`, and `dropped`, 1 where the KL divergence of all samples
            exceeds `target_kl`, so that the step was not taken; of the critic `value_loss`. Of both the share's size
            `samples`, the loss, and the gradient norm before clipping.
        """
        optimizer = {ACTOR: self.actor, CRITIC: self.critic}[kwargs["part"]]
        for group in optimizer.param_groups:
            group["lr"] = kwargs["lr"]
        self.actor.zero_grad(set_to_none=True)
        self.critic.zero_grad(set_to_none=True)
        rows = {name: row[_current_batch_ids] for name, row in kwargs.items() if isinstance(row, Tensor)}
        if optimizer is self.actor:
            report = self._actor_gradient(contexts, candidates, kwargs["biases"], **rows)
        else:
            report = self._critic_gradient(contexts, **rows)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        grad_norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.config.max_grad_norm))
        if can_be_taken(report["loss"], grad_norm) and not report.get("dropped"):
            optimizer.step()
        return {**report, "grad_norm": grad_norm, "samples": float(len(contexts))}

    def _actor_gradient(
        self,
        contexts: list[str],
        candidates: list[list[str]],
        biases: Biases | None,
        *,
        actions: Tensor,
        old_log_probs: Tensor,
        advantages: Tensor,
        **_: Tensor,
    ) -> dict[str, float]:
        """Back-propagate the clipped surrogate and the entropy bonus; the tensors are (n,), of the share."""
        _, terms = self.accumulate(
            partial(self._actor_losses, biases=biases),
            self.policy.policy_keys,
            contexts,
            candidates,
            texts=candidates,
            actions=actions,
            old_log_probs=old_log_probs,
            advantages=advantages,
        )
        means = terms.means()
        # One decision of all processes: each knows the divergence of its own share alone.
        kl = float(self._llm_module.mean_over_batch(torch.tensor([means.approx_kl], dtype=torch.float64)))
        report = {name: getattr(means, name) for name in ACTOR_TERMS}
        return {**report, "loss": means.total(self.config.entropy_coef), "dropped": float(kl > self.config.target_kl)}

    def _actor_losses(
        self,
        outputs: list[dict[str, Tensor]],
        *,
        biases: Biases | None,
        texts: list[list[str]],
        actions: Tensor,
        old_log_probs: Tensor,
        advantages: Tensor,
    ) -> tuple[Tensor, LossTerms]:
        """Losses and terms of a chunk of samples."""
        log_policy = self.policy.log_probs(outputs, texts, biases)
        terms = ppo_loss(log_policy, actions, old_log_probs, advantages, clip=self.config.clip_eps)
        return terms.total(self.config.entropy_coef), terms

    def _critic_gradient(
        self,
        contexts: list[str],
        *,
        old_values: Tensor,
        returns: Tensor,
        features: Tensor | None = None,
        **_: Tensor,
    ) -> dict[str, float]:
        """Back-propagate the clipped value loss; the tensors are (n,), `features` (n, hidden), of the share.

        Without features, all samples run in one call, because `last_position` depends on its padding.
        """
        if features is None:
            values = self.policy.values(self._llm_module([VALUE], contexts=contexts, require_grad=True))
        else:
            critic = self._llm_module.module._module_functions[VALUE]
            values = critic.values(features.to(critic.device))[:, 0]
        targets = (row.to(values.device) for row in (old_values, returns))
        value = value_loss(values, *targets, clip=self.config.clip_eps).mean()
        loss = self.config.value_loss_coef * value
        with self._llm_module.one_exchange():
            loss.backward()
            if not torch.isfinite(loss):
                self._llm_module.spoil_gradients()
        return {"value_loss": value.item(), "loss": loss.item()}
