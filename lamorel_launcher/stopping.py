"""Signals to the launcher: which ones it knows, and what they do before processes are watched."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lamorel.distributed.late_signals import deferred

STOPPED = 75  # EX_TEMPFAIL of sysexits.h: an RL process was asked to stop, and the same command goes on
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


class StoppedEarly(BaseException):  # not an Exception: omegaconf makes others of those
    """A signal came before anything was started.

    Attributes:
        status: the exit status to end with.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} before anything was started")
        self.status = STOPPED if number in (signal.SIGTERM, signal.SIGUSR1) else 128 + number


def handle(handler: Callable[[int, FrameType | None], None]) -> None:
    """Has the signals handled, except those that this process was started to ignore (nohup, a shell's `&`)."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


_raised: StoppedEarly | None = None


def end_early(number: int, frame: FrameType | None) -> None:
    """The handler as long as there is nothing to hand a signal on to; more of them make no difference."""
    global _raised
    if deferred(number, frame):
        return
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    _raised = StoppedEarly(number)
    raise _raised


def forget_where_dropped(unraisable: Any) -> None:
    """A `sys.unraisablehook` without a word on what destructors drop of `end_early`, which `stopped_early` keeps."""
    if unraisable.exc_value is None or unraisable.exc_value is not _raised:
        sys.__unraisablehook__(unraisable)


def stopped_early() -> StoppedEarly | None:
    """What `end_early` has raised, whatever the line that the signal came in has made of it."""
    return _raised


@contextmanager
def held_back() -> Iterator[None]:
    """Signals that come within it are delivered at its end. Processes that are started begin with `begin_child`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def begin_child(*, ignores: bool) -> None:
    """What a process does between fork and exec.

    Args:
        ignores: it is ended by the launcher alone, by SIGKILL. SLURM sends a signal to every process of a job step, and
            those that serve are needed until the others have stopped.
    """
    for number in SIGNALS:
        if ignores:
            signal.signal(number, signal.SIG_IGN)
        elif signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
