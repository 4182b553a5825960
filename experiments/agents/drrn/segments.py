"""A fixed number of transitions, side by side in flat arrays.

A full segment does not change any more and is one file: a checkpoint only links to it, so that saving millions of
transitions costs as much as saving the last segment.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

SEGMENT = 16_384  # transitions; some 5 MB at 150 pieces


class Rows:
    """Rows of unequal length, one behind the other in a flat array that grows."""

    def __init__(self, rows: int, dtype: Any) -> None:
        self.flat = np.empty(1024, dtype)
        self.ends = np.zeros(rows + 1, np.int64)

    def put(self, row: int, values: Sequence[int] | np.ndarray) -> None:
        start, end = self.ends[row], self.ends[row] + len(values)
        if end > len(self.flat):
            self.flat = np.concatenate([self.flat, np.empty(max(len(self.flat), len(values)), self.flat.dtype)])
        self.flat[start:end] = values
        self.ends[row + 1] = end

    def get(self, row: int) -> np.ndarray:
        return self.flat[self.ends[row] : self.ends[row + 1]]


class Segment:
    """Up to `size` transitions.

    Attributes:
        pieces: row 2k is the state of transition k; row 2k + 1 the last state of the episode where that ended there and
            is bootstrapped, else empty.
        candidates: likewise, the numbers of the texts of their actions.
        columns: of the transitions.
        written: device and inode of the file that holds the segment once it is full.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.pieces = Rows(2 * size, np.uint16)
        self.candidates = Rows(2 * size, np.int32)
        self.columns = {
            "action": np.zeros(size, np.int32),  # number of its text
            "reward": np.zeros(size, np.float32),
            "duration": np.zeros(size, np.int32),
            "end": np.zeros(size, np.bool_),
        }
        self.written: tuple[int, int] | None = None

    def fit(self) -> None:
        """The segment is full: give back what its arrays have grown beyond that."""
        for rows in (self.pieces, self.candidates):
            rows.flat = rows.flat[: rows.ends[-1]].copy()

    def save(self, path: Path, count: int, previous: Path) -> None:
        """Write the first `count` transitions, or link to the file that holds them already.

        Args:
            previous: the folder in which the segment was written or read the last time.
        """
        if not (self.written and _link(previous / path.name, path, self.written)):
            save_file({name: np.ascontiguousarray(array) for name, array in self._arrays(count).items()}, path)
        if count == self.size:
            self.written = _identity(path)

    def _arrays(self, count: int) -> dict[str, np.ndarray]:
        arrays = {name: column[:count] for name, column in self.columns.items()}
        for name, rows in (("pieces", self.pieces), ("candidates", self.candidates)):
            arrays[f"{name}_ends"] = rows.ends[: 2 * count + 1]
            arrays[name] = rows.flat[: rows.ends[2 * count]]
        return arrays

    @classmethod
    def load(cls, path: Path, size: int) -> Segment:
        """What `save` wrote, with room for `size` transitions."""
        arrays = load_file(path)
        segment = cls(size)
        for name, column in segment.columns.items():
            column[: len(arrays[name])] = arrays[name]
        for name, rows in (("pieces", segment.pieces), ("candidates", segment.candidates)):
            rows.ends[: len(arrays[f"{name}_ends"])] = arrays[f"{name}_ends"]
            rows.flat = np.array(arrays[name])
        if len(arrays["end"]) == size:
            segment.written = _identity(path)
        return segment


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _link(source: Path, target: Path, identity: tuple[int, int]) -> bool:
    """Make `target` the file `source`, a copy where there are no hard links; False where `source` is another file."""
    if not source.exists() or _identity(source) != identity:
        return False
    try:
        os.link(source, target)
    except OSError:  # some network and memory-card file systems
        shutil.copyfile(source, target)
    return True
