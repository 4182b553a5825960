"""Chooses uniformly among the offered candidates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from experiments.agents.base_agent import Policy, View
from experiments.configuration import RLScriptArgs


class RandomAgent:
    """Uniform over the action list of each state."""

    name: ClassVar[str] = "random"
    env_wrapper: ClassVar[Any] = None

    def decide(self, views: Sequence[View]) -> Policy:
        counts = np.array([len(view.text.candidates) for view in views])[:, None]
        return Policy(np.where(np.arange(counts.max()) < counts, -np.log(counts), -np.inf))

    def begin(self, rl: RLScriptArgs, test: str) -> None:
        pass

    def close(self) -> None:
        pass
