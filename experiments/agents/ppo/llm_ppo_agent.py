"""GLAM: an LLM that scores every action of every state, trained by PPO."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from experiments.agents.ppo.base_ppo_agent import BasePPOAgent, Decision, PPOConfig
from experiments.agents.ppo.calibration import Biases, mean_scores, read_biases, with_unseen, write_biases
from experiments.agents.ppo.decided_states import DecidedStates
from experiments.agents.ppo.llm_policy import LLMPolicy
from experiments.agents.ppo.rollout import Rollout, Samples
from experiments.nonfinite import check_policy
from experiments.prompters import Prompter, TextState
from experiments.prompters.stepping import advance_prompters, start_prompters
from lamorel import Caller


def decide(
    caller: Caller,
    policy: LLMPolicy,
    states: Sequence[TextState],
    biases: Biases | None = None,
    *,
    with_values: bool = True,
) -> Decision:
    """The policy and the value of N states under the LLM, on the CPU and without gradient.

    Args:
        biases: subtracted from the scores (`calibration`).
        with_values: False gives values of 0, without the forwards that they need.

    Raises:
        DivergedError: the LLM gives no finite numbers; the text shows a prompt.
    """
    candidates = [state.candidates for state in states]
    keys = policy.acting_keys if with_values else policy.policy_keys
    outputs = caller.custom_module_fns(keys, [state.prompt for state in states], candidates)
    with torch.no_grad():
        log_probs = policy.log_probs(outputs, candidates, biases).float().cpu()
        if with_values:
            decision = Decision(log_probs, policy.values(outputs).float().cpu(), policy.features(outputs))
        else:
            decision = Decision(log_probs, torch.zeros(len(states)))
    check_policy(decision.log_probs.numpy(), decision.values.numpy(), [state.prompt for state in states])
    return decision


def measure_biases(caller: Caller, policy: LLMPolicy, states: Sequence[TextState]) -> dict[str, float]:
    """The bias of every candidate that these states offer, under the LLM as it is."""
    candidates = [state.candidates for state in states]
    outputs = caller.custom_module_fns(policy.policy_keys, [state.prompt for state in states], candidates)
    return mean_scores(policy.scores(outputs, candidates), candidates)


class LLMPPOAgent(BasePPOAgent):
    """PPO over the LLM behind a `Caller`; its observations are `TextState`s.

    Args:
        envs: vector environment whose info carries descriptions, or prompt and actions.
        prompters: one per environment.
        caller: with `policy.module_functions()` and a `PPOUpdater` of the same policy.
        calibration_states: gives the states over which scores are calibrated before the first rollout; None
            disables calibration.
    """

    name: ClassVar[str] = "llm"
    reads_prompts: ClassVar[bool] = True

    def __init__(
        self,
        envs: Any,
        prompters: Sequence[Prompter],
        caller: Caller,
        policy: LLMPolicy,
        config: PPOConfig,
        *,
        seed: int,
        calibration_states: Callable[[], list[TextState]] | None = None,
    ) -> None:
        super().__init__(envs, config, seed)
        self.calibration_states = calibration_states
        self.biases: Biases | None = None
        self.prompters = list(prompters)
        self.caller = caller
        self.policy = policy
        self._decided: DecidedStates | None = None  # of the rollout under way

    def collect_rollout(self) -> Rollout:
        """Act `steps_per_env` steps in every environment; each distinct state is decided once."""
        self._decided = DecidedStates(self._ask) if self.policy.independent_states else None
        try:
            return super().collect_rollout()
        finally:
            self._decided = None  # the weights are about to change

    def _first_observations(self) -> list[TextState]:
        if self.calibration_states is not None:
            self.biases = measure_biases(self.caller, self.policy, self.calibration_states())
        observations, infos = self.envs.reset()
        return start_prompters(self.prompters, observations, infos)

    def _next_observations(self, actions: np.ndarray, step: tuple) -> tuple[list[TextState], list[TextState]]:
        observations, _, terminated, truncated, infos = step
        return advance_prompters(self.prompters, actions, observations, terminated | truncated, infos)

    def _environment_actions(self, actions: np.ndarray) -> np.ndarray:
        return np.array([state.action_ids[a] for state, a in zip(self.observations, actions, strict=True)])

    def _decide(self, observations: list[TextState]) -> Decision:
        if self.biases is not None:
            self.biases = with_unseen(self.biases, observations)
        return self._ask(observations) if self._decided is None else self._decided(observations)

    def _ask(self, observations: list[TextState]) -> Decision:
        return decide(self.caller, self.policy, observations, self.biases)

    def _minibatch_step(self, samples: Samples) -> dict[str, float]:
        return self._llm_step(samples)

    def _llm_step(self, samples: Samples, **kwargs: Any) -> dict[str, float]:
        """One call of the updater; what its LLM processes report, as means over all samples.

        Args:
            **kwargs: what the updater reads beside the samples.
        """
        columns = samples._asdict()
        rows = {name: column for name, column in columns.items() if name != "observations" and column is not None}
        results = self.caller.update(
            [state.prompt for state in samples.observations],
            [state.candidates for state in samples.observations],
            **rows,
            **kwargs,
            biases=self.biases,
        )
        shares = [result for result in results if result]  # an LLM process without a share reports nothing
        total = sum(share["samples"] for share in shares)
        means = {key: sum(share[key] * share["samples"] for share in shares) / total for key in shares[0]}
        if "ratio_error" in means:
            means["ratio_error"] = max(share["ratio_error"] for share in shares)
        return {**means, "samples": total}

    def save(self, folder: Path) -> None:
        self.caller.save(str(folder))
        if self.biases is not None:
            write_biases(folder, self.biases)

    def load(self, folder: Path) -> None:
        self.caller.load(str(folder))
        if self.calibration_states is not None:
            self.biases = read_biases(folder)

    def get_state(self) -> dict[str, Any]:
        return {**super().get_state(), "prompters": [prompter.get_state() for prompter in self.prompters]}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        for prompter, saved in zip(self.prompters, state["prompters"], strict=True):
            prompter.set_state(saved)
        self.observations = [prompter.state() for prompter in self.prompters] if state["environments"] else []

    def probabilities(self, states: Sequence[TextState]) -> Tensor:
        """(N, A) action probabilities of given states, for distrib.csv.

        PAPER-DIFF(9): the released code writes raw scores there, and nothing with action heads.
        """
        return self._decide(list(states)).log_probs.exp()
