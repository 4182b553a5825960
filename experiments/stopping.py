"""Signals that ask a run to stop: a time limit that is near, preemption, an operator.

SIGTERM and SIGUSR1 end a script with the exit status `STOPPED` once nothing is lost by it: the same command goes on.
A script that has nothing to save ends at once; one that has marks where it does (`finishing_steps`). SIGINT (Ctrl-C)
always ends it at once, with status 130. The first signal counts: SLURM sends one to every process, and a launcher hands
its own on, so that each comes several times.
"""

from __future__ import annotations

import _thread
import atexit
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lamorel.distributed.children import ignore_signal
from lamorel.distributed.late_signals import deferred, send_again

STOPPED = 75  # EX_TEMPFAIL of sysexits.h: try again later
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Stopped(BaseException):  # not an Exception: what mends or reports failures must let it pass
    """A signal has ended the script before its work was done; the text says what becomes of the work.

    Attributes:
        status: the exit status to end with.
        number: of the signal, where it was its handler that raised this.
    """

    def __init__(self, text: str, status: int = STOPPED, number: int | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.number = number


class _State:
    """Of this process: signal handlers are global."""

    finishing = False  # somebody will look at `signal`
    ending = False  # `Stopped` is on its way out
    raised: Stopped | None = None  # by the handler
    signal: str | None = None
    leave_after_s: float | None = None
    other_hook: Callable[[Any], Any] = sys.__unraisablehook__


def listen_for_stop(*, leave_after_s: float | None = None) -> None:
    """From here on these signals end this script by `Stopped` instead of killing it; for the main thread.

    Signals that this process ignores already stay ignored: an LLM process is ended by its launcher.

    Args:
        leave_after_s: leave the process so many seconds after a `Stopped` that a signal raised, whoever caught it: it
            comes in the middle of any line, be it a library's that drops what is raised there.
    """
    _State.ending, _State.raised, _State.signal, _State.leave_after_s = False, None, None, leave_after_s
    for number in (*SIGNALS, signal.SIGINT):
        if signal.getsignal(number) not in (signal.SIG_IGN, ignore_signal):
            signal.signal(number, _on_signal)
    if sys.unraisablehook is not _on_unraisable:
        _State.other_hook, sys.unraisablehook = sys.unraisablehook, _on_unraisable


def stop_listening() -> None:
    """Have the interpreter ignore SIGTERM and SIGUSR1 once it ends, as the script has, with whatever status.

    It gives handlers up before its end, and unloads torch in the meantime: a signal would then kill the process of a
    script that has done its work, or has told its status. Not here: this process may go on, and start others.
    """
    atexit.register(_ignore_signals)  # the last one registered is called first


def _ignore_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def stop_signal() -> str | None:
    """The name of the signal that asked to stop, None while nobody has."""
    return _State.signal


def stop_behind(error: BaseException) -> Stopped | None:
    """The `Stopped` that ends a script by this error, which a library may have made of it; None where none does."""
    return error if isinstance(error, Stopped) else _State.raised


@contextmanager
def finishing_steps() -> Iterator[None]:
    """Within it SIGTERM and SIGUSR1 only set `stop_signal`: who enters looks at it after every step, raising `Stopped`.

    One that nobody has looked at is still set for whoever enters next.
    """
    _State.finishing = True
    try:
        yield
    except Stopped:
        _State.ending = True  # before the next line: later signals must not disturb what lets go of things
        raise
    finally:
        _State.finishing = False


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _State.ending:
        return
    name = signal.Signals(number).name
    if _State.finishing and number != signal.SIGINT:
        _State.signal = _State.signal or name
        return
    if deferred(number, frame):
        return
    _State.ending = True
    status = 128 + number if number == signal.SIGINT else STOPPED
    _State.raised = stopped = Stopped(f"stopped by {name}: the same command goes on", status, number)
    if _State.leave_after_s is not None:
        _thread.start_new_thread(_leave, (_State.leave_after_s, stopped))
    raise stopped


def _leave(seconds: float, stopped: Stopped) -> None:
    time.sleep(seconds)
    if _State.raised is stopped:
        os._exit(stopped.status)


def _on_unraisable(unraisable: Any) -> None:
    """Destructors and callbacks of weak references drop what is raised in them: the signal comes again after them."""
    stopped = unraisable.exc_value
    if isinstance(stopped, Stopped) and stopped is _State.raised and stopped.number is not None:
        _State.ending, _State.raised = False, None
        send_again(stopped.number)
    else:
        _State.other_hook(unraisable)
