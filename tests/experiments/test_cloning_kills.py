"""kill -9 of behavioural cloning at any moment, in one process and in two."""

import random
import secrets
import signal
import subprocess
import sys
import time

import pytest

from tests.experiments.cloning_runs import arguments, assert_same_run, export_bot, run
from tests.experiments.conftest import ROOT, script_environment
from tests.experiments.launched_runs import MARK, marked, send

SCRIPT = str(ROOT / "experiments" / "clm_behavioral-cloning.py")
ONE = [sys.executable, SCRIPT]
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", SCRIPT]
LONG = {"per_device_batch_size": 2, "gradient_accumulation_steps": 2, "epochs": 4, "eval_every": 20}


def start(command, options, mark=""):
    environment = {**script_environment(), MARK: mark}
    return subprocess.Popen([*command, *options], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def checkpointed(out):
    """When the newest checkpoint was written."""
    try:
        return (out / "checkpoints" / "last" / "manifest.json").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def kill_after_a_checkpoint(command, options, out, generator):
    """Let one more checkpoint be written, then kill all processes of the run at a random moment."""
    before, mark = checkpointed(out), secrets.token_hex(8)
    process = start(command, options, mark)
    try:
        deadline = time.monotonic() + 240
        while process.poll() is None and checkpointed(out) in (0, before):
            assert time.monotonic() < deadline, "no checkpoint in four minutes"
            time.sleep(0.005)
        time.sleep(generator.uniform(0, 0.3))
    finally:
        process.kill()
        while left := marked(mark):  # torchrun's processes have sessions of their own, and outlive it
            send(left, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run was over before the kill"
    assert not (out / "config.json").exists(), "the run was over before the kill"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t5", "llama"])
def test_kills_in_one_process(tiny_models, tmp_path, name):
    export_bot(tmp_path, 150, 1)
    longer = {**LONG, "epochs": 16}  # 560 steps of 10 ms on a quick machine: the kills come in the first quarter
    # a process as the killed ones are: with another number of threads than they have, sums differ in their last digit
    assert start(ONE, arguments(tmp_path, tiny_models / name, tmp_path / "straight", **longer)).wait(timeout=300) == 0
    options = arguments(tmp_path, tiny_models / name, tmp_path / "killed", **longer)
    generator = random.Random(0)
    for _ in range(4):
        kill_after_a_checkpoint(ONE, options, tmp_path / "killed", generator)
    assert start(ONE, options).wait(timeout=300) == 0
    assert_same_run(tmp_path / "killed", tmp_path / "straight")


@pytest.mark.slow
def test_kills_in_two_processes(tiny_models, tmp_path):
    export_bot(tmp_path, 150, 1)
    longer = {**LONG, "epochs": 16}  # 288 steps
    straight = arguments(tmp_path, tiny_models / "t5", tmp_path / "straight", **longer)
    assert start(TWO, straight).wait(timeout=300) == 0
    options = arguments(tmp_path, tiny_models / "t5", tmp_path / "killed", **longer)
    generator = random.Random(1)
    for _ in range(2):
        kill_after_a_checkpoint(TWO, options, tmp_path / "killed", generator)
    assert start(TWO, options).wait(timeout=300) == 0
    assert_same_run(tmp_path / "killed", tmp_path / "straight")


@pytest.mark.slow
def test_two_processes_say_once_what_is_wrong(tiny_models, tmp_path):
    export_bot(tmp_path, 24, 1)
    options = arguments(tmp_path, tiny_models / "t5", tmp_path / "out", gradient_accumulation_steps=6)
    run(tmp_path, tiny_models / "t5", tmp_path / "out", gradient_accumulation_steps=12)  # the same batch in one process
    again = subprocess.run([*TWO, *options], env=script_environment(), capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("is finished") == 1
    other = [*options, "--seed", "2"]
    refused = subprocess.run([*TWO, *other], env=script_environment(), capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert refused.stderr.count("made with another configuration (seed)") == 1
    assert "clm_behavioral_cloning.py" not in refused.stderr  # no traceback of ours
