"""The LLM policy without learning, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from experiments.agents.ppo.llm_policy import LLMPolicy
from experiments.episodes import sample_actions
from experiments.prompters import TextState
from lamorel import Caller


class LLMTestAgent:
    """Samples from the policy, as in training."""

    name: ClassVar[str] = "llm"
    env_wrapper: ClassVar[Any] = None

    def __init__(self, caller: Caller, policy: LLMPolicy) -> None:
        self.caller = caller
        self.policy = policy

    def act(self, states: Sequence[TextState], infos: Sequence[dict[str, Any]], uniforms: np.ndarray) -> np.ndarray:
        candidates = [state.candidates for state in states]
        prompts = [state.prompt for state in states]
        outputs = self.caller.custom_module_fns(self.policy.policy_keys, prompts, candidates)
        return sample_actions(self.policy.log_probs(outputs, candidates).float().cpu().numpy(), uniforms)

    def close(self) -> None:
        self.caller.close()
