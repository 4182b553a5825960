"""Redeliver signals that arrive where raising an exception is unsafe."""

import _thread
import signal
import threading
import time
from types import FrameType

_AGAIN_S = 0.05
_PATIENCE_S = 30.0  # longer than torch's import takes on a busy machine
_since: float | None = None  # when the first signal came during the present import


def deferred(number: int, frame: FrameType | None) -> bool:
    """Whether the signal interrupts an import, and is sent again in a moment.

    torch and numpy import Python modules while their C++ code is initialised. An exception raised there is dropped, and
    leaves half a module behind, or aborts the process. An import that never ends is interrupted after a while.

    Args:
        frame: as the signal's handler gets it.
    """
    global _since
    if not _in_import(frame):
        _since = None
        return False
    now = time.monotonic()
    _since = now if _since is None else _since
    if now - _since > _PATIENCE_S:
        return False
    send_again(number)
    return True


def _in_import(frame: FrameType | None) -> bool:
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
