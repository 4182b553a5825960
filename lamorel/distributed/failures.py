"""Errors that travel between processes, and errors about other processes."""

import pickle
import traceback
from collections.abc import Iterable
from dataclasses import dataclass

from lamorel.distributed.launched import LOST_STATUS, TIMEOUT_KEY, has_our_launcher


class WaitTimeoutError(TimeoutError):
    """Another process did not answer in time; the message names it, and the key to raise."""

    def __init__(self, seconds: float, awaited: str, purpose: str) -> None:
        super().__init__(f"waited {seconds:g} s for {awaited} {purpose}: if it needs longer, raise {TIMEOUT_KEY}")

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_timeout, (str(self),)


class ProcessLostError(RuntimeError):
    """Another process ended in the middle of the work."""


class ProcessLostExit(SystemExit):
    """The same under our launcher, which has said which process ended first: this one ends without a word."""

    def __init__(self, message: str) -> None:
        super().__init__(LOST_STATUS)
        self.message = message

    def __str__(self) -> str:
        return self.message


class PeerFailedError(RuntimeError):
    """Another LLM process failed, so that work which all of them share cannot go on; the reason is the other's."""


class RemoteTraceback(Exception):  # noqa: N818 (shows as the cause of the error itself)
    """The traceback of an error in another process."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


@dataclass(frozen=True)
class Failure:
    """An exception on its way to another process."""

    pickled: bytes | None
    summary: str
    traceback: str
    origin: str  # the process where it was raised
    secondary: bool  # the consequence of a failure elsewhere

    @classmethod
    def of(cls, error: BaseException, origin: str) -> "Failure":
        summary = traceback.format_exception_only(error)[-1].strip()
        text = "".join(traceback.format_exception(error)).rstrip()
        return cls(_pickled(error), summary, text, origin, isinstance(error, PeerFailedError))

    def error(self) -> Exception:
        """The same exception, where it can be pickled, with the remote traceback as its cause."""
        found = None if self.pickled is None else pickle.loads(self.pickled)
        if not isinstance(found, Exception):
            found = RuntimeError(f"in {self.origin}: {self.summary}")
        found.__cause__ = RemoteTraceback(f'in {self.origin}:\n"""\n{self.traceback}\n"""')
        return found


def first_failure(failures: Iterable[Failure]) -> Failure | None:
    """The one to report: a cause rather than its consequence."""
    return min(failures, key=lambda failure: failure.secondary, default=None)


def process_lost(message: str) -> BaseException:
    """What to raise where another process has gone."""
    return ProcessLostExit(message) if has_our_launcher() else ProcessLostError(message)


def _pickled(error: BaseException) -> bytes | None:
    try:
        data = pickle.dumps(error)
        pickle.loads(data)  # many exceptions can be written, but not made again from what was written
    except Exception:
        return None
    return data


def _rebuild_timeout(message: str) -> WaitTimeoutError:
    error = WaitTimeoutError.__new__(WaitTimeoutError)
    error.args = (message,)
    return error
