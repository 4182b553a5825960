"""In which state a job is, and the run it works on, from what SLURM, its events and run.json say."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from campaign.slurm_queue import Key, Queued
from campaign.traces import Event, Run
from experiments.stopping import STOPPED

STATES = ("running", "waiting", "done", "stopped", "failed", "lost")
BAD = ("failed", "lost")

# squeue's states of a job that has not begun, or is to begin again
PENDING = ("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")
ENDED = (
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
    "TIMEOUT",
)  # fmt: skip
JUST_SUBMITTED = 60.0  # seconds in which a job need not be in the queue yet


@dataclass
class Job:
    """All that is known of a job, or of an element of an array."""

    key: Key
    name: str = ""
    arguments: tuple[str, ...] = ()
    submitted: float | None = None
    queued: Queued | None = None
    events: list[Event] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)

    @property
    def began(self) -> float:
        """When it began last; 0 where no event tells."""
        return max((event.time for event in self.events if event.event == "started"), default=0.0)

    @property
    def queue_state(self) -> str:
        """ "" where it is not in the queue."""
        return self.queued.state if self.queued else ""


def standing(job: Job, run: Run | None, asked: bool, now: float) -> tuple[str, str]:
    """State and reason of a job, and of the run that it last worked on.

    Args:
        asked: SLURM was asked, so that a job without `queued` is gone.
    """
    last = job.events[-1] if job.events else None
    # of this start of this job, not what an earlier one left
    record = run.record if run and run.key == job.key and run.record["written"] >= job.began - 1 else None
    if job.queued and job.queue_state in PENDING:
        return _waiting(job.queued, again=bool(job.events))
    if last and last.event == "ended":
        return _ended(last.status, run, record)
    if last and last.event == "requeued":
        if asked and (not job.queued or job.queue_state in ENDED):
            return "stopped", "left the queue after it was requeued: submit it again"
        return "waiting", "requeued"
    if record and record["state"] in ("done", "failed"):
        return record["state"], str(record.get("reason") or "")
    if job.queued and job.queue_state not in ENDED:
        return "running", str(record.get("reason") or "") if record else ""
    if record and record["state"] == "stopped":
        return "stopped", str(record.get("reason") or "")
    if job.queued and job.queue_state == "COMPLETED":
        return _ended(0, run, record)
    if job.queued:
        why = "" if job.queued.reason in ("None", "(null)") else f" ({job.queued.reason})"
        return "failed", job.queue_state + why + ("" if last else " before it began")
    if last or record:
        return _out_of_sight(run, asked)
    if asked and now - (job.submitted or 0) > JUST_SUBMITTED:
        return "failed", "left the queue before it began: cancelled, or what it waited for failed"
    return "waiting", "" if asked else "submitted"


def _waiting(queued: Queued, *, again: bool) -> tuple[str, str]:
    if queued.reason == "DependencyNeverSatisfied":
        return "failed", "DependencyNeverSatisfied: what it waits for failed, cancel it"
    reasons = ["requeued"] if again else []
    if queued.reason not in ("None", "(null)", ""):
        until = "" if queued.start is None else f" until {datetime.fromtimestamp(queued.start):%d %b %H:%M}"
        reasons.append(queued.reason + (until if queued.reason == "BeginTime" else ""))
    return "waiting", ", ".join(reasons)


def _ended(status: int | None, run: Run | None, record: dict[str, Any] | None) -> tuple[str, str]:
    """Of a job that has ended with an exit status."""
    said = str(record.get("reason") or "") if record else ""
    if status == STOPPED:
        return "stopped", said or f"exit status {STOPPED}"
    if status != 0:
        return "failed", said or f"exit status {status}"
    if run and run.record["state"] != "done":
        return "failed", said or "ended with status 0 before its run was complete"
    return "done", ""


def _out_of_sight(run: Run | None, asked: bool) -> tuple[str, str]:
    """Of a job that has begun, not ended, and is not in the queue."""
    if asked:
        return "lost", "its job is gone without an end: killed, or its node failed"
    if run and not run.alive:
        return "lost", "no sign of life"
    return "running", "" if run else "as of its last event"
