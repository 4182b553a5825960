"""A broken `last` through the scripts: the run goes on from `backup`, says so, and ends as an uninterrupted one."""

import json
import os
import shutil
import time

import pytest

from experiments.train_language_agent import train
from tests.experiments.conftest import SMALL, make_config, run_script
from tests.experiments.disks import file_size_limit
from tests.experiments.test_launched import LLM_PROCESSES, launch
from tests.experiments.test_training import assert_same_run, elsewhere, paths_of


def truncate(last):
    os.truncate(last / "optimizer.pt", 100)


def flip(last):
    data = bytearray((last / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (last / "model.safetensors").write_bytes(data)


def remove(last):
    (last / "states.json").unlink()


def empty(last):
    (last / "manifest.json").write_text("")


@pytest.fixture(scope="module")
def straight(tiny_models, tmp_path_factory):
    """The paths of an uninterrupted run, and the overrides of one that stopped at update 2 of 3."""
    folder = tmp_path_factory.mktemp("runs")
    model = f"lamorel_args.llm_args.model_path={tiny_models / 't5'}"
    begun = [f"rl_script_args.saving_path_{key}={folder / key}" for key in ("logs", "model")]
    whole = elsewhere([*SMALL, model], folder)
    train(make_config(whole))
    train(make_config([*SMALL, model, *begun, "rl_script_args.num_steps=64"]))
    return paths_of(whole), paths_of([*SMALL, model, *begun])


def tear(logs):
    """As a kill in the middle of a write leaves them."""
    for path in (logs / "log.csv", logs / "distrib.csv", *logs.glob("events.out*")):
        content = path.read_bytes()
        path.write_bytes(content + content[-len(content) // 3 : -7])


def put(begun, small):
    """A copy of the run that stopped, where `small` writes."""
    paths = paths_of(small)
    for source, target in ((begun.logs, paths.logs), (begun.models, paths.models)):
        shutil.copytree(source, target)
    return paths


@pytest.mark.parametrize(
    "damage", [truncate, *(pytest.param(d, marks=pytest.mark.slow) for d in (flip, remove, empty))]
)
def test_the_script_falls_back_to_backup(small, tmp_path, straight, damage):
    whole, begun = straight
    paths = put(begun, small)
    damage(paths.models / "last")
    tear(paths.logs)
    run = run_script("train_language_agent.py", small, tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("/last is not complete (") == 1
    assert f"resumed at update 1 from {paths.models / 'backup'}" in run.stderr
    assert_same_run(paths, whole)


@pytest.mark.slow
def test_a_launched_run_falls_back_to_backup(small, tmp_path, straight):
    _, begun = straight
    paths = put(begun, small)
    truncate(paths.models / "last")
    run = launch("train_language_agent.py", [*small, LLM_PROCESSES], tmp_path)
    assert run.returncode == 0, run.stderr
    assert f"resumed at update 1 from {paths.models / 'backup'}" in run.stderr
    assert json.loads((paths.logs / "status.json").read_text())["i"] == 3


@pytest.mark.slow
def test_both_broken_is_one_error(small, tmp_path, straight):
    _, begun = straight
    paths = put(begun, small)
    truncate(paths.models / "last")
    empty(paths.models / "backup")
    run = run_script("train_language_agent.py", small, tmp_path)
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].startswith(
        f"error: {paths.models}: no complete checkpoint among last and backup"
    )
    assert "Traceback" not in run.stderr


@pytest.mark.slow
def test_a_launched_run_on_a_full_disk(small, tmp_path):
    """LLM process 0 writes the model, so that it meets the limit; the RL process says it, once, and all end."""
    straight = elsewhere(small, tmp_path)
    assert launch("train_language_agent.py", [*straight, LLM_PROCESSES], tmp_path).returncode == 0
    assert (
        launch("train_language_agent.py", [*small, LLM_PROCESSES, "rl_script_args.num_steps=32"], tmp_path).returncode
        == 0
    )
    paths = paths_of(small)
    start = time.monotonic()
    with file_size_limit(1 << 20):
        run = launch("train_language_agent.py", [*small, LLM_PROCESSES], tmp_path)
    assert time.monotonic() - start < 120
    assert run.returncode == 2, run.stderr
    assert run.stderr.count(f"error: cannot write {paths.models / '.next'} (File too large): raise the limit") == 1
    assert "the checkpoint of update 1 is complete, the same command goes on from there" in run.stderr
    assert "Traceback" not in run.stderr
    assert not (paths.models / ".next").exists()
    assert launch("train_language_agent.py", [*small, LLM_PROCESSES], tmp_path).returncode == 0
    assert_same_run(paths, paths_of(straight))
