"""What happens when a process fails, dies, is late, or is asked to stop."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.lamorel.launching import Launch, lamorel_args

SCRIPT = Path(__file__).with_name("troubled_jobs.py")
DEADLINE_S = 15  # for everything to have ended after a death


@pytest.fixture
def launch(tiny_models: Any, tmp_path: Path) -> Callable[..., Launch]:
    def make(job: str, folder: str = "run", n_llm: int = 2, n_rl: int = 1, **args: Any) -> Launch:
        tree = lamorel_args(tiny_models["t5"], n_llm, n_rl, **args)
        return Launch.of(tmp_path / folder, tree, SCRIPT, job=job)

    return make


def said(launch: Launch) -> list[str]:
    file = launch.folder / "said"
    return file.read_text().splitlines() if file.exists() else []


def wait_until(condition: Callable[[], bool], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


def pids(launch: Launch) -> dict[int, int]:
    """By rank."""
    return {int(file.name[4:]): int(file.read_text()) for file in launch.folder.glob("pid_*")}


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def finish(process: "subprocess.Popen[str]", launch: Launch) -> tuple[list[str], float]:
    """Lines on stderr, and how long it took; nothing may be left."""
    start = time.monotonic()
    _, errors = process.communicate(timeout=240)
    seconds = time.monotonic() - start
    assert len(pids(launch)) > 1
    wait_until(lambda: not any(is_alive(pid) for pid in pids(launch).values()), 5)
    return errors.splitlines(), seconds


@pytest.mark.parametrize(
    ("job", "victim", "name"),
    [
        ("loop", 2, "rank 2 (LLM process 1)"),
        pytest.param("loop", 0, "rank 0 (RL process)", marks=pytest.mark.slow),
        pytest.param("updates", 1, "rank 1 (LLM process 0)", marks=pytest.mark.slow),
    ],
)
def test_a_killed_process_ends_all_with_one_line(
    launch: Callable[..., Launch], job: str, victim: int, name: str
) -> None:
    run = launch(job)
    process = run.start(run.command())
    wait_until(lambda: "looping" in said(run))
    time.sleep(0.5)
    os.kill(pids(run)[victim], signal.SIGKILL)
    lines, seconds = finish(process, run)
    assert lines == [f"lamorel_launcher: {name} was killed by SIGKILL"]
    assert process.returncode == 128 + signal.SIGKILL
    assert seconds < DEADLINE_S
    assert ("finally" in said(run)) == (job == "loop" and victim != 0)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 2])
def test_a_killed_process_ends_all_under_torchrun(launch: Callable[..., Launch], victim: int) -> None:
    run = launch("loop")
    command = run.torchrun(3)
    process = run.start([*command, "rl_script_args.job=loop"])
    wait_until(lambda: "looping" in said(run))
    time.sleep(0.5)
    os.kill(pids(run)[victim], signal.SIGKILL)
    lines, seconds = finish(process, run)
    assert process.returncode != 0
    assert seconds < DEADLINE_S
    assert not any("Gloo" in line or "Connection" in line for line in lines)


@pytest.mark.slow
def test_a_killed_launcher_takes_all_along(launch: Callable[..., Launch]) -> None:
    run = launch("loop")
    process = run.start(run.command())
    wait_until(lambda: "looping" in said(run))
    process.kill()
    lines, seconds = finish(process, run)
    assert (lines, seconds < 5) == ([], True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (
            "late_answer",
            [
                r"WaitTimeoutError after 1\d s: waited 12 s for rank 2 \(LLM process 1\) to answer: .* raise "
                r"lamorel_args.gloo_timeout",
                r"RuntimeError after \d s: this Caller is broken: waited 12 s for rank 2",
            ],
        ),
        ("late_exchange", [r"WaitTimeoutError after 1\d s: waited 12 s for rank 2 \(LLM process 1\) "]),
    ],
)
def test_a_late_process_is_named(launch: Callable[..., Launch], job: str, expected: list[str]) -> None:
    run = launch(job, gloo_timeout=12)  # in which the processes, that share two cores, have to start as well
    run_process = run.start(run.command())
    lines, _ = finish(run_process, run)
    assert len(said(run)) == len(expected), said(run)
    for line, pattern in zip(said(run), expected, strict=True):
        assert re.match(pattern, line), line
    assert lines == []


@pytest.mark.slow
def test_a_failed_update(launch: Callable[..., Launch]) -> None:
    run = launch("failed_update")
    process = run.start(run.command())
    lines, _ = finish(process, run)
    first, second, third = said(run)
    assert re.match(r"ZeroDivisionError after \d s: in the updater / \['in rank 2 \(LLM process 1\):'\]", first), first
    assert re.match(r"RuntimeError after \d s: this Caller is broken: an update failed", second), second
    assert third == "closed"
    assert (lines, process.returncode) == ([], 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (
            "unused_head",
            [r"RuntimeError .* parameter _module_functions.unused.weight has no gradient after a backward"],
        ),
        (
            "mean_of_one",
            [
                r"RuntimeError .* mean_over_batch: every LLM process with a share .* \[0, 2\] for shares of \[2, 2\]",
                r"RuntimeError after \d s: this Caller is broken: an update failed",
                "closed",
            ],
        ),
        (
            "hidden_optimizer",
            [
                r"RuntimeError .* Troubled has an optimizer that another LLM process, which had no share of this",
                r"RuntimeError .* this launch has had its Caller",
            ],
        ),
    ],
)
def test_updates_that_would_make_processes_differ(launch: Callable[..., Launch], job: str, expected: list[str]) -> None:
    run = launch(job, allow_subgraph_use_whith_gradient=job != "unused_head")
    process = run.start(run.command())
    lines, _ = finish(process, run)
    assert (lines, process.returncode) == ([], 0)
    assert len(said(run)) == len(expected), said(run)
    for line, pattern in zip(said(run), expected, strict=True):
        assert re.match(pattern, line), line


@pytest.mark.slow
def test_an_rl_process_that_closes_before_the_others(launch: Callable[..., Launch]) -> None:
    run = launch("closes_early", n_llm=1, n_rl=2, gloo_timeout=12)
    process = run.start(run.command())
    lines, _ = finish(process, run)
    assert (lines, process.returncode) == ([], 0)
    update, close, end = said(run)
    assert re.match(r"RuntimeError after \d s: rank 1 \(RL process\) has closed its Caller: RL proc.*update", update)
    assert re.match(r"WaitTimeoutError after 1\d s: waited 12 s for rank 0 \(RL process\) to close as well", close)
    assert end == "closed"


@pytest.mark.slow
def test_a_model_that_cannot_be_made(launch: Callable[..., Launch]) -> None:
    run = launch("initializer")
    process = run.start(run.command())
    lines, _ = finish(process, run)
    [line] = said(run)
    assert re.match(r"ValueError after \d+ s: no such weights / \['in rank 2 \(LLM process 1\):'\]", line), line
    assert (lines, process.returncode) == ([], 0)


def test_a_checkpoint_when_asked_to_stop(launch: Callable[..., Launch]) -> None:
    run = launch("checkpoint_on_sigterm")
    process = run.start(run.command())
    wait_until(lambda: "looping" in said(run))
    time.sleep(1.5)
    process.terminate()
    output, errors = process.communicate(timeout=240)
    assert said(run) == ["looping", "saved True"]
    assert (process.returncode, output, errors) == (0, "every process prints this\n", "")


@pytest.mark.parametrize("job", ["children_and_close", pytest.param("children_and_failure", marks=pytest.mark.slow)])
def test_children_of_llm_processes_are_stopped_and_delay_nothing(launch: Callable[..., Launch], job: str) -> None:
    """The script starts workers and programs before its Caller, and so in every process."""
    run = launch(job, gloo_timeout=120)
    process = run.start(run.command())
    wait_until(lambda: len(list(run.folder.glob("children_*"))) == 3)
    lines, seconds = finish(process, run)
    assert seconds < 100  # in which processes have to start as well, on cores that tests share
    if job == "children_and_close":
        [line] = said(run)
        assert re.fullmatch(r"closed after \d+ s", line)
        assert int(line.split()[2]) < DEADLINE_S
        assert (lines, process.returncode) == ([], 0)
    else:
        assert process.returncode == 1
        assert lines[-1] == "lamorel_launcher: rank 0 (RL process) ended with exit code 1"
        assert sum("ZeroDivisionError: in the script" in line for line in lines) == 1
    children = [int(pid) for file in run.folder.glob("children_*") for pid in file.read_text().split()]
    assert len(children) == 3 * (4 if job == "children_and_close" else 6)
    wait_until(lambda: not any(is_alive(pid) for pid in children), 5)


@pytest.mark.slow
def test_what_fails_in_every_process_is_said_once(launch: Callable[..., Launch]) -> None:
    run = launch("fails early")
    process = run.start(run.command())
    output, errors = process.communicate(timeout=240)
    assert output == "every process prints this\n"
    assert errors.splitlines() == [
        "error: not like this",
        "lamorel_launcher: rank 0 (RL process) ended with exit code 1",
    ]
    assert process.returncode == 1


@pytest.mark.slow
def test_a_script_without_caller_ends_well(launch: Callable[..., Launch]) -> None:
    run = launch("no caller")
    process = run.start(run.command())
    lines, seconds = finish(process, run)
    assert (lines, process.returncode) == ([], 0)
    assert seconds < 200  # the other processes sleep for 300


@pytest.mark.slow
def test_another_number_of_processes(launch: Callable[..., Launch]) -> None:
    run = launch("loop")
    process = run.start([*run.torchrun(2), "rl_script_args.job=loop"])
    finish(process, run)
    assert process.returncode != 0
    [line] = said(run)
    assert re.match(r"LamorelConfigError after \d s: lamorel_args.distributed_setup_args asks for n_rl_.*=1 and", line)


@pytest.mark.slow
def test_accelerate_sees_the_launched_world_or_an_error_says_so(launch: Callable[..., Launch]) -> None:
    run = launch("failed_update", "launcher")
    process = run.start(run.command(), EARLY_ACCELERATOR="1")
    finish(process, run)
    assert said(run)[:3] == ["accelerate sees 3"] * 3
    run = launch("failed_update", "torchrun")
    process = run.start(run.torchrun(3), EARLY_ACCELERATOR="1")
    _, errors = process.communicate(timeout=240)
    assert said(run) == ["accelerate sees 1"] * 3
    assert "accelerate sees 1 process, but 3 were launched: call lamorel_init() before" in errors
