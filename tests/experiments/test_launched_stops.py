"""Launched runs that are asked to stop, or lose a process: they end, and the same command goes on."""

import json
import signal

import pytest

from experiments.stopping import STOPPED
from tests.experiments.launched_runs import LaunchedRun
from tests.experiments.test_training import paths_of

SETTINGS = [
    "lamorel_args.distributed_setup_args.n_llm_processes=2",
    "rl_script_args.num_steps=640",  # 20 updates
    "rl_script_args.checkpoint_every=4",
]


@pytest.fixture
def started(request):
    """Starts runs, and leaves none behind."""
    runs = []

    def start(*arguments, **options):
        runs.append(LaunchedRun(*arguments, **options).start())
        return runs[-1]

    yield start
    for run in runs:
        run.kill()


def record_of(overrides):
    return json.loads((paths_of(overrides).logs / "run.json").read_text())


def status_of(overrides):
    """The update of the last checkpoint."""
    return json.loads((paths_of(overrides).logs / "status.json").read_text())["i"]


def test_signals_to_every_process_stop_a_launched_run(small, started):
    run = started([*small, *SETTINGS])
    run.wait_for_update(1)
    run.send_to_all(signal.SIGUSR1)
    run.send_to_all(signal.SIGTERM)  # of which the launcher hands on its own, too
    statuses, errors, _ = run.end()
    assert statuses == [STOPPED], errors
    record = record_of(run.overrides)
    assert record["state"] == "stopped"
    assert record["update"] == status_of(run.overrides) < 20
    script, launcher = errors[0].splitlines()[-2:]
    assert script == f"stopped by SIGUSR1 after update {record['update']}: the same command goes on from there"
    assert launcher == (
        "lamorel_launcher: stopped by SIGTERM: rank 0 (RL process) ended with exit code 75, the same command goes on"
    )
