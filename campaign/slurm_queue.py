"""SLURM's queue, as squeue shows it."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Key = tuple[str, int | None]  # of a job: SLURM's id of it, or of its array and the element's index in it

# base id, index in the array, state, its reason, start (expected, of one that waits), name, command, working folder
FORMAT = "%F|%K|%T|%r|%S|%j|%o|%Z"
SECONDS = 20  # squeue's time to answer


@dataclass(frozen=True)
class Queued:
    """A job, or an element of an array, as squeue shows it.

    Attributes:
        start: when it began or is to begin, seconds since the epoch; None where SLURM does not know.
        folder: in which it was submitted.
    """

    key: Key
    state: str
    reason: str
    start: float | None
    name: str
    arguments: tuple[str, ...]
    folder: str


def ask_squeue(problems: list[str]) -> list[Queued] | None:
    """This user's jobs, those that ended a moment ago among them; None without SLURM or without its answer."""
    if shutil.which("squeue") is None:
        return None
    command = ["squeue", "--me", "--array", "--noheader", "--states=all", f"--format={FORMAT}"]
    environment = {**os.environ, "SLURM_TIME_FORMAT": "standard"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        said = f"no answer in {SECONDS} s" if isinstance(error, subprocess.TimeoutExpired) else str(error)
    else:
        if done.returncode == 0:
            return parse_queue(done.stdout)
        said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    problems.append(f"squeue fails, so what waits or is gone is not known: {said}")
    return None


def parse_queue(text: str) -> list[Queued]:
    """The lines of squeue with `FORMAT`."""
    queued = []
    for line in text.splitlines():
        parts = line.split("|")
        if len(parts) < 8:
            continue
        job, index, state, reason, start, name = parts[:6]
        command, folder = "|".join(parts[6:-1]), parts[-1]
        begins = None
        with suppress(ValueError):  # N/A
            begins = datetime.fromisoformat(start).timestamp()
        key = (job, int(index) if index.isdigit() else None)
        queued.append(Queued(key, state, reason, begins, name, tuple(command.split()[1:]), folder))
    return queued


def job_key(job: Any, array_job: Any, task: Any) -> Key:
    """The key of a job from its SLURM_JOB_ID, SLURM_ARRAY_JOB_ID and SLURM_ARRAY_TASK_ID; None or "" where unset."""
    return str(array_job or job), None if task in (None, "") else int(task)
