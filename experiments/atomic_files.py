"""Files that are either the old or the new one, never half-written, whatever kills the process or fills the disk."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

import numpy as np

from experiments.storage import writing


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write `content` to `path` by way of a temporary file beside it, flushed to the disk before the rename.

    Raises:
        StorageError: it cannot be written; what was there is there still.
    """
    temporary = path.with_name(f".{path.name}.new")
    with writing(path):
        try:
            with temporary.open("wb") as file:
                file.write(content.encode("utf-8") if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()  # half of it would take what space there is
            raise


def append(path: Path, content: str | bytes) -> None:
    """Add to a file that is there, and flush it: a checkpoint that follows must not outlive it when the machine dies.

    Raises:
        StorageError: it cannot be written or is gone; a part of the content may be in it.
    """
    with writing(path):
        # without O_CREAT: a file that has vanished with its disk must not begin anew in the empty mount point
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are not there; raises StorageError."""
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an array to `path` (.npy) as `write_atomically` does."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_atomically(path, buffer.getvalue())


def give_usual_permissions(folder: Path) -> None:
    """Let every file below `folder` be read and written by whom a new file there would be, as the umask has it.

    safetensors, and so Hugging Face, writes files that their owner alone may read.
    """
    new = folder / ".new"
    new.touch()
    mode = new.stat().st_mode
    new.unlink()
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_mode != mode:
            with contextlib.suppress(OSError):  # a file system that has none
                path.chmod(mode)


def sync_folder(folder: Path) -> None:
    """Flush every file below `folder`, and the folders themselves, to the disk."""
    for path in [*folder.rglob("*"), folder]:
        sync_path(path)


def sync_path(path: Path) -> None:
    """Flush one file, or the entries of one folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
