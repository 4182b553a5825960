"""Environments that raise, told so that it can be repeated."""

import traceback
from typing import Any


class EnvironmentFailedError(RuntimeError):
    """An environment raised in `reset` or `step`; the text names it, the episode, the step and the action.

    Args:
        text: or another one, to be made again: that is how gymnasium brings a worker process's error home.
        state: for `set_state` of an environment made alike, which then raises in the same way; None where it has none.
        error: what was raised.

    Attributes:
        state: see above.
        traceback: of `error`, as text.
    """

    state: dict[str, Any] | None
    traceback: str

    def __init__(
        self,
        text: "str | EnvironmentFailedError",
        state: dict[str, Any] | None = None,
        error: BaseException | None = None,
    ) -> None:
        if isinstance(text, EnvironmentFailedError):
            super().__init__(*text.args)
            self.state, self.traceback = text.state, text.traceback
            self.__cause__ = WorkerTraceback(self.traceback)
            return
        super().__init__(text)
        self.state = state
        self.traceback = "" if error is None else "".join(traceback.format_exception(error)).rstrip()
        self.__cause__ = error


class WorkerTraceback(Exception):  # noqa: N818 (shows as the cause of the error itself)
    """The traceback of an error in a worker process."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}\n"""'
