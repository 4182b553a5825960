"""Tests and exports that are killed or stopped: the same command goes on, and leaves what an uninterrupted one does."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

import experiments.post_training_tests as script
from experiments import evaluation, trajectories
from experiments.cloning.data import read_transitions
from experiments.errors import UserError
from experiments.experiment_paths import ExperimentPaths
from experiments.folder_lock import FolderLock
from experiments.stopping import STOPPED
from experiments.train_language_agent import train
from tests.experiments.conftest import ROOT, make_config, script_environment

TESTS = "rl_script_args.tests=[no_modification_test,adj_synonym]"
EXPORT = [
    "rl_script_args.bot=true", "rl_script_args.get_example_trajectories=true", "rl_script_args.num_steps=1030"
]  # fmt: skip
# runs the script with files of 100 transitions and blocks of 20 episodes
DRIVER = """
import runpy, sys
from experiments import trajectories
trajectories.TRANSITIONS_PER_FILE, trajectories.EPISODES_AT_ONCE = 100, 20
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Interrupted(BaseException):
    """Stands for a kill in the process of the tests."""


def results_of(config):
    return ExperimentPaths.of(config).test_folder(config.rl.name_environment)


def contents(folder):
    """Every file below a folder, hidden ones too; of the json what does not tell where they were made."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        found[name] = path.read_bytes()
        if path.suffix == ".json":
            facts = json.loads(found[name])
            found[name] = {key: value for key, value in facts.items() if key not in ("config", "provenance")}
    return found


def elsewhere(overrides, tmp_path):
    """The same run, with its results in another place."""
    return [*overrides, f"rl_script_args.saving_path_logs={tmp_path / 'straight'}"]


def counting(monkeypatch, calls, *, interrupt_at=None):
    """The script's agent notes every decision in `calls`, and is interrupted at one of them."""
    make_agent = script.make_agent

    def make(config, paths):
        agent, update = make_agent(config, paths)
        decide = agent.decide

        def counted(views):
            if len(calls) == interrupt_at:
                raise Interrupted
            calls.append(len(views))
            return decide(views)

        agent.decide = counted
        return agent, update

    monkeypatch.setattr(script, "make_agent", make)


@pytest.mark.parametrize(
    ("stop_rule", "shares", "left"),
    [("per_episode", (0.4, 0.4), 0.5), pytest.param("first_n", (0.7,), 0.6, marks=pytest.mark.slow)],
)
def test_an_interrupted_test_goes_on(small, tmp_path, monkeypatch, stop_rule, shares, left):
    monkeypatch.setattr(evaluation, "EPISODES_PER_ENVIRONMENT", 2)  # blocks of 8
    small = [*small, TESTS, "rl_script_args.number_episodes=22", f"rl_script_args.stop_rule={stop_rule}"]
    straight, config = make_config(elsewhere(small, tmp_path)), make_config(small)
    calls = []
    with monkeypatch.context() as patched:
        counting(patched, calls)
        script.run_tests(straight)
    total = len(calls)
    for share in shares:  # of all decisions, for each start
        calls = []
        with monkeypatch.context() as patched:
            counting(patched, calls, interrupt_at=int(share * total))
            with pytest.raises(Interrupted):
                script.run_tests(config)
    calls = []
    with monkeypatch.context() as patched:
        counting(patched, calls)
        script.run_tests(config)
    # first_n keeps the first test, half of all; blocks of 8 episodes are some 12 of 70 decisions, and two are lost
    assert 0 < len(calls) < left * total
    assert contents(results_of(config)) == contents(results_of(straight))
    calls = []  # through: the same command plays everything again
    with monkeypatch.context() as patched:
        counting(patched, calls)
        script.run_tests(config)
    assert len(calls) == total


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (["rl_script_args.temperature=2.0"], "rl_script_args.temperature"),
        (["rl_script_args.number_episodes=20"], "rl_script_args.number_episodes"),
        ("train on", "weights"),
        ("tear", "cannot be read"),
    ],
)
def test_what_another_command_left_is_not_gone_on_with(small, monkeypatch, caplog, change, named):
    caplog.set_level("INFO")
    monkeypatch.setattr(evaluation, "EPISODES_PER_ENVIRONMENT", 1)
    run = [*small, "rl_script_args.num_steps=32", "rl_script_args.zero_shot=false"]
    train(make_config(run))
    config, calls = make_config(run), []
    with monkeypatch.context() as patched:
        counting(patched, calls, interrupt_at=7)  # episodes of at most 6 steps in 4 environments: one block is over
        with pytest.raises(Interrupted):
            script.run_tests(config)
    (partial,) = (results_of(config) / "episodes").glob(".*.partial")
    if change == "train on":
        run = [*small, "rl_script_args.num_steps=64", "rl_script_args.zero_shot=false"]
        train(make_config(run))
    elif change == "tear":
        partial.write_bytes(partial.read_bytes()[:-20])
    else:
        run += change
    if "temperature" in named:  # the checkpoint refuses it, so ask for an agent that has none
        run += ["rl_script_args.random_agent=true"]
    caplog.clear()
    script.run_tests(make_config(run))
    assert "starting from the beginning" in caplog.text
    assert named in caplog.text
    assert "were played before" not in caplog.text


def test_an_interrupted_export_goes_on(small, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(trajectories, "TRANSITIONS_PER_FILE", 100)
    monkeypatch.setattr(trajectories, "EPISODES_AT_ONCE", 20)
    straight, config = make_config(elsewhere([*small, *EXPORT], tmp_path)), make_config([*small, *EXPORT])
    script.run_tests(straight)
    folder = results_of(config)
    for decisions in (90, 120, 70):
        with monkeypatch.context() as patched:
            counting(patched, [], interrupt_at=decisions)
            with pytest.raises(Interrupted):
                script.run_tests(config)
        with pytest.raises(UserError, match="an export was interrupted"):
            read_transitions(folder, "bot_trajectories", "all")
    assert 0 < caplog.text.count("transitions were exported before") <= 2  # not the first time
    script.run_tests(config)
    assert len(list(folder.glob("*.npy"))) == 2 * 11
    assert contents(folder) == contents(results_of(straight))
    assert len(read_transitions(folder, "bot_trajectories", "all")) == 1030


@pytest.mark.slow
def test_an_export_whose_files_are_gone_begins_again(small, monkeypatch, caplog):
    monkeypatch.setattr(trajectories, "TRANSITIONS_PER_FILE", 100)
    config, calls = make_config([*small, *EXPORT]), []
    with monkeypatch.context() as patched:
        counting(patched, calls, interrupt_at=200)
        with pytest.raises(Interrupted):
            script.run_tests(config)
    gone = results_of(config) / "bot_trajectories_actions_0.npy"
    gone.unlink()
    script.run_tests(config)
    assert f"{gone} is gone: starting from the beginning" in caplog.text
    assert len(read_transitions(results_of(config), "bot_trajectories", "all")) == 1030


def start(overrides):
    path = str(ROOT / "experiments" / "post-training_tests.py")
    command = [sys.executable, "-c", DRIVER, path, *overrides]
    return subprocess.Popen(command, env=script_environment(), stderr=subprocess.PIPE, text=True)


def interrupt(overrides, pattern, number, delay):
    """Send a signal to a process a moment after it has kept something; returns its status and what it said."""
    folder = results_of(make_config(overrides))

    def kept():
        found = {}
        for path in folder.glob(pattern):
            with suppress(FileNotFoundError):  # a test is over, and what was kept of it gone
                found[path] = path.stat().st_mtime_ns
        return found

    before, process = kept(), start(overrides)
    deadline = time.monotonic() + 240
    while process.poll() is None and kept() == before:
        assert time.monotonic() < deadline, "nothing kept in four minutes"
        time.sleep(0.002)
    time.sleep(delay)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def check_interruptions(overrides, tmp_path, pattern, signals, longest_delay):
    """Interrupt a command again and again, let it end, and compare with one that was not interrupted."""
    straight = elsewhere(overrides, tmp_path)
    _, errors = start(straight).communicate(timeout=300)
    assert contents(results_of(make_config(straight))), errors
    generator = random.Random(0)
    for number in signals:
        status, errors = interrupt(overrides, pattern, number, generator.uniform(0, longest_delay))
        if number == signal.SIGKILL:
            assert status == -signal.SIGKILL
        else:
            assert status == STOPPED, errors
            assert f"stopped by {number.name}" in errors.splitlines()[-1]
            assert "Traceback" not in errors
    process = start(overrides)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == os.EX_OK, errors
    assert "before" in errors
    found = contents(results_of(make_config(overrides)))
    assert found == contents(results_of(make_config(straight)))
    assert not [name for name in found if name.rpartition("/")[2].startswith(".")]


@pytest.mark.parametrize("export", [True, False])
def test_two_at_once_that_make_the_same_are_refused(small, export):
    """They would write the same files; those of another test may be made meanwhile."""
    config = make_config([*small, "rl_script_args.random_agent=true", *(EXPORT[1:] if export else [TESTS])])
    folder = results_of(config) if export else results_of(config) / "episodes"
    name = "trajectories" if export else "adj_synonym"
    with FolderLock(folder, "", "another_test"):
        with FolderLock(folder, "", name), pytest.raises(UserError) as error:
            script.run_tests(config)
        who = rf"process {os.getpid()} on \S+, since .*"
        assert re.fullmatch(
            rf"{name} in {folder} is in use by another run \({who}\): wait for it or stop it, or give another "
            "rl_script_args.saving_path_logs", str(error.value)
        )  # fmt: skip
        assert [path.name for path in folder.iterdir()] == [".another_test.lock"]
        script.run_tests(config)
    assert not list(results_of(config).rglob(".*"))


SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1]
# of each so much that seconds of it are left after the last signal: this process may be late to see what was kept
RANDOM = ["rl_script_args.random_agent=true", "rl_script_args.number_episodes=1500", TESTS]


def test_a_kill_and_a_signal(small, tmp_path):
    check_interruptions([*small, *RANDOM], tmp_path, "episodes/.*.partial", SIGNALS[:2], 0.1)


@pytest.mark.slow
def test_twelve_signals_to_tests_of_an_llm(small, tmp_path):
    played = ["rl_script_args.number_episodes=1000", TESTS]
    check_interruptions([*small, *played], tmp_path, "episodes/.*.partial", 4 * SIGNALS, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["bot=true", "zero_shot=true"])
def test_six_signals_to_an_export(small, tmp_path, agent):
    export = [f"rl_script_args.{agent}", *EXPORT[1:], "rl_script_args.num_steps=9030"]
    check_interruptions([*small, *export], tmp_path, ".*.partial", 2 * SIGNALS, 0.2)
