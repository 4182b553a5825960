"""Signals to behavioural cloning: every process finishes the same gradient step, the same command goes on exactly."""

import json
import os
import random
import re
import signal
import subprocess
import time
from contextlib import suppress

import pytest

from experiments.cloning import training
from experiments.stopping import STOPPED, Stopped
from tests.experiments.cloning_runs import arguments, assert_same_run, export_bot, run
from tests.experiments.conftest import free_port, script_environment, wait_for_handler
from tests.experiments.test_cloning_kills import LONG, ONE, TWO, checkpointed

# (step, whether its evaluation is still to come) of every stop, where each start is stopped when it looks for a signal
# for the so manieth time. It looks before each of the 12 steps, and three times in an evaluation (12 pairs, 4 a
# forward), which is due after steps 6 and 12.
PLACES = {
    4: [
        (3, False),  # before steps 1 to 4
        (6, True),  # before 4 to 6, in the evaluation
        (6, False),  # three times in it, before 7
        (9, False),  # before 7 to 10
        (12, True),  # before 10 to 12, in the evaluation; three times in it, and nothing is left
    ],
    7: [
        (6, True),  # before steps 1 to 6, in the evaluation
        (9, False),  # three times in it, before 7 to 10
        # before 10 to 12, three times in the evaluation, and nothing is left
    ],
}


@pytest.mark.parametrize("ask", PLACES)
def test_stops_in_steps_and_in_evaluations(tiny_models, tmp_path, monkeypatch, ask):
    export_bot(tmp_path, 150, 1)
    run(tmp_path, tiny_models / "t5", tmp_path / "straight", checkpoint_every=4)
    asked = 0

    def stop_signal():
        nonlocal asked
        asked += 1
        return "SIGUSR1" if asked >= ask else None

    monkeypatch.setattr(training, "stop_signal", stop_signal)
    places = []
    for _ in range(len(PLACES[ask]) + 1):
        asked = 0
        with suppress(Stopped):
            run(tmp_path, tiny_models / "t5", tmp_path / "out", checkpoint_every=4)
            break
        trainer = json.loads((tmp_path / "out" / "checkpoints" / "last" / "trainer.json").read_text())
        places.append((trainer["update"], trainer["unrecorded"]))
    assert places == PLACES[ask]
    assert_same_run(tmp_path / "out", tmp_path / "straight")


def test_a_signal_to_one_process(tiny_models, tmp_path):
    export_bot(tmp_path, 150, 1)
    longer = {**LONG, "epochs": 2000}
    (process,) = start_plain(1, arguments(tmp_path, tiny_models / "t5", tmp_path / "out", **longer))
    wait_for_checkpoint(tmp_path / "out", [process])
    process.send_signal(signal.SIGUSR1)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == STOPPED, errors
    trainer = json.loads((tmp_path / "out" / "checkpoints" / "last" / "trainer.json").read_text())
    told = f"stopped by SIGUSR1 after step {trainer['update']}: the same command goes on from there"
    assert errors.splitlines()[-1] == told
    assert not (tmp_path / "out" / "config.json").exists()


def start_plain(count, options):
    """Processes as srun starts them: one task each, with what slurm/launch_accelerate.py puts into the environment."""
    world = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "ACCELERATE_USE_CPU": "true"}
    world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [
        subprocess.Popen(
            [*ONE, *options],
            env={**script_environment(), **world, "RANK": str(i), "LOCAL_RANK": str(i)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(count)
    ]


def wait_for_checkpoint(out, processes):
    """Until there is another checkpoint than now."""
    before, deadline = checkpointed(out), time.monotonic() + 240
    while checkpointed(out) in (0, before):
        for process in processes:
            assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no checkpoint in four minutes"
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [[0], [1], [0, 1]])
def test_signals_to_some_of_two_processes(tiny_models, tmp_path, stopped):
    export_bot(tmp_path, 150, 1)
    longer = {**LONG, "epochs": 16, "gradient_accumulation_steps": 1}
    for process in start_plain(2, arguments(tmp_path, tiny_models / "t5", tmp_path / "straight", **longer)):
        process.communicate(timeout=300)
    options = arguments(tmp_path, tiny_models / "t5", tmp_path / "out", **longer)
    generator = random.Random(0)
    for number in (signal.SIGUSR1, signal.SIGTERM):
        processes = start_plain(2, options)
        wait_for_checkpoint(tmp_path / "out", processes)
        time.sleep(generator.uniform(0, 0.1))
        for index in stopped:
            processes[index].send_signal(number)
        told = [process.communicate(timeout=120)[1] for process in processes]
        assert [process.returncode for process in processes] == [STOPPED, STOPPED], told
        assert "after step" in told[0].splitlines()[-1]
        assert "Traceback" not in "".join(told)
        assert told[1] == ""
    for process in start_plain(2, options):
        _, errors = process.communicate(timeout=300)
        assert process.returncode == os.EX_OK, errors
    assert_same_run(tmp_path / "out", tmp_path / "straight")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "told"), [(signal.SIGTERM, []), (signal.SIGUSR1, ["--signals_to_handle", "SIGTERM,SIGINT,SIGUSR1"])]
)
def test_a_signal_to_torchrun(tiny_models, tmp_path, number, told):
    """It hands SIGTERM on, others if it is told to, and ends with a status of its own."""
    export_bot(tmp_path, 150, 1)
    options = arguments(tmp_path, tiny_models / "t5", tmp_path / "out", **{**LONG, "epochs": 2000})
    command = [*TWO[:-1], *told, TWO[-1], *options]
    process = subprocess.Popen(command, env=script_environment(), stderr=subprocess.PIPE, text=True)
    wait_for_checkpoint(tmp_path / "out", [process])
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    (step,) = re.findall(rf"stopped by {number.name} after step (\d+)", errors)
    trainer = json.loads((tmp_path / "out" / "checkpoints" / "last" / "trainer.json").read_text())
    assert trainer["update"] == int(step)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, STOPPED), (signal.SIGINT, 130)])
def test_signals_at_any_moment(tiny_models, tmp_path, number, status):
    """While it imports torch, reads, loads, learns, evaluates or saves: one line, and its status."""
    export_bot(tmp_path, 150, 1)
    options = arguments(tmp_path, tiny_models / "t5", tmp_path / "out", **LONG)
    for tenths in range(1, 56, 6):
        (process,) = start_plain(1, [*options, "--epochs", "2000"])
        wait_for_handler(process)
        time.sleep(tenths / 10)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == status, errors
        assert f"stopped by {number.name}" in errors.splitlines()[-1]
        assert "Traceback" not in errors
