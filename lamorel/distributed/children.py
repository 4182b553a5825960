"""Processes that a script starts before its Caller, in an LLM process: copies of workers that only RL processes use.

An LLM process serves until its RL processes have stopped, so our launcher starts it with SIGTERM ignored. What it
starts must not inherit that, as `terminate` and `join` would never return; nor may it delay the end of the LLM process.
"""

import multiprocessing
import os
import signal
import threading
import time
from contextlib import suppress
from types import FrameType

import psutil

from lamorel.distributed.launched import LAUNCHER_VARIABLE

_END_S = 2.0


def ignore_signal(_number: int, _frame: FrameType | None) -> None:
    """A handler in place of SIG_IGN: programs that the process starts do not inherit it."""


def let_children_be_stopped() -> None:
    """In an LLM process, gives SIGTERM its default effect on what the process starts from here on.

    Does nothing in other processes, children of LLM processes included.
    """
    started_by_launcher = os.environ.get(LAUNCHER_VARIABLE) == str(os.getppid())
    in_main_thread = threading.current_thread() is threading.main_thread()  # others cannot set handlers
    if started_by_launcher and in_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
        signal.signal(signal.SIGTERM, ignore_signal)
        signal.siginterrupt(signal.SIGTERM, False)
        os.register_at_fork(after_in_child=_reset)


def _reset() -> None:
    if signal.getsignal(signal.SIGTERM) is ignore_signal:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def end_soon(status: int) -> None:
    """Stops what this process has started, and bounds the time that it takes to end itself.

    Python waits for worker processes and threads when it ends. Those of an LLM process may wait forever, for what the
    RL process sends to its own.

    Args:
        status: exit status where the process has not ended by itself after a while.
    """
    daemons = {child.pid for child in multiprocessing.active_children() if child.daemon}  # python stops them itself
    for child in psutil.Process().children(recursive=True):
        if child.pid not in daemons:
            with suppress(psutil.Error):
                child.terminate()
    threading.Thread(target=_leave, args=(status,), daemon=True).start()


def _leave(status: int) -> None:
    time.sleep(_END_S)
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            child.kill()
    os._exit(status)
