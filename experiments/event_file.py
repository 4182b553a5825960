"""What a run shows in TensorBoard."""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from experiments.atomic_files import append, write_atomically


class EventFile:
    """One event file, of one start of a run; what is written is on the disk when `write` returns.

    SummaryWriter is not used because it writes in a thread: where the disk is full that one prints a traceback of its
    own, and the run hears of it an update later.

    Args:
        folder: where TensorBoard looks.
        first_step: readers drop what earlier files of the folder say of this step and later ones.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        # readers go through the files of a folder in the order of their names
        self.path = folder / f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        version = Event(wall_time=time.time(), step=first_step, file_version="brain.Event:2")
        start = Event(wall_time=time.time(), step=first_step, session_log=SessionLog(status=SessionLog.START))
        write_atomically(self.path, _records(version, start))

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        """Add scalars of one step; raises StorageError."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        append(self.path, _records(Event(wall_time=time.time(), step=step, summary=Summary(value=values))))


def _records(*events: Event) -> bytes:
    """In TensorBoard's format: each with its length and checksums."""
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for event in events:
        writer.write(event.SerializeToString())
    return buffer.getvalue()
