"""What an agent must offer to be tested, and what more to be trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from experiments.configuration import RLScriptArgs
from experiments.episodes import Episode
from experiments.nonfinite import SkippedSteps
from experiments.prompters import TextState


class View(NamedTuple):
    """What one environment shows before a decision."""

    text: TextState  # as the prompter words it
    mission: str  # as the test words it
    observation: Any  # the environment's own
    info: dict[str, Any]
    environment: int  # its place in the vector environment
    first: bool  # the first decision of an episode: agents with a memory forget


class Policy(NamedTuple):
    """What an agent makes of N views."""

    log_probs: np.ndarray  # (N, A) over each view's candidates, -inf where there is none
    values: np.ndarray | None = None  # (N,) expected return as the agent estimates it, in its own scale


class BaseAgent(Protocol):
    """A policy over the candidates of each state; who plays samples from it.

    Attributes:
        name: of the agent.
        env_wrapper: the wrapper that it needs around every environment, or None.
    """

    name: ClassVar[str]
    env_wrapper: ClassVar[Any]

    def decide(self, views: Sequence[View]) -> Policy:
        """The policy in each of N views; of one environment at most one."""

    def begin(self, rl: RLScriptArgs, test: str) -> None:
        """Called before episodes of a test are played, more than once if they come in blocks.

        Args:
            test: a name of `substitutions.TESTS`.
        """

    def close(self) -> None:
        """Let go of what the agent holds."""


class Collected(Protocol):
    """What an agent brings home from acting."""

    @property
    def episodes(self) -> list[Episode]:
        """The episodes that ended."""

    @property
    def frames(self) -> int:
        """Decisions taken, over all environments."""


class LearningAgent(Protocol):
    """What `TrainingRun` trains: `update(collect_rollout())` is one row of log.csv.

    Attributes:
        name: written into checkpoints, so that another agent's are refused.
        reads_prompts: whether `probabilities` can follow the probe prompts.
        skipping: counts the gradient steps that it skips.
    """

    name: ClassVar[str]
    reads_prompts: ClassVar[bool]
    skipping: SkippedSteps

    def collect_rollout(self) -> Any:
        """Act; returns a `Collected`."""

    def update(self, rollout: Any) -> dict[str, float]:
        """Learn; returns what the logs show of it, under the names of log.csv (absent ones stay empty there)."""

    def probabilities(self, states: Sequence[TextState]) -> Any:
        """(N, A) action probabilities of given states, for distrib.csv; None where it reads no prompts."""

    def save(self, folder: Path) -> None:
        """Write weights and optimiser into a folder."""

    def load(self, folder: Path) -> None:
        """Read what `save` wrote.

        Raises:
            UserError: it does not fit this agent.
        """

    def get_state(self) -> dict[str, Any]:
        """Environments, running episodes and random generators, JSON-able."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue where `get_state` was taken."""
