"""Checkpoints that survive a kill at any moment: `models/ID/{last,backup}`.

A checkpoint is written to `.next`, flushed, and only then takes the place of `last`, which becomes `backup`:

    write .next -> fsync -> drop backup -> rename last to backup -> rename .next to last

so that at every moment at least one of the three is complete. `manifest.json` (sizes and sha256 of all files) is
written last and makes a folder complete.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from experiments.atomic_files import give_usual_permissions, sync_folder, sync_path, write_atomically
from experiments.errors import UserError
from experiments.folder_lock import FolderLock
from experiments.storage import StorageError, free_space, readable_size, writing

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
TRAINER = "trainer.json"
CARD = "README.md"
STATES = "states.json"

# A resumed run may differ in these; any other difference is refused. Each is a key or the head of keys.
FREE_ON_RESUME = (
    "rl_script_args.path",
    "rl_script_args.num_steps",
    "rl_script_args.torch_threads",
    "rl_script_args.vector_backend",
    "rl_script_args.saving_path_logs",
    "rl_script_args.saving_path_model",
    "rl_script_args.spm_path",  # the checkpoint holds the model itself, and is refused where the given one differs
    "rl_script_args.checkpoint_every",
    "rl_script_args.tests",  # this and the next five are of tests alone
    "rl_script_args.number_episodes",
    "rl_script_args.return_discount",
    "rl_script_args.stop_rule",
    "rl_script_args.zero_shot",
    "rl_script_args.shown_episodes",
    "rl_script_args.max_skipped_gradient_steps",
    "rl_script_args.tensorboard",
    "rl_script_args.wandb",
    "lamorel_args.log_level",
    "lamorel_args.gloo_timeout",
    "lamorel_args.distributed_setup_args",
    "lamorel_args.accelerate_args",
    "lamorel_args.llm_args.minibatch_size",
    "lamorel_args.llm_args.tokens_per_chunk",
    "lamorel_args.llm_args.parallelism",
)


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: models/ID.
        remedy: what else than waiting would help where the folder is in use.
    """

    def __init__(self, folder: Path, *, remedy: str = "another name_experiment") -> None:
        self.folder = folder
        self.update: int | None = None  # of the last complete checkpoint, once it was looked for or written
        self.lock = FolderLock(folder, remedy)
        self.last, self.backup, self.next = folder / "last", folder / "backup", folder / ".next"

    def save(self, trainer: dict[str, Any], states: dict[str, Any], save_agent: Callable[[Path], None]) -> None:
        """Write a checkpoint and make it `last`.

        Args:
            trainer: counters and the resolved configuration; must hold `update`.
            states: environments, prompters and random generators, JSON-able.
            save_agent: writes what the agent has learned into a folder (`LearningAgent.save`). Files that it hard-links
                to those of `last` are not read again.

        Raises:
            StorageError: the disk is full or fails; what was begun is removed, `last` and `backup` are as they were.
        """
        with writing(self.next):  # outside: what another run has begun in a folder that it took over is not ours
            self.lock.check()  # a folder that is gone with its disk must not begin anew in the mount point
        try:
            with writing(self.next):
                self._write(trainer, states, save_agent)
        except Exception as error:
            shutil.rmtree(self.next, ignore_errors=True)  # it would take what space there is
            size = self.size()
            if not isinstance(error, StorageError) or not size:
                raise
            with suppress(OSError):
                error = error.add(
                    f"a checkpoint takes {readable_size(size)}, {readable_size(free_space(self.folder))} are left"
                )
            raise error from error.__cause__
        with writing(self.folder):
            self._promote()
        self.update = trainer["update"]

    def _write(self, trainer: dict[str, Any], states: dict[str, Any], save_agent: Callable[[Path], None]) -> None:
        """Make a complete `.next`."""
        shutil.rmtree(self.next, ignore_errors=True)
        self.next.mkdir()
        save_agent(self.next)
        (self.next / TRAINER).write_text(json.dumps(trainer, indent=1), encoding="utf-8")
        (self.next / STATES).write_text(json.dumps(states), encoding="utf-8")
        give_usual_permissions(self.next)
        sync_folder(self.next)
        write_atomically(self.next / MANIFEST, json.dumps(self._manifest(trainer["update"]), indent=1))
        sync_path(self.next)

    def size(self) -> int:
        """Bytes that a checkpoint takes: those of the last one that it does not share with `backup`; 0 without one."""
        with suppress(OSError):
            files = [path.stat() for path in self.last.rglob("*") if path.is_file()]
            return sum(file.st_size for file in files if file.st_nlink == 1)
        return 0

    def safe(self, unit: str = "update") -> str:
        """What is left of the run when it ends before its time, for messages; `update` counts `unit`s."""
        if self.update is None:
            return "there is no checkpoint yet, the same command starts again"
        with suppress(OSError):
            if (self.last / MANIFEST).exists() or (self.backup / MANIFEST).exists():
                return f"the checkpoint of {unit} {self.update} is complete, the same command goes on from there"
        return f"the last checkpoint, of {unit} {self.update}, cannot be seen now"

    def lack_of_space(self) -> str | None:
        """What to say where the checkpoints to come do not fit beside those that are there; None where they do.

        There are three at a time: last, backup and the one that is being written.
        """
        try:
            size, free = self.size(), free_space(self.folder)
        except OSError:  # the next checkpoint will tell
            return None
        wanted = size * (1 if self.backup.exists() else 2)
        if free >= wanted:
            return None
        return (
            f"{self.folder}: {readable_size(free)} are left and {readable_size(wanted)} wanted, as a checkpoint takes "
            f"{readable_size(size)} and three of them stand side by side: free space, or the run will stop"
        )

    def _manifest(self, update: int) -> dict[str, Any]:
        """Sizes and hashes of all files of `.next` but the card, to which tests add.

        What is one file with that of `last` keeps what was noted there.
        """
        try:
            known = json.loads((self.last / MANIFEST).read_text(encoding="utf-8"))["files"]
        except (OSError, ValueError, KeyError, TypeError):
            known = {}
        files = {}
        for path in sorted(self.next.rglob("*")):
            name = str(path.relative_to(self.next))
            if not path.is_file() or name in (MANIFEST, CARD):
                continue
            if name in known and (self.last / name).exists() and path.samefile(self.last / name):
                files[name] = known[name]
            else:
                files[name] = {"size": path.stat().st_size, "sha256": _sha256(path)}
        return {"update": update, "files": files}

    def _promote(self) -> None:
        """Make a complete `.next` the last checkpoint; may be repeated after a kill between its steps."""
        if self.last.exists():
            shutil.rmtree(self.backup, ignore_errors=True)
            os.rename(self.last, self.backup)
        os.rename(self.next, self.last)
        sync_path(self.folder)

    def newest(self) -> Path | None:
        """The newest complete checkpoint, or None; says what it passes over. Changes nothing on the disk.

        Raises:
            UserError: there are checkpoints but none is complete.
        """
        folders = [folder for folder in (self.last, self.next, self.backup) if folder.exists()]
        # newest first, so that one checkpoint is read through and not all; of equally new ones the first stays first
        for folder in sorted(folders, key=_claimed_update, reverse=True):
            _, problem = verify(folder)
            if problem is None:
                return folder
            if folder != self.next:  # an unfinished .next is what a kill while saving leaves
                logger.warning("checkpoint %s is not complete (%s): looking for another one", folder, problem)
        if self.last.exists() or self.backup.exists():
            raise UserError(
                f"{self.folder}: no complete checkpoint among last and backup; remove the folder to start anew, "
                "or put back a copy"
            )
        return None

    def recover(self) -> Path | None:
        """`newest`, after finishing a promotion that a kill interrupted; for the one process that holds `locked`."""
        newest = self.newest()
        if newest is None:
            return None
        self.update = int(_claimed_update(newest))
        if newest == self.last:
            return newest
        with writing(self.folder):
            if self.last.exists() and verify(self.last)[1] is not None:
                shutil.rmtree(self.last)  # broken: the next promotion would put it in the place of a good backup
            if newest == self.backup:
                return newest
            self._promote()
        return self.last

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from writing checkpoints here; a kill releases it.

        Raises:
            UserError: another process holds it; the text names it.
        """
        with self.lock:
            yield


def _claimed_update(folder: Path) -> float:
    """The update that a manifest names, unverified; infinity where it cannot be read, so that this is looked into."""
    try:
        return float(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["update"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return math.inf


def verify(folder: Path) -> tuple[int, str | None]:
    """The update of a checkpoint, and what is wrong with it (None when it is complete)."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for name, expected in manifest["files"].items():
            path = folder / name
            if not path.is_file():
                return -1, f"{name} is missing"
            if path.stat().st_size != expected["size"] or _sha256(path) != expected["sha256"]:
                return -1, f"{name} is not what was written"
        return int(manifest["update"]), None
    except FileNotFoundError:
        return -1, f"{MANIFEST} is missing"
    except OSError as error:  # a disk that fails
        return -1, f"{error.filename or folder} cannot be read: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return -1, f"{MANIFEST} cannot be read: {error}"


def read_trainer(folder: Path) -> dict[str, Any]:
    return json.loads((folder / TRAINER).read_text(encoding="utf-8"))


def read_states(folder: Path) -> dict[str, Any]:
    return json.loads((folder / STATES).read_text(encoding="utf-8"))


def check_same_agent(trainer: dict[str, Any], agent: str, folder: Path) -> None:
    """Refuse a checkpoint of another agent; raises UserError naming both."""
    stored = trainer.get("agent", "llm")  # checkpoints of version 0.2 are all of the LLM
    if stored != agent:
        raise UserError(
            f"{folder} is a checkpoint of the agent {stored!r}, not {agent!r}: give the same agent "
            "(n_llm_processes, symbolic_ppo), or another name_experiment or name_model"
        )


def check_same_config(stored: dict[str, Any], given: dict[str, Any], folder: Path, fixed: Sequence[str] = ()) -> None:
    """Refuse to resume with another configuration.

    Args:
        fixed: of `FREE_ON_RESUME` those in which this run may not differ either.

    Raises:
        UserError: listing every key that differs, with both values.
    """
    free = [key for key in FREE_ON_RESUME if key not in fixed]
    remedy = "another name_experiment"
    _refuse_differences(folder, stored, given, lambda key: not is_or_begins(key, free), remedy)


# Keys that older checkpoints and results do not have, and what those did.
ADDED_KEYS = {
    "rl_script_args.method": "glam",
    "rl_script_args.symbolic.encoder": "film",
    "rl_script_args.calibration": "none",
}


def check_same_settings(
    stored: dict[str, Any],
    given: dict[str, Any],
    keys: Sequence[str],
    path: Path,
    remedy: str = "another name_experiment",
) -> None:
    """Refuse where one of `keys` (or of the keys that begin with it) differs; raises UserError as above.

    Args:
        remedy: what else than the same values would help.
    """
    _refuse_differences(path, stored, given, lambda key: is_or_begins(key, keys), remedy)


def is_or_begins(key: str, heads: Sequence[str]) -> bool:
    """Whether a key is one of `heads`, or in the section of one."""
    return any(key == head or key.startswith(f"{head}.") for head in heads)


def _refuse_differences(
    path: Path, stored: dict[str, Any], given: dict[str, Any], counts: Callable[[str], bool], remedy: str
) -> None:
    new = flatten(given)
    old = {key: value for key, value in ADDED_KEYS.items() if key in new} | flatten(stored)
    different = {
        key: f"{key}: was {old.get(key, 'absent')!r}, given {new.get(key, 'absent')!r}"
        for key in sorted(old.keys() | new.keys())
        if counts(key) and old.get(key, "absent") != new.get(key, "absent")
    }
    if different:
        raise UserError(
            f"{path} was made with another configuration ({', '.join(different)}): give the same values, or {remedy}\n"
            + "\n".join(f"  {line}" for line in different.values())
        )


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """A configuration's values under their full names, `section.key`."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
