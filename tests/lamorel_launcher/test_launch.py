"""Launched processes: how they are started, on one machine and on two."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.lamorel.launching import Launch, lamorel_args

ECHO = """
import json, os, sys
if os.environ["RANK"] != "0":
    print("not twice")
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "ACCELERATE_USE_CPU", "MASTER_PORT")
with open(os.environ["RESULTS"] + os.environ["RANK"], "w") as file:
    json.dump({"argv": sys.argv, **{name: os.environ[name] for name in names}}, file)
"""


def test_two_runs_at_once_from_another_folder(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "echo.py").write_text(ECHO)
    setup = {"n_rl_processes": 1, "n_llm_processes": 2}
    tree = {
        "distributed_setup_args": setup,
        "accelerate_args": {"main_process_port": 29517},
        "llm_args": {"model_path": "google/flan-t5-small"},
    }
    runs = [Launch.of(tmp_path / name, tree) for name in ("one", "two")]
    arguments = ["--config-path", ".", "--config-name", "config.yaml", "rl_script_args.path=../scripts/echo.py"]
    command = [sys.executable, "-m", "lamorel_launcher.launch", *arguments]
    processes = [run.start(command) for run in runs]
    assert [(*process.communicate(timeout=240), process.returncode) for process in processes] == [("", "", 0)] * 2
    ports = set()
    for run in runs:
        for rank in range(3):
            found = json.loads((run.folder / f"results.pt{rank}").read_text())
            assert found.pop("argv") == [
                *(str(run.folder / "../scripts/echo.py"), "--config-path", str(run.folder), "--config-name", "config"),
                "rl_script_args.path=../scripts/echo.py",
            ]
            ports.add(found.pop("MASTER_PORT"))
            assert found == {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "3",
                "LOCAL_WORLD_SIZE": "3",
                "ACCELERATE_USE_CPU": "true",
            }
        assert not (run.folder / "outputs").exists()
    assert len(ports) == 2


@pytest.fixture
def two_machines() -> Iterator[list[str]]:
    """Two network namespaces, joined by a cable: 10.77.0.1 and 10.77.0.2. Their names."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the command ip")
    names = [f"lamorel_{os.getpid()}_{machine}" for machine in range(2)]
    cable = [f"lml{os.getpid() % 100000}{end}" for end in "ab"]
    try:
        for name in names:
            if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
                pytest.skip("network namespaces cannot be made here")
        ip("link", "add", cable[0], "type", "veth", "peer", "name", cable[1])
        for machine, (name, end) in enumerate(zip(names, cable, strict=True)):
            ip("link", "set", end, "netns", name)
            ip("-n", name, "addr", "add", f"10.77.0.{machine + 1}/24", "dev", end)
            ip("-n", name, "link", "set", end, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def start_on(machines: list[str], launch: Launch) -> list["subprocess.Popen[str]"]:
    place = [f"lamorel_args.accelerate_args.{key}" for key in ("machine_rank", "main_process_ip", "main_process_port")]
    return [
        launch.start(
            [
                *("ip", "netns", "exec", name),
                *launch.command(f"+{place[0]}={rank}", f"+{place[1]}=10.77.0.1", f"+{place[2]}=29511"),
            ]
        )
        for rank, name in reversed(list(enumerate(machines)))  # machine 1 first: it waits
    ][::-1]


@pytest.mark.slow
def test_two_machines(two_machines: list[str], tiny_models: Any, tmp_path: Path) -> None:
    tree = lamorel_args(tiny_models["t5"], n_llm=2, accelerate_args={"num_machines": 2})
    launch = Launch.of(tmp_path, tree)
    processes = start_on(two_machines, launch)
    ended = [(*process.communicate(timeout=240), process.returncode) for process in processes]
    assert ended == [("", "", 0)] * 2
    found = torch.load(tmp_path / "results_0.pt", weights_only=False)
    assert len(found["adam"].unique(dim=0)) == 1
    assert len(found["scores"]) == 5


@pytest.mark.slow
@pytest.mark.parametrize("accident", ["launcher killed", "process killed", "cable cut"])
def test_accidents_on_two_machines(two_machines: list[str], tiny_models: Any, tmp_path: Path, accident: str) -> None:
    script = Path(__file__).parents[1] / "lamorel" / "troubled_jobs.py"
    tree = lamorel_args(tiny_models["t5"], n_llm=2, accelerate_args={"num_machines": 2})
    launch = Launch.of(tmp_path, tree, script, job="loop")
    processes = start_on(two_machines, launch)
    said = tmp_path / "said"
    deadline = time.monotonic() + 240
    while not said.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1)
    start = time.monotonic()
    if accident == "launcher killed":
        processes[1].kill()
    elif accident == "process killed":
        os.kill(int((tmp_path / "pid_2").read_text()), 9)
    else:
        ip("-n", two_machines[0], "link", "set", _cable_of(two_machines[0]), "down")
    ended = [(*process.communicate(timeout=60), process.returncode) for process in processes]
    assert time.monotonic() - start < 15
    lines = [errors.splitlines() for _, errors, _ in ended]
    assert ended[0][2] != 0
    assert len(lines[0]) == 1, lines
    if accident == "process killed":
        assert all("rank 2 (LLM process 1) on " in line and "was killed by SIGKILL" in line for [line] in lines)
    assert len(lines[1]) == (0 if accident == "launcher killed" else 1), lines
    pids = [int(file.read_text()) for file in tmp_path.glob("pid_*")]
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def _cable_of(name: str) -> str:
    links = subprocess.run(["ip", "-n", name, "-o", "link"], capture_output=True, text=True, check=True).stdout
    return next(line.split(": ")[1].split("@")[0] for line in links.splitlines() if "lml" in line)
