"""The LLM policy without learning, for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from experiments.agents.base_agent import Policy, View
from experiments.agents.ppo.base_ppo_agent import Decision
from experiments.agents.ppo.calibration import Biases, read_biases, with_unseen
from experiments.agents.ppo.decided_states import DecidedStates
from experiments.agents.ppo.llm_policy import LLMPolicy
from experiments.agents.ppo.llm_ppo_agent import decide, measure_biases
from experiments.configuration import RLScriptArgs
from experiments.prompters import TextState
from lamorel import Caller


class LLMTestAgent:
    """The policy as in training.

    Args:
        trained: whether the value head is trained; if not, no values are returned.
        calibration_states: gives the states over which scores are calibrated in a test; None disables calibration.
    """

    name: ClassVar[str] = "llm"
    env_wrapper: ClassVar[Any] = None

    def __init__(
        self,
        caller: Caller,
        policy: LLMPolicy,
        *,
        trained: bool,
        calibration_states: Callable[[RLScriptArgs, str], list[TextState]] | None = None,
    ) -> None:
        self.caller = caller
        self.policy = policy
        self.trained = trained
        self.calibration_states = calibration_states
        self.learned_with: Biases = {}  # the biases of training
        self.biases: Biases | None = None
        self.begun: tuple[RLScriptArgs, str] | None = None  # what the biases are for
        self._decided = DecidedStates(self._ask)

    def load(self, checkpoint: Path) -> None:
        self.caller.load(str(checkpoint))
        self._decided = DecidedStates(self._ask)
        if self.calibration_states is not None:
            self.learned_with = read_biases(checkpoint)

    def begin(self, rl: RLScriptArgs, test: str) -> None:
        """Words of this test that training did not know are calibrated over its own states, by the LLM as it is now."""
        if self.calibration_states is None or self.begun == (rl, test):
            return
        states = self.calibration_states(rl, test)
        known = all(text in self.learned_with for state in states for text in state.candidates)
        measured = {} if known else measure_biases(self.caller, self.policy, states)
        self.biases = {**measured, **self.learned_with}
        self.begun = (rl, test)
        self._decided = DecidedStates(self._ask)

    def decide(self, views: Sequence[View]) -> Policy:
        states: list[TextState] = [view.text for view in views]
        if self.biases is not None:
            self.biases = with_unseen(self.biases, states)
        decision = self._decided(states) if self.policy.independent_states else self._ask(states)
        return Policy(decision.log_probs.numpy(), decision.values.numpy() if self.trained else None)

    def _ask(self, states: list[TextState]) -> Decision:
        return decide(self.caller, self.policy, states, self.biases, with_values=self.trained)

    def close(self) -> None:
        self.caller.close()
