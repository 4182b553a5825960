"""The LLM policy without learning, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from experiments.agents.base_agent import Policy, View
from experiments.agents.ppo.llm_policy import LLMPolicy
from experiments.agents.ppo.llm_ppo_agent import decide
from experiments.prompters import TextState
from lamorel import Caller


class LLMTestAgent:
    """The policy as in training.

    Args:
        trained: whether the value head is; of an untrained one no values are given.
    """

    name: ClassVar[str] = "llm"
    env_wrapper: ClassVar[Any] = None

    def __init__(self, caller: Caller, policy: LLMPolicy, *, trained: bool) -> None:
        self.caller = caller
        self.policy = policy
        self.trained = trained

    def decide(self, views: Sequence[View]) -> Policy:
        states: list[TextState] = [view.text for view in views]
        decision = decide(self.caller, self.policy, states)
        return Policy(decision.log_probs.numpy(), decision.values.numpy() if self.trained else None)

    def close(self) -> None:
        self.caller.close()
