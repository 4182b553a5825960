"""A prompter whose finished prompt is worded differently, for the generalisation tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from experiments.prompters.base_prompter import Prompter, TextState


class RewordedPrompter:
    """Wraps another prompter; its candidates are left as they are.

    Args:
        inner: the prompter that is shown what happens.
        reword: the finished prompt -> the prompt that is read.
    """

    def __init__(self, inner: Prompter, reword: Callable[[str], str]) -> None:
        self.inner = inner
        self.reword = reword

    def reset(self, mission: str) -> None:
        self.inner.reset(mission)

    def observe(self, observation: Any, info: dict[str, Any], action: int | None = None) -> None:
        self.inner.observe(observation, info, action)

    def state(self) -> TextState:
        state = self.inner.state()
        return state._replace(prompt=self.reword(state.prompt))

    def get_state(self) -> dict[str, Any]:
        return self.inner.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        self.inner.set_state(state)
