"""One process at a time in a folder, on one machine or several."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import IO

from experiments.atomic_files import make_folder
from experiments.errors import UserError
from experiments.run_record import process_name
from experiments.storage import writing

logger = logging.getLogger(__name__)

LOCK = ".lock"  # after `.NAME` where a part of the folder has a name
LEASE = ".lease"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)  # NFS without lockd, Lustre without -o flock
BEAT = 10.0  # seconds between two signs of life of a lease
SILENCE = 60.0  # seconds without one, after which its holder is taken for dead


class FolderLock:
    """A context manager; the kernel releases it when its process dies, however that happens.

    Where the file system has no locks, a lease stands in: the file `.lease`, touched by its holder every `BEAT` seconds
    from a thread. Who finds one watches it for `SILENCE` seconds before taking it over, which needs no common clock.

    Args:
        folder: made if need be.
        remedy: what else than waiting would help where it is in use.
        name: of the part of the folder that is locked, whose lock leaves no file behind; empty: all of it.
    """

    def __init__(self, folder: Path, remedy: str, name: str = "") -> None:
        self.folder, self.remedy, self.name = folder, remedy, name
        prefix = f".{name}" if name else ""
        self.path, self._lease_path = folder / f"{prefix}{LOCK}", folder / f"{prefix}{LEASE}"
        self.what = f"{name} in {folder}" if name else str(folder)
        self._file: IO[str] | None = None
        self._lease: _Lease | None = None

    def __enter__(self) -> FolderLock:
        """Raises UserError, naming the holder, where another process holds it; StorageError."""
        make_folder(self.folder)
        while True:
            with writing(self.path):
                self._file = self.path.open("a+", encoding="utf-8")
            try:
                self._take(self._file)
            except BaseException:
                self._file.close()
                self._file = None
                raise
            if self._lease is not None or self._is_there():
                return self
            self._file.close()  # whoever held it has removed it since it was opened

    def _is_there(self) -> bool:
        assert self._file is not None
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())
        except FileNotFoundError:
            return False

    def __exit__(self, *_: object) -> None:
        if self.name and self._file is not None:
            with suppress(OSError):
                self.path.unlink()
        lease, self._lease = self._lease, None
        file, self._file = self._file, None
        if lease is not None:
            lease.release()
        if file is not None:
            with suppress(OSError):
                file.close()

    def check(self) -> None:
        """Raises OSError (ESTALE) where the folder is not the one that was locked any more, or the lease is lost."""
        if self._file is None:
            return
        here = os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())
        if not here or (self._lease is not None and not self._lease.is_held()):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(self.folder))

    def _take(self, file: IO[str]) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise in_use(self.what, file.read(), self.remedy) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            logger.warning(
                "%s: its file system has no locks (%s), so the file %s keeps other runs away: after a kill it does so "
                "for another %.0f s",
                self.folder, error.strerror, self._lease_path.name, SILENCE,
            )  # fmt: skip
            self._lease = _Lease(self._lease_path, self.what, self.remedy)
        with writing(self.path):
            file.truncate(0)
            file.write(holder())
            file.flush()


class _Lease:
    """Taken when made.

    Two that take over the same dead lease in the same instant may both believe to have it; `is_held`, asked before
    every checkpoint, then ends one of them.
    """

    def __init__(self, path: Path, what: str, remedy: str) -> None:
        self.path = path
        self.content = f"{holder()}\n{uuid.uuid4().hex}"
        own = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        with writing(self.path):
            own.write_text(self.content, encoding="utf-8")
            try:
                self._take(own, what, remedy)
            finally:
                own.unlink()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def is_held(self) -> bool:
        return self.path.read_text(encoding="utf-8") == self.content

    def release(self) -> None:
        self._over.set()
        self._thread.join()
        with suppress(OSError):
            if self.is_held():
                self.path.unlink()

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            with suppress(OSError):
                os.utime(self.path)

    def _take(self, own: Path, what: str, remedy: str) -> None:
        while True:
            try:
                os.link(own, self.path)  # one of several succeeds, on network file systems too
                return
            except FileExistsError:
                pass
            with suppress(FileNotFoundError):  # released meanwhile
                found = self.path.read_text(encoding="utf-8")
                logger.warning("%s: looking for a sign of life of %s", what, found.splitlines()[0])
                if self._is_touched():
                    raise in_use(what, found.splitlines()[0], remedy)
                os.rename(self.path, own.with_suffix(".old"))
                if own.with_suffix(".old").read_text(encoding="utf-8") != found:  # another one was quicker
                    with suppress(FileExistsError):
                        os.link(own.with_suffix(".old"), self.path)
                own.with_suffix(".old").unlink()

    def _is_touched(self) -> bool:
        first, end = self._touched_at(), time.monotonic() + SILENCE
        while time.monotonic() < end:
            time.sleep(BEAT / 10)
            if self._touched_at() != first:
                return True
        return False

    def _touched_at(self) -> int:
        with self.path.open("rb") as file:  # opened, as NFS then asks its server
            return os.fstat(file.fileno()).st_mtime_ns


def holder() -> str:
    """This process, for those who find its lock."""
    return f"{process_name()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}"


def in_use(what: str, name: str, remedy: str) -> UserError:
    return UserError(f"{what} is in use by another run ({name.strip()}): wait for it or stop it, or give {remedy}")
