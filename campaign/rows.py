"""One row per run of a campaign, put together from what it leaves behind (`campaign.slurm_queue`, `traces`)."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from campaign.slurm_queue import Key, Queued
from campaign.standing import BAD, ENDED, Job, standing
from campaign.traces import Event, Run, Submitted

RUN_ID = re.compile(r"(?P<name>.+?)_nbr_env_\d+_(?P<model>.+?)_pretrained_(?P<rest>.+)_seed_(?P<seed>\d+)")


@dataclass(frozen=True)
class Row:
    """One run, or one job that is no training.

    Attributes:
        name, arguments: of the script in campaign/; of a run without a job its experiment and model, and nothing.
        seed: the array's index, or the seed in the run's id.
        state: of `STATES`.
        reason: why it waits, stopped or failed; "" where there is nothing to say.
        update, frames, num_steps, success_rate, frames_per_second: of run.json; None where unknown.
        seconds_left: at that speed; None for a run that has ended.
        job: as squeue names it, JOB or ARRAY_INDEX.
        restarts: how often the job has begun again.
        folder: logs/ID.
        log: the job's log file, once it has begun.
    """

    name: str
    arguments: tuple[str, ...]
    seed: int | None
    state: str
    reason: str = ""
    update: int | None = None
    frames: int | None = None
    num_steps: int | None = None
    success_rate: float | None = None
    frames_per_second: float | None = None
    seconds_left: float | None = None
    job: str | None = None
    restarts: int = 0
    folder: str | None = None
    log: str | None = None

    @property
    def title(self) -> str:
        return " ".join((self.name, *self.arguments))


def make_rows(
    queue: Sequence[Queued] | None,
    submitted: Iterable[Submitted],
    events: Iterable[Event],
    runs: Iterable[Run],
    *,
    root: str,
    now: float,
) -> list[Row]:
    """One row per run, and per job without a run, in the order of their names, arguments, seeds and jobs.

    A script that was submitted again with the same arguments and seed is one run: its newest job counts, and older ones
    only while they are in the queue.

    Args:
        queue: of this user; None where SLURM cannot be asked.
        root: the repository: jobs that were submitted elsewhere are left out.
        now: seconds since the epoch.
    """
    jobs: dict[Key, Job] = {}

    def job(key: Key, name: str, arguments: tuple[str, ...]) -> Job:
        known = jobs.setdefault(key, Job(key))
        if not known.name:
            known.name, known.arguments = name, arguments
        return known

    for entry in submitted:
        job(entry.key, entry.name, entry.arguments).submitted = entry.time
    for event in events:
        job(event.key, event.name, event.arguments).events.append(event)
    runs = list(runs)
    with_run = {run.key for run in runs}
    for queued in queue or ():
        here = os.path.realpath(queued.folder) == root and queued.state not in ENDED
        if here or queued.key in jobs or queued.key in with_run:
            job(queued.key, queued.name, queued.arguments).queued = queued

    rows = []
    for run in runs:
        if run.key in jobs:
            jobs[run.key].runs.append(run)
        else:
            rows.append(_row_of_run(run, asked=queue is not None and run.key is not None))
    for group in _groups(jobs.values()):
        newest = group[-1]
        trained = {run.folder: run for one in group for run in one.runs}
        for one in group:
            if one is newest or (one.queued and one.queue_state not in ENDED):
                of_it: list[Run | None] = [*(one.runs or (trained.values() if one is newest else ()))]
                rows += [_row_of_job(one, run, queue is not None, now) for run in of_it or [None]]
    return sorted(rows, key=lambda row: (row.name, row.arguments, -1 if row.seed is None else row.seed))


def _groups(jobs: Iterable[Job]) -> list[list[Job]]:
    """The jobs of each run, oldest first."""
    groups: dict[Any, list[Job]] = {}
    for job in sorted(jobs, key=lambda job: (len(job.key[0]), job.key[0])):  # numbers of any length
        groups.setdefault((job.name, job.arguments, job.key[1]), []).append(job)
    return list(groups.values())


def _row_of_run(run: Run, *, asked: bool) -> Row:
    """A run without a job that is known.

    Args:
        asked: SLURM was asked, and does not know its job.
    """
    state, reason = run.record["state"], str(run.record.get("reason") or "")
    if state == "running" and asked:
        state, reason = "lost", "its job is gone"
    elif state == "running" and not run.alive:
        state, reason = "lost", f"no sign of life from process {run.record.get('pid')} on {run.record.get('host')}"
    parts = RUN_ID.fullmatch(run.folder.name)
    name = f"{parts['name']} {parts['model']}" if parts else run.folder.name
    return _row(name, (), int(parts["seed"]) if parts else None, state, reason, run)


def _row_of_job(job: Job, run: Run | None, asked: bool, now: float) -> Row:
    state, reason = standing(job, run, asked, now)
    number, index = job.key
    element = number if index is None else f"{number}_{index}"
    return _row(
        job.name,
        job.arguments,
        index,
        state,
        reason,
        run,
        job=element,
        restarts=max((event.restart for event in job.events), default=0),
        log=f"campaign/logs/{job.name}_{element}.log" if job.events or job.runs else None,
    )


def _row(
    name: str, arguments: tuple[str, ...], seed: int | None, state: str, reason: str, run: Run | None, **of_job: Any
) -> Row:
    if run is None:
        return Row(name, arguments, seed, state, reason, **of_job)
    record = run.record
    frames, num_steps, speed = (_number(record.get(key)) for key in ("frames", "num_steps", "frames_per_second"))
    left = None
    if state not in ("done", *BAD) and speed and num_steps is not None:
        left = max(num_steps - (frames or 0), 0) / speed
    return Row(
        name,
        arguments,
        seed,
        state,
        reason,
        update=_whole(record.get("update")),
        frames=_whole(frames),
        num_steps=_whole(num_steps),
        success_rate=_number(record.get("success_rate")),
        frames_per_second=speed,
        seconds_left=left,
        folder=str(run.folder),
        **of_job,
    )


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _whole(value: float | None) -> int | None:
    number = _number(value)
    return None if number is None else int(number)
