"""Signals that ask a run to stop: the update is finished and saved, and the same command goes on."""

import json
import signal
import subprocess
import sys
import time

import pytest

from experiments.stopping import STOPPED
from experiments.train_language_agent import train
from tests.experiments.conftest import ROOT, make_config, script_environment
from tests.experiments.test_training import assert_same_run, elsewhere, paths_of


def start(overrides):
    command = [sys.executable, str(ROOT / "experiments" / "train_language_agent.py"), *overrides]
    return subprocess.Popen(command, env=script_environment(), stderr=subprocess.PIPE, text=True)


def wait_for_update(paths, update):
    """Until an update is over."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if json.loads((paths.logs / "run.json").read_text())["update"] >= update:
                return
        except FileNotFoundError:
            pass
        time.sleep(0.01)
    raise AssertionError("no update in a minute")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_stopped_run_goes_on_exactly(small, tmp_path, number):
    steps = ["rl_script_args.num_steps=320", "rl_script_args.checkpoint_every=4"]
    straight = elsewhere([*small, *steps], tmp_path)
    train(make_config(straight))
    run = [*small, *steps]
    process = start(run)
    wait_for_update(paths_of(run), 1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == STOPPED, errors
    record = json.loads((paths_of(run).logs / "run.json").read_text())
    assert record["state"] == "stopped"
    assert 1 <= record["update"] < 10
    assert f"stopped by {number.name} after update {record['update']}" in errors
    train(make_config(run))
    assert_same_run(paths_of(run), paths_of(straight))
    assert json.loads((paths_of(run).logs / "run.json").read_text())["state"] == "done"
