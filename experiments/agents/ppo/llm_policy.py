"""What the LLM's outputs mean for acting and updating: the same few lines serve both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments.agents.ppo.action_scores import SCORE_RULES, candidate_outputs, log_policy
from experiments.agents.ppo.calibration import Biases, subtract_biases
from experiments.agents.ppo.heads import ActionHead, FrozenCritic, FrozenFeatures, ReleasedFrozenCritic, ValueHead
from experiments.errors import UserError

VALUE, FEATURES, ACTION_LOGITS = "value", "features", "action_logits"
FROZEN_CRITICS = {"last_token": FrozenCritic, "last_position": ReleasedFrozenCritic}


@dataclass(frozen=True)
class LLMPolicy:
    """How scores become a policy.

    Attributes:
        score_rule: a name of `SCORE_RULES`; not used with action heads.
        temperature: divides the scores.
        action_heads: number of actions of the MLP that replaces scoring; None scores candidates.
        detach_value: True keeps the value's gradient out of the LLM.
        frozen_critic: a name of `FROZEN_CRITICS` for TWOSOME's critic; None for the value head.
    """

    score_rule: str = "sum"
    temperature: float = 1.0
    action_heads: int | None = None
    detach_value: bool = False
    frozen_critic: str | None = None

    def module_functions(self) -> dict[str, Any]:
        """The heads to register with lamorel."""
        if self.frozen_critic is not None:
            critic = {VALUE: FROZEN_CRITICS[self.frozen_critic]()}
            return {**critic, FEATURES: FrozenFeatures()} if self.keeps_features else critic
        heads: dict[str, Any] = {VALUE: ValueHead(detach=self.detach_value)}
        if self.action_heads is not None:
            heads[ACTION_LOGITS] = ActionHead(self.action_heads)
        return heads

    @property
    def independent_states(self) -> bool:
        """Whether the outputs for a state do not depend on the other states of a call."""
        return self.frozen_critic != "last_position"

    @property
    def keeps_features(self) -> bool:
        """Whether the critic's input is constant, so that features from acting are reused in updates.

        The input of `last_position` depends on the other prompts of a call.
        """
        return self.frozen_critic == "last_token"

    @property
    def acting_keys(self) -> list[str]:
        """The outputs that a decision is made of."""
        return [*self.policy_keys, VALUE, *([FEATURES] if self.keeps_features else [])]

    @property
    def policy_keys(self) -> list[str]:
        """The outputs that the policy reads."""
        return [ACTION_LOGITS] if self.action_heads is not None else list(SCORE_RULES[self.score_rule][1])

    def log_probs(
        self, outputs: Sequence[dict[str, Tensor]], candidates: Sequence[list[str]], biases: Biases | None = None
    ) -> Tensor:
        """(B, A) log-probabilities of each state's candidates, -inf where a state has fewer than A.

        Args:
            biases: subtracted from the scores (`calibration`).

        Raises:
            UserError: a state offers another number of actions than the action heads have.
        """
        if self.action_heads is not None:
            offered = {len(texts) for texts in candidates} - {self.action_heads}
            if offered:
                raise UserError(
                    f"rl_script_args.use_action_heads: a state offers {min(offered)} actions, the heads have "
                    f"{self.action_heads}; score candidates instead (use_action_heads=false)"
                )
            scores = [row[ACTION_LOGITS].reshape(-1) for row in outputs]
        else:
            scores = self.scores(outputs, candidates)
        if biases is not None:
            scores = [subtract_biases(row, texts, biases) for row, texts in zip(scores, candidates, strict=True)]
        return log_policy(scores, self.temperature)

    def scores(self, outputs: Sequence[dict[str, Tensor]], candidates: Sequence[list[str]]) -> list[Tensor]:
        """Per state (K_b,) scores of its candidates by the score rule."""
        formula = SCORE_RULES[self.score_rule][0]
        return [formula(candidate_outputs(row, texts)) for row, texts in zip(outputs, candidates, strict=True)]

    @staticmethod
    def values(outputs: Sequence[dict[str, Tensor]]) -> Tensor:
        """(B,)"""
        return torch.cat([row[VALUE].reshape(1) for row in outputs])

    def features(self, outputs: Sequence[dict[str, Tensor]]) -> Tensor | None:
        """(B, hidden), None where none are kept."""
        return torch.cat([row[FEATURES] for row in outputs]) if self.keeps_features else None
