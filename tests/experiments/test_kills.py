"""kill -9 at any moment: every restart resumes, and what is left in the end is what an uninterrupted run leaves."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from experiments.train_language_agent import train
from tests.experiments.conftest import ROOT, make_config, script_environment
from tests.experiments.test_training import assert_same_run, paths_of

# runs the training script; KILL_AT_RENAME=n kills it right before its n-th rename of a folder (n even: between the two)
DRIVER = """
import os, runpy, signal, sys
rename, count, at = os.rename, 0, int(os.environ["KILL_AT_RENAME"])
def counting(*arguments):
    global count
    count += 1
    if count == at:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(*arguments)
os.rename = counting
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def update_of(paths):
    try:
        return json.loads((paths.logs / "status.json").read_text())["i"]
    except FileNotFoundError:
        return 0


def start(overrides, *, kill_at_rename=0):
    script = str(ROOT / "experiments" / "train_language_agent.py")
    environment = {**script_environment(), "KILL_AT_RENAME": str(kill_at_rename)}
    command = [sys.executable, "-c", DRIVER, script, *overrides]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_somewhere(overrides, paths, generator):
    """Let one more update be checkpointed, then kill at a random moment; False when the run was through before."""
    first = update_of(paths)
    process = start(overrides)
    try:
        deadline = time.monotonic() + 240
        while process.poll() is None and update_of(paths) <= first:
            assert time.monotonic() < deadline, "no update in four minutes"
            time.sleep(0.005)
        time.sleep(generator.uniform(0, 0.6))  # an update with its checkpoint takes about half of it
    finally:
        process.kill()
    return process.wait() == -signal.SIGKILL


def kill_in_a_rename(overrides, generator):
    """Kill before one of the two renames of the second or third checkpoint of this start."""
    process = start(overrides, kill_at_rename=generator.randint(3, 6))
    return process.wait(timeout=300) == -signal.SIGKILL


def check_kills(small, tmp_path, *, kills, updates, same=assert_same_run):
    straight = [
        *small,
        f"rl_script_args.num_steps={32 * updates}",
        f"rl_script_args.saving_path_logs={tmp_path / 'straight_logs'}",
        f"rl_script_args.saving_path_model={tmp_path / 'straight_models'}",
    ]
    train(make_config(straight))
    killed = [*small, f"rl_script_args.num_steps={32 * updates}"]
    paths = paths_of(killed)
    generator = random.Random(0)
    done = []
    for number in range(kills):
        # every third kill falls inside a checkpoint's renames
        in_rename = number % 3 == 1
        done.append(kill_in_a_rename(killed, generator) if in_rename else kill_somewhere(killed, paths, generator))
    assert all(done), f"the run was over before {kills} kills: {done}"
    assert update_of(paths) < updates, "nothing was left to do after the last kill"
    assert start(killed).wait(timeout=300) == os.EX_OK
    same(paths, paths_of(straight))


@pytest.mark.slow
def test_three_kills(small, tmp_path):
    check_kills(small, tmp_path, kills=3, updates=24)


@pytest.mark.slow
def test_twenty_kills(small, tmp_path):
    check_kills(small, tmp_path, kills=20, updates=120)
