"""What every prompter offers; one prompter belongs to one environment and owns its window of past observations."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from experiments.errors import UserError


class TextState(NamedTuple):
    """One decision as the LLM sees it. Lists may differ in length and content between states."""

    prompt: str
    candidates: list[str]  # what is scored, one text per offered action
    action_ids: list[int]  # what the environment is sent for each candidate


def needed(info: dict[str, Any], key: str, prompter: str, other: str) -> Any:
    """`info[key]`.

    Raises:
        UserError: naming the prompter that needs it and the one to try instead.
    """
    if key not in info:
        raise UserError(
            f"rl_script_args.prompter={prompter} needs info[{key!r}], which this environment does not give: try "
            f"prompter={other}, or another level"
        )
    return info[key]


class Prompter(Protocol):
    """The interface of a prompter."""

    def reset(self, mission: str) -> None:
        """Forget the past episode; the next `observe` gives the first observation of the new one."""

    def observe(self, observation: Any, info: dict[str, Any], action: int | None = None) -> None:
        """Take in a state, and the index (among the last candidates) of the action that led to it, if any.

        Raises:
            UserError: the info lacks what this prompter needs.
        """

    def state(self) -> TextState:
        """The present decision."""

    def get_state(self) -> dict[str, Any]:
        """The window as JSON-able data."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Put back what `get_state` gave."""
