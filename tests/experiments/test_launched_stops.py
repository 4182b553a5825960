"""Launched runs that are asked to stop, or lose a process: they end, and the same command goes on."""

import json
import os
import random
import signal
import time

import pytest

from experiments.checkpoint import CheckpointStore, read_trainer
from experiments.stopping import STOPPED
from tests.experiments.conftest import SMALL
from tests.experiments.launched_runs import GONE_S, GONE_WHILE_STARTING_S, LaunchedRun, send, update_of
from tests.experiments.test_training import assert_same_run, paths_of

UPDATES, CHECKPOINT_EVERY = 20, 4
SETTINGS = [
    *SMALL,
    "lamorel_args.distributed_setup_args.n_llm_processes=2",
    f"rl_script_args.num_steps={32 * UPDATES}",
    f"rl_script_args.checkpoint_every={CHECKPOINT_EVERY}",
]
FOREVER = "rl_script_args.num_steps=3200000"  # of a run that is not to go on to its end


@pytest.fixture(scope="module")
def overrides(tiny_models):
    """The overrides of a run that writes below a folder."""

    def make(folder):
        places = [f"rl_script_args.saving_path_{kind}={folder / kind}" for kind in ("logs", "model")]
        return [*SETTINGS, f"lamorel_args.llm_args.model_path={tiny_models / 't5'}", *places]

    return make


@pytest.fixture(scope="module")
def straight(overrides, tmp_path_factory):
    """The paths of a run that nothing has disturbed, on one machine."""
    run = LaunchedRun(overrides(tmp_path_factory.mktemp("straight"))).start()
    statuses, errors, _ = run.end(300)
    assert statuses == [0], errors
    return paths_of(run.overrides)


@pytest.fixture
def start(overrides, tmp_path):
    """Starts runs in one folder, and leaves no process behind."""
    runs = []

    def start_one(*more, machines=1):
        runs.append(LaunchedRun([*overrides(tmp_path), *more], machines).start())
        return runs[-1]

    yield start_one
    for run in runs:
        run.kill()


def record_of(run):
    return json.loads((paths_of(run.overrides).logs / "run.json").read_text())


def saved_update(run):
    """The update of the checkpoint that the run goes on from; 0 where there is none."""
    newest = CheckpointStore(paths_of(run.overrides).models).newest()
    return 0 if newest is None else read_trainer(newest)["update"]


def check_goes_on(start, straight, machines=1):
    """The same command runs to its end, and leaves what the run that nothing has disturbed left."""
    run = start(machines=machines)
    statuses, errors, _ = run.end(300)
    assert statuses == [0] * machines, errors
    assert_same_run(paths_of(run.overrides), straight)
    assert record_of(run)["state"] == "done"


def test_signals_to_every_process_stop_a_launched_run(start):
    run = start("lamorel_args.distributed_setup_args.n_llm_processes=1", FOREVER)
    run.wait_for_update(1)
    os.kill(run.rank(1), signal.SIGSTOP)  # without the LLM process no update ends between the signals
    run.send_to_all(signal.SIGUSR1)
    run.send_to_all(signal.SIGTERM)  # of which the launcher hands on its own, too
    os.kill(run.rank(1), signal.SIGCONT)
    statuses, errors, _ = run.end()
    assert statuses == [STOPPED], errors
    record = record_of(run)
    assert record["state"] == "stopped"
    assert record["update"] == saved_update(run) >= 1
    script, launcher = errors[0].splitlines()[-2:]
    assert script == f"stopped by SIGUSR1 after update {record['update']}: the same command goes on from there"
    assert launcher == (
        "lamorel_launcher: stopped by SIGTERM: rank 0 (RL process) ended with exit code 75, the same command goes on"
    )


EVERYONE = "everyone"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("machines", "number", "to"),
    [
        (1, signal.SIGUSR1, "launcher 0"),
        (1, signal.SIGTERM, EVERYONE),
        (2, signal.SIGTERM, "launcher 1"),
        (2, signal.SIGUSR1, EVERYONE),
    ],
)
def test_a_launched_run_that_is_stopped_goes_on_exactly(start, straight, machines, number, to):
    run = start(machines=machines)
    run.wait_for_update(2)
    if to == EVERYONE:
        run.send_to_all(number)
    elif to == "launcher 1":
        os.kill(run.rank(1), signal.SIGSTOP)  # an LLM process: no update ends while launchers tell each other
        run.launchers[1].send_signal(number)
        time.sleep(3)
        os.kill(run.rank(1), signal.SIGCONT)
    else:
        run.launchers[0].send_signal(number)
    statuses, errors, _ = run.end()
    assert statuses == [STOPPED] * machines, errors
    assert 2 <= record_of(run)["update"] == saved_update(run) < UPDATES
    assert sum(f"stopped by {number.name} after update" in text for text in errors) == 1
    assert all("Traceback" not in text for text in errors), errors
    assert all(text.count("lamorel_launcher: ") == 1 for text in errors), errors
    check_goes_on(start, straight, machines)


VICTIMS = {
    "RL process": lambda run: [run.rank(0)],
    "LLM process 0": lambda run: [run.rank(1)],
    "LLM process 1": lambda run: [run.rank(2)],
    "launcher 0": lambda run: [run.launchers[0].pid],
    "machine 0": lambda run: run.on_machine(0),
    "machine 1": lambda run: run.on_machine(1),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("machines", "victim", "expected"),
    [
        (1, "RL process", [128 + signal.SIGKILL]),
        (1, "LLM process 0", [128 + signal.SIGKILL]),
        (1, "launcher 0", [-signal.SIGKILL]),
        (2, "machine 0", [-signal.SIGKILL, 1]),
        (2, "machine 1", [1, -signal.SIGKILL]),
    ],
)
def test_a_launched_run_that_loses_a_process_goes_on_exactly(start, straight, machines, victim, expected):
    run = start(machines=machines)
    run.wait_for_update(6)
    send(VICTIMS[victim](run), signal.SIGKILL)
    statuses, errors, seconds = run.end()
    assert statuses == expected, errors
    assert seconds < GONE_S
    assert saved_update(run) >= CHECKPOINT_EVERY
    assert update_of(run.overrides) - saved_update(run) <= CHECKPOINT_EVERY
    check_goes_on(start, straight, machines)


@pytest.mark.slow
@pytest.mark.parametrize("machines", [1, 2])
def test_a_signal_while_a_run_starts_ends_it_cleanly(start, straight, machines):
    """At moments from the first imports of the launcher to the model's loading, and often twice."""
    generator = random.Random(0)
    found = set()
    for moment in range(0, 8, machines):
        run = start(machines=machines)
        number = generator.choice([signal.SIGTERM, signal.SIGUSR1])
        begun, deadline = update_of(run.overrides), time.monotonic() + 0.1 + moment + generator.uniform(0, 0.9)
        while time.monotonic() < deadline and update_of(run.overrides) <= begun:  # a quick one must not get to its end
            time.sleep(0.01)
        run.send_to_all(number)
        if moment % 2:
            time.sleep(generator.uniform(0, 0.3))
            run.send_to_all(number)
        statuses, errors, seconds = run.end()
        found |= set(statuses)
        assert set(statuses) <= {STOPPED, 128 + number, -number, 1}, errors
        assert statuses[0] != 1, errors  # that of the run
        assert seconds < GONE_WHILE_STARTING_S
        assert all("Traceback" not in text for text in errors), errors
    assert STOPPED in found
    check_goes_on(start, straight, machines)


@pytest.mark.slow
@pytest.mark.parametrize("update", [-1, 2])
def test_ctrl_c_ends_a_launched_run_with_a_line_of_each(start, straight, update):
    run = start()
    run.wait_for_update(update)
    run.wait_for_handler()  # before, python itself ends it
    time.sleep(1 if update < 0 else 0)  # in its first imports, or behind them
    run.launchers[0].send_signal(signal.SIGINT)
    statuses, errors, seconds = run.end()
    assert statuses == [128 + signal.SIGINT], errors
    assert seconds < (GONE_WHILE_STARTING_S if update < 0 else GONE_S)
    lines = [line for line in errors[0].splitlines() if not line.startswith("loaded ")]  # an LLM process, until it ends
    assert lines[-2:] == [
        "stopped by SIGINT: the same command goes on",
        "lamorel_launcher: stopped by SIGINT: rank 0 (RL process) ended with exit code 130",
    ]
    assert "Traceback" not in errors[0]
    check_goes_on(start, straight)


@pytest.mark.slow
def test_after_stop_grace_everything_is_killed(start):
    """An update of an environment that takes for ever cannot be finished."""
    run = start("lamorel_args.distributed_setup_args.stop_grace=1", FOREVER)
    run.wait_for_update(1)
    os.kill(run.rank(1), signal.SIGSTOP)  # LLM process 0 does not answer any more
    run.launchers[0].terminate()
    statuses, errors, seconds = run.end()
    assert statuses == [128 + signal.SIGTERM], errors
    assert seconds < GONE_S
    assert errors[0].splitlines()[-1] == "lamorel_launcher: stopped by SIGTERM: what still runs is killed"
