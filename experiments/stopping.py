"""Signals that ask a run to stop: a time limit that is near, preemption, an operator.

SIGTERM and SIGUSR1 end a script with the exit status `STOPPED` once nothing is lost by it: the same command goes on.
A script that has nothing to save ends at once; one that has marks where it does (`finishing_steps`).
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPED = 75  # EX_TEMPFAIL of sysexits.h: try again later
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Stopped(BaseException):  # not an Exception: what mends or reports failures must let it pass
    """A signal has ended the script before its work was done; the text says what becomes of the work."""


class _Requests:
    """The state of this process: signal handlers are global."""

    waiting = False  # somebody will look at `signal`
    signal: str | None = None


def listen_for_stop() -> None:
    """From here on the two signals end this script by `Stopped` instead of killing it; for the main thread."""
    for number in SIGNALS:
        signal.signal(number, _on_signal)


def stop_signal() -> str | None:
    """The name of the signal that asked to stop, None while nobody has."""
    return _Requests.signal


@contextmanager
def finishing_steps() -> Iterator[None]:
    """Within it a signal only sets `stop_signal`: who enters looks at it after every step, and raises `Stopped`."""
    _Requests.waiting = True
    try:
        yield
    finally:
        _Requests.waiting, _Requests.signal = False, None


def _on_signal(number: int, _frame: FrameType | None) -> None:
    name = signal.Signals(number).name
    if not _Requests.waiting:
        raise Stopped(f"stopped by {name}: the same command starts again")
    _Requests.signal = name
