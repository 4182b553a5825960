"""What a campaign leaves behind, read into plain objects: campaign/logs and the runs' run.json.

What cannot be read is named in `problems` and left out; nothing here raises because of a file.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campaign.site import site_environment
from campaign.slurm_queue import Key, job_key
from experiments.errors import UserError

# numbers of a run.json, those that it must hold first
NEEDED = ("num_steps", "started", "written")
MEASURED = ("update", "frames", "success_rate", "frames_per_second")
RECORDED = ("running", "done", "stopped", "failed")  # states of a run.json
ERROR = re.compile(r"error: |[\w.]+(Error|Exception): ")
UNREADABLE = (KeyError, TypeError, ValueError, OverflowError)  # what a record of another form runs into
LOG_TAIL = 20_000  # bytes
UNWATCHED = 1800.0  # seconds without a sign of life after which a run elsewhere counts as gone, or 5 updates


@dataclass(frozen=True)
class Submitted:
    """A `.submitted` file of campaign/submit.py, for one element of its array."""

    key: Key
    name: str
    arguments: tuple[str, ...]
    time: float


@dataclass(frozen=True)
class Event:
    """A line of an `.events` file of slurm/environment.sh."""

    key: Key
    event: str
    time: float
    restart: int
    status: int | None
    name: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """A run.json (`experiments.run_record`).

    Attributes:
        key: of the job that it ran in last, None outside SLURM.
        alive: whether its process seems to exist, where its state is running and SLURM does not tell.
    """

    folder: Path
    record: dict[str, Any]
    key: Key | None
    alive: bool


def read_submitted(folder: Path, problems: list[str]) -> list[Submitted]:
    """All `NAME_JOBID.submitted` of campaign/logs, arrays element by element."""
    found = []
    for path in sorted(folder.glob("*.submitted")):
        record = _read_json(path, problems)
        if record is None:
            continue
        try:
            arguments = tuple(map(str, record.get("arguments") or ()))
            for index in array_indices(record.get("array")):
                key = (str(record["job"]), index)
                found.append(Submitted(key, str(record["name"]), arguments, float(record.get("time") or 0)))
        except UNREADABLE as error:
            problems.append(f"{path}: left out, not as submit.py writes it ({type(error).__name__}: {error})")
    return found


def array_indices(array: Any) -> list[int | None]:
    """The elements of sbatch's --array, such as "1-3,7%2" or [1, 2]; [None] for a job that is no array."""
    if array is None or array == "" or array == []:
        return [None]
    parts = array if isinstance(array, list) else str(array).partition("%")[0].split(",")
    indices: list[int | None] = []
    for part in map(str, parts):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?(?::(\d+))?", part.strip())
        if match is None:
            raise ValueError(f"array {array!r}")
        indices += range(int(match[1]), int(match[2] or match[1]) + 1, int(match[3] or 1))
    return indices


def read_events(folder: Path, problems: list[str]) -> list[Event]:
    """The lines of all `.events` of campaign/logs; of each file in their order."""
    found = []
    for path in sorted(folder.glob("*.events")):
        lines = (_read_text(path, problems) or "").splitlines()
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                key = job_key(record["job"], record.get("array_job"), record.get("task"))
                status = record.get("status")
                found.append(
                    Event(
                        key,
                        str(record["event"]),
                        float(record["time"]),
                        int(record.get("restart") or 0),
                        None if status in (None, "") else int(status),
                        path.stem.removesuffix("_" + "_".join(str(part) for part in key if part is not None)),
                        tuple(map(str, record.get("arguments") or ())),
                    )
                )
            except UNREADABLE as error:
                problems.append(f"{path}: line {number} left out ({type(error).__name__}: {error})")
    return found


def read_runs(logs: Sequence[Path], now: float, problems: list[str]) -> list[Run]:
    """The run.json in the folders of the runs below `logs`, folders like saving_path_logs."""
    found = {}
    for path in sorted(path for folder in logs for path in folder.glob("*/run.json")):
        record = _read_json(path, problems)
        if record is None:
            continue
        wrong = [name for name in NEEDED if not isinstance(record.get(name), int | float)]
        wrong += [name for name in MEASURED if not isinstance(record.get(name, 0), int | float)]
        wrong += [] if record.get("state") in RECORDED else ["state"]
        slurm = record.get("slurm") or {}
        key = None
        try:
            if slurm:
                key = job_key(slurm["job_id"], slurm.get("array_job_id"), slurm.get("array_task_id"))
        except UNREADABLE:
            wrong.append("slurm")
        if wrong:
            problems.append(f"{path}: left out, {', '.join(wrong)} not as a training run writes it")
            continue
        alive = record["state"] == "running" and is_alive(record, now)
        found[path.resolve()] = Run(path.parent, record, key, alive)
    return list(found.values())


def is_alive(record: dict[str, Any], now: float) -> bool:
    """Whether the process of a run.json exists: by its number on this machine, by its last sign of life elsewhere."""
    if record.get("host") == socket.gethostname() and isinstance(record.get("pid"), int):
        import psutil  # here, as few runs need it

        try:
            # a second of tolerance: the record's clock and the kernel's
            return psutil.Process(record["pid"]).create_time() <= record["started"] + 1
        except psutil.NoSuchProcess:
            return False
        except psutil.Error:  # another user's, on a system that hides them
            return True
    updates, frames, speed = (record.get(name) or 0 for name in ("update", "frames", "frames_per_second"))
    seconds = frames / updates / speed if updates and speed else 0.0  # of an update
    return now - record["written"] < max(UNWATCHED, 5 * seconds)


def last_error(path: Path) -> str:
    """The last line of a job's log that tells of an error, a traceback's last one included; "" where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - LOG_TAIL, 0))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if ERROR.match(line)), "")


def storage_logs(root: Path, problems: list[str]) -> list[Path]:
    """The folders of logs below the storage root that jobs have: slurm/site.sh's, the environment's, or storage."""
    environment: Mapping[str, str] = os.environ
    try:
        environment = site_environment(root, environment)
    except UserError as error:
        problems.append(str(error))
    folder = root / Path(environment.get("GLAM_STORAGE") or "storage").expanduser()
    return sorted(path for glob in ("logs*", "*/logs*") for path in folder.glob(glob) if path.is_dir())


def _read_json(path: Path, problems: list[str]) -> dict[str, Any] | None:
    text = _read_text(path, problems)
    if text is None:
        return None
    try:
        record = json.loads(text)
        if isinstance(record, dict):
            return record
        problems.append(f"{path}: left out, no object")
    except ValueError as error:
        problems.append(f"{path}: left out, {error}" if text else f"{path}: left out, empty")
    return None


def _read_text(path: Path, problems: list[str]) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:  # removed a moment ago
        return None
    except OSError as error:
        problems.append(f"{path}: left out, {error.strerror}")
        return None
