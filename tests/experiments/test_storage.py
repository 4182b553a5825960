"""Storage that is full, read-only or gone: one line, nothing lost, and the same command goes on."""

import errno
import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments.atomic_files import append, save_array, write_atomically
from experiments.checkpoint import CheckpointStore, verify
from experiments.errors import UserError
from experiments.experiment_paths import ExperimentPaths
from experiments.storage import StorageError, readable_size, writing
from experiments.train_language_agent import train
from experiments.training_run import TrainingRun
from tests.experiments.conftest import SMALL, make_config, run_script
from tests.experiments.disks import file_size_limit, small_disk
from tests.experiments.test_training import assert_same_run, elsewhere, paths_of

BIG = {"weight": torch.zeros(1 << 20)}  # 4 MiB
WAYS = {
    "safetensors": lambda path: save_file(BIG, path),
    "torch": lambda path: torch.save(BIG, path),
    "bytes": lambda path: path.write_bytes(bytes(4 << 20)),
    "array": lambda path: save_array(path, np.zeros(1 << 19)),
}


@pytest.fixture(scope="module")
def straight(tiny_models, tmp_path_factory):
    """The paths of an uninterrupted run."""
    model = f"lamorel_args.llm_args.model_path={tiny_models / 't5'}"
    overrides = elsewhere([*SMALL, model], tmp_path_factory.mktemp("straight"))
    train(make_config(overrides))
    return paths_of(overrides)


@pytest.mark.parametrize("way", WAYS)
def test_every_library_s_error_names_file_and_reason(tmp_path, way):
    """Whatever type the library raises where a file may not grow."""
    path = tmp_path / "file"
    too_large = pytest.raises(StorageError, match=r"cannot write .*/file \(File too large\): raise")
    with file_size_limit(1 << 20), too_large, writing(path):
        WAYS[way](path)
    gone = tmp_path / "gone" / "file"
    with pytest.raises(StorageError, match=r"/gone/file \(No such file or directory"), writing(gone):
        WAYS[way](gone)


def test_a_full_disk_and_files(tmp_path):
    with small_disk(tmp_path / "disk", 1 << 20):
        path = tmp_path / "disk" / "file"
        write_atomically(path, "old")
        for way in WAYS.values():
            new = path.with_name("new")
            with pytest.raises(StorageError, match=r"/new \(No space left on device.*\): free space"), writing(new):
                way(new)
            new.unlink(missing_ok=True)
        with pytest.raises(StorageError, match=r"/file \(No space left on device"):
            write_atomically(path, bytes(4 << 20))
        assert [name.name for name in path.parent.iterdir()] == ["file"]  # what was begun is gone
        assert path.read_text() == "old"


def test_a_read_only_disk(tmp_path):
    with small_disk(tmp_path / "disk", 1 << 20) as remount:
        remount("ro")
        path = tmp_path / "disk" / "file"
        for way in WAYS.values():
            with pytest.raises(StorageError, match=r"\(Read-only file system.*\): make it writable"), writing(path):
                way(path)


def test_other_errors_pass(tmp_path):
    for error in (TypeError("not a tensor"), RuntimeError("CUDA out of memory"), OSError("no generation config")):
        with pytest.raises(type(error), match=str(error)), writing(tmp_path):
            raise error


def test_what_is_gone_does_not_begin_anew(tmp_path):
    with pytest.raises(StorageError, match=r"log.csv \(No such file .*it was removed or unmounted"):
        append(tmp_path / "log.csv", "1,2\n")
    assert list(tmp_path.iterdir()) == []


def test_sizes_in_words():
    assert [readable_size(n) for n in (999, 1000, 9.4e9, 3e15)] == ["999 bytes", "1.0 kB", "9.4 GB", "3000.0 TB"]


def test_a_checkpoint_that_does_not_fit(small, straight):
    """By a limit of file sizes, which needs no root; the weights are 4 MB."""
    train(make_config([*small, "rl_script_args.num_steps=32"]))
    paths = paths_of(small)
    with file_size_limit(50_000), pytest.raises(StorageError) as error:
        train(make_config(small))
    assert str(error.value).startswith(f"cannot write {paths.models / '.next'} (File too large): raise the limit")
    assert "a checkpoint takes 13.4 MB, " in str(error.value)
    assert " are left; the checkpoint of update 1 is complete, the same command goes on from there" in str(error.value)
    assert not (paths.models / ".next").exists()
    assert verify(paths.models / "last") == (1, None)
    record = json.loads((paths.logs / "run.json").read_text())
    assert (record["state"], record["update"]) == ("failed", 2)
    assert record["reason"].startswith("cannot write")
    assert "ERROR === ended: cannot write" in (paths.logs / "run.log").read_text()
    train(make_config(small))
    assert_same_run(paths, straight)


def test_a_full_disk(small, straight, tmp_path):
    """Two checkpoints fit and three do not: a warning after the first, an end in one line after the second."""
    size = sum(path.stat().st_size for path in (straight.models / "last").iterdir())
    with small_disk(tmp_path / "models", int(2.6 * size)) as remount:
        run = run_script("train_language_agent.py", small, tmp_path)
        paths = paths_of(small)
        assert run.returncode == 2, run.stderr
        warnings = [line for line in run.stderr.splitlines() if "three of them stand side by side" in line]
        assert len(warnings) == 1
        last = run.stderr.splitlines()[-1]
        assert last.startswith(f"error: cannot write {paths.models / '.next'} (No space left on device): free space; ")
        assert last.endswith("the checkpoint of update 2 is complete, the same command goes on from there")
        assert "Traceback" not in run.stderr
        assert run.stderr.count("No space left") == 1
        assert sorted(path.name for path in paths.models.iterdir()) == [".lock", "backup", "last"]
        assert [verify(paths.models / name) for name in ("last", "backup")] == [(2, None), (1, None)]
        remount(f"size={10 * size}")
        train(make_config(small))
        assert_same_run(paths, straight)


LOGS = ("log.csv", "distrib.csv", "events.out", "run.json", "status.json")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n != "events.out" else []) for n in LOGS])
def test_a_log_that_does_not_fit(small, straight, monkeypatch, name):
    """Once the first checkpoint is there this file's disk is full."""
    paths = paths_of(small)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def is_full(path):
        return name in str(path) and verify(paths.models / "last")[0] == 1

    def failing(function):
        def wrapped(path, *arguments, **options):
            if is_full(path):
                raise full
            return function(path, *arguments, **options)

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing(os.open))
        patch.setattr(Path, "open", failing(Path.open))
        with pytest.raises(StorageError) as error:
            train(make_config(small))
    assert name in str(error.value).split(" (No space left on device")[0]
    assert "the checkpoint of update 1 is complete, the same command goes on from there" in str(error.value)
    train(make_config(small))
    assert_same_run(paths, straight)
    events = EventAccumulator(str(paths.logs))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3]


def test_a_torn_event_file_does_not_hide_the_next(small):
    train(make_config([*small, "rl_script_args.num_steps=32"]))
    [events] = paths_of(small).logs.glob("events.out*")
    with events.open("ab") as file:
        file.write(events.read_bytes()[:20])
    train(make_config([*small, "rl_script_args.num_steps=64"]))
    read = EventAccumulator(str(paths_of(small).logs))
    read.Reload()
    assert [event.step for event in read.Scalars("loss")] == [1, 2]


@contextmanager
def after_first_checkpoint(monkeypatch, happens):
    save, done = TrainingRun.checkpoint_if_due, []

    def save_first(self, **options):
        save(self, **options)
        if not done:
            done.append(happens())

    with monkeypatch.context() as patch:
        patch.setattr(TrainingRun, "checkpoint_if_due", save_first)
        yield


@pytest.mark.parametrize(
    "back", [pytest.param("gone", marks=pytest.mark.slow), "empty"]
)  # empty: the mount point is there, the disk is not
def test_models_that_vanish(small, straight, tmp_path, monkeypatch, back):
    config = make_config(small)
    paths = ExperimentPaths.of(config)

    def vanish():
        paths.models.rename(tmp_path / "away")
        if back == "empty":
            paths.models.mkdir()

    says = pytest.raises(StorageError, match=r"it was removed or unmounted.*update 1, cannot be seen now")
    with after_first_checkpoint(monkeypatch, vanish), says:
        train(config)
    if back == "empty":
        assert list(paths.models.iterdir()) == []
        paths.models.rmdir()
    assert not paths.models.exists()
    (tmp_path / "away").rename(paths.models)
    train(config)
    assert_same_run(paths, straight)


def test_a_start_without_the_models_leaves_the_logs(small, straight, tmp_path):
    """The storage of the checkpoints is not mounted when a run is to go on: its mount point is empty."""
    train(make_config([*small, "rl_script_args.num_steps=32"]))
    paths = paths_of(small)
    paths.models.rename(tmp_path / "away")
    before = (paths.logs / "log.csv").read_bytes()
    with pytest.raises(UserError, match=r"has no checkpoint, but .*/status.json tells of one of update 1: mount"):
        train(make_config(small))
    assert (paths.logs / "log.csv").read_bytes() == before
    shutil.rmtree(paths.models)
    (tmp_path / "away").rename(paths.models)
    train(make_config(small))
    assert_same_run(paths, straight)


def test_rows_are_on_the_disk_before_the_checkpoint_that_covers_them(small, monkeypatch, caplog):
    """So that a machine that dies leaves no checkpoint whose rows are lost; where they are lost it is said."""
    synced, seen = [], []
    fsync, promote = os.fsync, CheckpointStore._promote

    def noted(descriptor):
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def looked(store):
        seen.extend(synced)
        promote(store)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", noted)
        patch.setattr(CheckpointStore, "_promote", looked)
        train(make_config([*small, "rl_script_args.num_steps=32"]))
    assert {"log.csv", "distrib.csv"} <= set(seen)
    assert "lacks the rows" not in caplog.text
    (paths_of(small).logs / "log.csv").unlink()
    train(make_config([*small, "rl_script_args.num_steps=64"]))
    assert "/log.csv lacks the rows of 1 updates that are over" in caplog.text


@pytest.mark.slow
def test_logs_that_vanish(small, straight, tmp_path, monkeypatch):
    config = make_config(small)
    paths = ExperimentPaths.of(config)
    says = pytest.raises(StorageError, match=r"log.csv \(No such file .*the checkpoint of update 1 is complete")
    with after_first_checkpoint(monkeypatch, lambda: paths.logs.rename(tmp_path / "away")), says:
        train(config)
    assert not paths.logs.exists()
    (tmp_path / "away").rename(paths.logs)
    train(config)
    assert_same_run(paths, straight)


def test_a_defect_in_saving_shows_itself(small, monkeypatch):
    """A programming error is no full disk: it keeps its type, and so its traceback."""
    train(make_config([*small, "rl_script_args.num_steps=32"]))

    def save(self, folder):
        shutil.copytree(paths_of(small).models / "last", folder, dirs_exist_ok=True)
        raise TypeError("save() is wrong")

    monkeypatch.setattr("experiments.agents.ppo.llm_ppo_agent.LLMPPOAgent.save", save)
    with pytest.raises(TypeError, match=r"save\(\) is wrong"):
        train(make_config(small))
    paths = paths_of(small)
    assert not (paths.models / ".next").exists()
    assert verify(paths.models / "last") == (1, None)
    assert "TypeError: save() is wrong" in (paths.logs / "run.log").read_text()
