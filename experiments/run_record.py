"""`logs/ID/run.json`: how a training run stands, for people and for `campaign/status.py`."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from experiments.atomic_files import write_atomically

RECORD = "run.json"
MEASURED = ("success_rate", "frames_per_second")  # by updates
# what SLURM tells a job of itself; the ids of an array job and of its element make the name squeue shows
SLURM_VARIABLES = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT")


def process_facts() -> dict[str, Any]:
    """Who runs: host, process and, in a SLURM job, its ids (name without SLURM_, in lower case)."""
    job = {name[6:].lower(): os.environ[name] for name in SLURM_VARIABLES if name in os.environ}
    return {"host": socket.gethostname(), "pid": os.getpid(), "slurm": job}


def process_name() -> str:
    """`process_facts` in words, for messages."""
    facts = process_facts()
    job = facts["slurm"].get("job_id")
    return f"process {facts['pid']} on {facts['host']}" + (f", SLURM job {job}" if job else "")


class RunRecord:
    """Keeps the record up to date.

    State is running, done, stopped (by a signal, the same command goes on) or failed; a run that was killed leaves
    "running", with the time of its last sign of life.

    Args:
        folder: logs/ID.
        num_steps: frames that the run is to have, those of a warm-up included.
    """

    def __init__(self, folder: Path, num_steps: int) -> None:
        self.path = folder / RECORD
        self.facts: dict[str, Any] = {"num_steps": num_steps, **process_facts(), "started": time.time()}
        self.standing = self._left_behind()

    def _left_behind(self) -> dict[str, Any]:
        """What an earlier start measured last, to be shown until this one's first update is over."""
        try:
            record = json.loads(self.path.read_text(encoding="utf-8"))
            return {name: record[name] for name in MEASURED if name in record}
        except (OSError, ValueError, TypeError):
            return {}

    def write(self, state: str, *, reason: str = "", **standing: Any) -> None:
        """Note how the run stands.

        Args:
            reason: why it has stopped or failed.
            **standing: update, frames, episodes, success_rate (of the last update that ended an episode),
                frames_per_second (of the last updates and all between them); what is not given stays as it was.
        """
        self.standing |= standing
        entries = {"state": state, "reason": reason, **self.standing, **self.facts, "written": time.time()}
        write_atomically(self.path, json.dumps(entries, indent=1))
