"""`run.log`: what a script says on stderr, kept with the time over all its starts."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from experiments.hydra_script import user_errors
from experiments.run_record import process_name
from experiments.stopping import Stopped
from experiments.storage import writing

RUN_LOG = "run.log"


@contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """Within it all log messages and warnings go to the end of `path` as well, and so does what ends it.

    An error's text is written where it is meant for the user, else its traceback; neither is shown here, as the script
    will. A start is one line that begins with ===.

    Raises:
        StorageError: the file cannot be opened. One that cannot be written later is let be.
    """
    with writing(path):
        handler = _Quiet(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))

    def note(level: int, text: str) -> None:
        handler.handle(logging.LogRecord("glam", level, "", 0, text, None, None))

    shown = warnings.showwarning

    def show(message, category, filename, lineno, file=None, line=None):
        note(logging.WARNING, f"{filename}:{lineno}: {category.__name__}: {message}")
        shown(message, category, filename, lineno, file, line)

    note(logging.INFO, f"=== started by {process_name()} in {os.getcwd()}: {shlex.join(sys.argv)}")
    logging.getLogger().addHandler(handler)
    warnings.showwarning = show
    try:
        yield
        note(logging.INFO, "=== ended")
    except Stopped as stopped:
        note(logging.WARNING, f"=== ended: {stopped}")
        raise
    except user_errors() as error:
        note(logging.ERROR, f"=== ended: {error}")
        raise
    except BaseException:
        note(logging.ERROR, f"=== ended by an error\n{traceback.format_exc().rstrip()}")
        raise
    finally:
        warnings.showwarning = shown
        logging.getLogger().removeHandler(handler)
        handler.close()


class _Quiet(logging.FileHandler):
    """Says nothing where its disk is full: the run's other files will, and stderr has the message."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        pass

    def close(self) -> None:
        with suppress(OSError):
            super().close()
