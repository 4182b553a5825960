"""The folder of a cloning run: who may write there, where it goes on, what it records, and the model in the end.

OUTPUT/cloning.json            options, data, versions, and whether the run is finished
       run.log                 what the script says, over all its starts
       log.csv                 step, examples, train_loss, lr, eval_loss, perplexity
       checkpoints/            {last,backup}, while the run lasts
       config.json, model…     the cloned model, once the run is finished
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from experiments.atomic_files import give_usual_permissions, sync_folder, sync_path, write_atomically
from experiments.checkpoint import CheckpointStore, check_same_settings, read_trainer
from experiments.csv_log import CsvLog
from experiments.errors import UserError
from experiments.log_file import RUN_LOG, logged_to
from experiments.provenance import provenance
from experiments.storage import writing

logger = logging.getLogger(__name__)

RECORD = "cloning.json"
CHECKPOINTS = "checkpoints"
COLUMNS = ("step", "examples", "train_loss", "lr", "eval_loss", "perplexity")
OTHER = "--output_dir"  # what to change, where a folder is not this run's


def read_record(folder: Path, remedy: str) -> dict[str, Any] | None:
    """cloning.json of a run's folder; None where there is none.

    Args:
        remedy: what else than a copy would help where it cannot be read.
    """
    path = folder / RECORD
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):  # the latter for a GGUF file
        return None
    except ValueError as error:
        raise UserError(f"{path} cannot be read ({error}): put back a copy, or give {remedy}") from error


def check_clone(folder: Path, config: dict[str, Any]) -> None:
    """Refuse a clone that is not finished, or that would read other texts than it was made of.

    Args:
        folder: rl_script_args.im_path, the folder of a run or any other model.
        config: the resolved configuration that it is to act with.

    Raises:
        UserError: see above.
    """
    remedy = "another rl_script_args.im_path"
    record = read_record(folder, remedy)
    if record is None:
        return
    if not record["finished"]:
        raise UserError(
            f"rl_script_args.im_path {folder} is not finished: let its clm_behavioral-cloning.py end, or give another"
        )
    texts = {"add_bos": False, "candidate_prefix": "none"}  # what runs used before they recorded it
    stored = {"lamorel_args": {"llm_args": {key: record["settings"].get(key, texts[key]) for key in texts}}}
    keys = [f"lamorel_args.llm_args.{key}" for key in texts]
    check_same_settings(stored, config, keys, folder / RECORD, remedy)


class RunFolder:
    """One run's folder, for the one process that writes there.

    Args:
        folder: OUTPUT.
        settings: what decides the result; a run with others is not resumed.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        self.settings = settings
        self.store = CheckpointStore(folder / CHECKPOINTS, remedy=f"another {OTHER}")
        self.log = CsvLog(folder / "log.csv", COLUMNS)

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keeps other processes away, and says what this folder is for.

        Raises:
            UserError: another process is at it, or it holds something else or a run with other settings.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{OTHER} {self.folder} is a file: give a new folder")
        if self._record() is None and self.folder.exists():
            visible = [path.name for path in self.folder.iterdir() if not path.name.startswith(".")]
            others = sorted(name for name in visible if name not in (CHECKPOINTS, RUN_LOG))
            if others:
                raise UserError(
                    f"{OTHER} {self.folder} holds {others[0]} and no {RECORD}, so it is not the folder of a cloning "
                    "run: give a new one"
                )
        with self.store.locked():
            stored = self._record()
            if stored is not None:
                check_same_settings(
                    stored["settings"], self.settings, tuple(self.settings), self.folder / RECORD, f"another {OTHER}"
                )
            with nullcontext() if self.finished else logged_to(self.folder / RUN_LOG):
                yield

    @property
    def finished(self) -> bool:
        record = self._record()
        return record is not None and record["finished"]

    def resume(self) -> tuple[Path | None, dict[str, Any]]:
        """The newest complete checkpoint and its counters, if any."""
        checkpoint = self.store.recover()
        counters = {} if checkpoint is None else read_trainer(checkpoint)
        if checkpoint is not None:
            logger.info("resumed at step %d from %s", counters["update"], checkpoint)
        return checkpoint, counters

    def begin(self, step: int) -> None:
        """From here on the folder is this run's; log.csv is cut back to `step`."""
        if self._record() is None:
            self._write_record(finished=False)
        self.log.cut_back(step)

    def checkpoint(self, counters: dict[str, Any], save: Callable[[Path], None]) -> None:
        """Write a checkpoint; `counters` must hold `update`, the gradient steps so far."""
        self.store.save(counters, {}, save)

    def finish(self, results: dict[str, Any], save_model: Callable[[Path], None]) -> None:
        """Put the model into the folder, complete or not at all, and drop the checkpoints."""
        staged = self.folder / ".model"
        try:
            with writing(staged):
                shutil.rmtree(staged, ignore_errors=True)
                staged.mkdir()
                save_model(staged)
                give_usual_permissions(staged)
                sync_folder(staged)
        except Exception:
            shutil.rmtree(staged, ignore_errors=True)  # it would take what space there is
            raise
        # the configuration last: without it nobody takes the folder for a model
        for path in sorted(staged.iterdir(), key=lambda path: path.name == "config.json"):
            os.replace(path, self.folder / path.name)
        staged.rmdir()
        sync_path(self.folder)
        self._write_record(finished=True, **results)
        for checkpoint in (self.store.last, self.store.backup, self.store.next):
            shutil.rmtree(checkpoint, ignore_errors=True)

    def _record(self) -> dict[str, Any] | None:
        return read_record(self.folder, f"another {OTHER}")

    def _write_record(self, **entries: Any) -> None:
        record = {**entries, "settings": self.settings, "provenance": provenance()}
        write_atomically(self.folder / RECORD, json.dumps(record, indent=1))
