"""Run folders: which ones are selected, and what they recorded of their training."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from experiments.configuration import training_frames
from experiments.csv_log import in_words, ranges, read_rows
from experiments.errors import UserError
from experiments.run_log import COLUMNS

RUN_ID = re.compile(r"(?P<name>.+)_seed_(?P<seed>\d+)")


@dataclass(frozen=True)
class Run:
    """A folder logs/ID.

    Attributes:
        name: the experiment id without its seed.
        config: config.yaml of a training run, resolved; None in a folder that holds tests only.
    """

    folder: Path
    name: str
    seed: int
    config: dict[str, Any] | None


def find_runs(logs: Sequence[Path], globs: Sequence[str], seeds: Sequence[int], missing: list[str]) -> list[Run]:
    """The run folders that the options select, in the order of their ids.

    Args:
        logs: folders like saving_path_logs.
        globs: of experiment ids.
        seeds: the seeds asked for; empty for all.
        missing: globs without a match, folders that are no runs and absent seeds are added.

    Raises:
        UserError: nothing is selected.
    """
    folders = set()
    for glob in globs:
        if not glob or Path(glob).is_absolute():
            raise UserError(f"--runs {glob!r}: give a glob of experiment ids, and the folder that holds them as --logs")
        found = {folder for root in logs for folder in root.glob(glob) if folder.is_dir()}
        if not found:
            missing.append(f"--runs {glob} matches no folder of {_names(logs)}")
        folders |= found
    for root in logs:
        if not root.is_dir():
            missing.append(f"--logs {root}: no such folder")
    if not folders:
        raise UserError(f"--runs {', '.join(globs)} matches no folder of {_names(logs)}: give other globs or --logs")
    runs = []
    for folder in sorted({folder.resolve(): folder for folder in sorted(folders)}.values(), key=lambda f: (f.name, f)):
        parts = RUN_ID.fullmatch(folder.name)
        if parts:
            runs.append(Run(folder, parts["name"], int(parts["seed"]), _read_config(folder, missing)))
        else:
            missing.append(f"{folder}: not the folder of a run, its name does not end in _seed_N")
    selected = [run for run in runs if not seeds or run.seed in seeds]
    for name in sorted({run.name for run in runs}):
        absent = sorted(set(seeds) - {run.seed for run in runs if run.name == name})
        if absent:
            missing.append(f"{name}: no run of seed {', '.join(map(str, absent))}")
    if not selected:
        given = f" with --seeds {' '.join(map(str, seeds))}" if seeds else ""
        raise UserError(f"--runs {', '.join(globs)}{given}: no run among the folders of {_names(logs)}")
    return selected


def same_id(run: Run, runs: Sequence[Run]) -> list[Run]:
    """The other folders of a run: its tests may lie below another saving_path_logs than its training."""
    return [other for other in runs if other.folder.name == run.folder.name and other is not run]


def _names(logs: Sequence[Path]) -> str:
    return ", ".join(map(str, logs))


def _read_config(folder: Path, missing: list[str]) -> dict[str, Any] | None:
    path = folder / "config.yaml"
    if not path.exists():
        return None
    try:
        config = OmegaConf.to_container(OmegaConf.load(path))
        if isinstance(config, dict) and {"rl_script_args", "lamorel_args"} <= config.keys():
            return {str(key): value for key, value in config.items()}
        reason = "no rl_script_args and lamorel_args in it"
    except Exception as error:  # yaml's and omegaconf's errors have no common base
        reason = f"{type(error).__name__}"
    missing.append(f"{path}: unreadable ({reason})")
    return None


def read_log(run: Run, frames: int | None, missing: list[str]) -> pd.DataFrame | None:
    """The rows of a training run's log.csv, one per update; None where there are none.

    Args:
        frames: the curve is cut at this many; None for all.
        missing: the faults of the file (`log_rows`), rows that status.json counts and the file lacks, and frames that
            the training (or `frames`) asks for and were not trained are added; the rows that are there are used.
    """
    path = run.folder / "log.csv"
    log = log_rows(path, missing)
    if log is None or not len(log):
        if log is not None:
            missing.append(f"{path}: no update in it")
        return None
    last, trained = int(log["update"].iloc[-1]), int(log["frames"].iloc[-1])
    status = run.folder / "status.json"
    try:
        counted = json.loads(status.read_text(encoding="utf-8"))["i"] if status.exists() else last
    except (ValueError, KeyError, TypeError):
        missing.append(f"{status}: unreadable")
        counted = last
    if counted > last:
        missing.append(f"{path}: truncated, it ends with update {last} of {counted}")
    steps = training_frames(run.config) if run.config else trained
    if trained < min(steps, frames or steps) and counted <= last:
        missing.append(f"{run.folder}: trained for {trained} of {steps} frames")
    cut = log if frames is None else log[log["frames"] <= frames]
    if not len(cut):
        missing.append(f"{path}: no update within {frames} frames")
        return None
    return cut


def log_rows(path: Path, missing: list[str]) -> pd.DataFrame | None:
    """The rows of a log.csv, one per update and in their order, empty cells as NaN; None where it cannot be read.

    Args:
        missing: the faults of the file are added: those that `read_csv` finds, updates without a row, and frames that
            do not rise from one update to the next.
    """
    present = ("success_rate", "return_mean")  # empty where no episode ended in an update
    log = read_csv(path, ("update",), ("frames",), missing, present=present, numbers=COLUMNS)
    if log is None:
        return None
    gaps = [(before + 1, after - 1) for before, after in pairwise([0, *log["update"]]) if after > before + 1]
    if gaps:
        missing.append(f"{path}: no row of {in_words(gaps, 'update')}")
    falling = log["update"][log["frames"].diff() <= 0].tolist()
    if falling:
        missing.append(f"{path}: column frames does not rise at {in_words(ranges(falling), 'update')}")
    return log


def read_csv(
    path: Path,
    key: Sequence[str],
    needed: Sequence[str],
    missing: list[str],
    *,
    present: Sequence[str] = (),
    numbers: Sequence[str] | None = None,
) -> pd.DataFrame | None:
    """A csv file, its rows as `csv_log.read_rows` finds them; None where it cannot be read.

    Args:
        key: columns of whole numbers that identify a row.
        needed: columns that must hold a number in every row; rows without are left out.
        missing: a line is added where the file or a column is missing, for the faults of its rows, and for each column
            with cells that are no finite numbers.
        present: columns that must be there, but may have empty cells.
        numbers: further columns of numbers; None: all columns are. Cells that are no finite numbers are read as empty.
    """
    if not path.exists():
        missing.append(f"{path}: no such file")
        return None
    try:
        rows = read_rows(path, key, missing, columns=(*needed, *present))
    except (OSError, csv.Error) as error:
        missing.append(f"{path}: unreadable ({type(error).__name__})")
        return None
    if rows is None:
        return None
    known = (*key, *needed, *present)
    table = pd.DataFrame([row.cells for row in rows], [row.number for row in rows], None if rows else known)
    for name in table.columns:
        texts = table[name].fillna("").str.strip()
        if numbers is not None and name not in (*known, *numbers):
            table[name] = texts.where(texts != "", None)
            continue
        values = pd.to_numeric(texts, errors="coerce")
        finite = np.isfinite(values)
        table[name] = values.where(finite)
        spoilt = texts[~finite & ((texts != "") | (name in needed))]
        if len(spoilt):
            cells = ", ".join(repr(text) for text in spoilt.unique()[:3])
            effect = "left out" if name in needed else "read as empty"
            missing.append(
                f"{path}: column {name} has no finite number in {in_words(ranges(spoilt.index))} ({cells}), {effect}"
            )
    return table.dropna(subset=[*needed]).reset_index(drop=True)
