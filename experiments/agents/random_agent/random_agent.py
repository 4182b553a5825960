"""Chooses uniformly among the offered candidates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from experiments.prompters import TextState


class RandomAgent:
    """Uniform over the action list of each state."""

    name: ClassVar[str] = "random"
    env_wrapper: ClassVar[Any] = None

    def act(self, states: Sequence[TextState], infos: Sequence[dict[str, Any]], uniforms: np.ndarray) -> np.ndarray:
        counts = np.array([len(state.candidates) for state in states])
        return np.floor(uniforms * counts).astype(int)

    def close(self) -> None:
        pass
