"""Storage that fails while it is written to: full, over quota, read-only, removed or unmounted.

Libraries say it in types of their own (safetensors, torch), or in another process; `writing` makes one error of them.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments.errors import UserError

REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free space"),
    errno.EFBIG: "raise the limit of a file's size (ulimit -f)",
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "make it writable"),
    **dict.fromkeys(
        (errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ENODEV), "it was removed or unmounted, mend that"
    ),
}
PROBE = 4 << 20  # bytes; more than what a file system keeps back for small files


class StorageError(UserError):
    """A file or folder cannot be written; the text names it, the reason and the remedy."""

    def add(self, text: str) -> StorageError:
        """The same error, saying more."""
        more = StorageError(f"{self}; {text}").with_traceback(self.__traceback__)
        more.__cause__ = self.__cause__
        return more


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around whatever writes `path`, a file or all that is in a folder.

    Raises:
        StorageError: the storage failed; from the error itself. Any other error passes.
    """
    try:
        yield
    except UserError:  # a StorageError names the file more exactly
        raise
    except Exception as error:
        number, reason = _storage_problem(error, path)
        if reason is None:
            raise
        remedy = REMEDIES.get(number, "see to the file system")
        raise StorageError(f"cannot write {path} ({reason}): {remedy}") from error


def free_space(path: Path) -> int:
    """Bytes that may still be written where `path` is, or is to be; a quota may leave less."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def readable_size(size: float) -> str:
    """Bytes in words: 1.4 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _storage_problem(error: BaseException, path: Path) -> tuple[int, str | None]:
    """The number and the name of what is wrong with the storage; None where the error is of another kind."""
    link: BaseException | None = error
    while link is not None:
        number = link.errno if isinstance(link, OSError) else None
        # safetensors, and what an LLM process writes in vain: (os error 28), [Errno 28]
        if number is None and (found := re.search(r"\(os error (\d+)\)|\[Errno (\d+)\]", str(link))):
            number = int(found[1] or found[2])
        if number is not None:
            named = getattr(link, "filename", None)
            return number, os.strerror(number) + (f": {named}" if named and Path(str(named)) != path else "")
        # torch reports that its file could not be written while it handles that
        link = (link.__cause__ or link.__context__) if type(link) is RuntimeError else None
    # torch's archive writer tells no number, and often only that fewer bytes came out than went in
    text = str(error)
    if not any(mark in text for mark in ("inline_container.cc", "iostream error", "Parent directory")):
        return 0, None
    for number in REMEDIES:
        if os.strerror(number) in text:
            return number, os.strerror(number)
    problem = _try_to_write(path)
    return (problem.errno or 0, problem.strerror) if problem is not None else (0, "not all of it arrived")


def _try_to_write(path: Path) -> OSError | None:
    """What a file of some MB beside or in `path` runs into."""
    try:
        with tempfile.TemporaryFile(dir=path if path.is_dir() else path.parent) as file:
            file.write(bytes(PROBE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error
    return None
