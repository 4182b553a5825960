"""Signals that come where an exception cannot be raised: they are delivered again a moment later."""

import _thread
import signal
import threading
import time
from types import FrameType

_AGAIN_S = 0.05


def in_import(frame: FrameType | None) -> bool:
    """Whether a module is being imported in this frame.

    torch and numpy import Python modules while their C++ code is initialised. An exception raised there is dropped, and
    leaves half a module behind, or aborts the process.
    """
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def send_again(number: int) -> None:
    """Send this signal to the main thread in a moment."""
    # not a threading.Thread, whose start takes locks that the interrupted line may hold
    _thread.start_new_thread(_send, (number,))


def _send(number: int) -> None:
    time.sleep(_AGAIN_S)
    ident = threading.main_thread().ident
    assert ident is not None
    signal.pthread_kill(ident, number)
