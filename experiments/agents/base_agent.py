"""What an agent must offer to be tested."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import numpy as np

from experiments.prompters import TextState


class BaseAgent(Protocol):
    """Chooses one of the offered candidates in each of N states.

    Attributes:
        name: of its rows in tables.
        env_wrapper: the wrapper that it needs around every environment, or None.
    """

    name: ClassVar[str]
    env_wrapper: ClassVar[Any]

    def act(self, states: Sequence[TextState], infos: Sequence[dict[str, Any]], uniforms: np.ndarray) -> np.ndarray:
        """The index of the chosen candidate in each state.

        Args:
            infos: of the environments, one per state.
            uniforms: (N,) in [0, 1), the only source of chance.

        Returns:
            (N,) ints.
        """

    def close(self) -> None:
        """Let go of what the agent holds."""
