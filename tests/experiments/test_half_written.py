"""Scripts that make one thing: a stop or kill leaves nothing half-written in its place, and they run again."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments import test_results as results_script
from experiments.make_tiny_llm import make_tiny_llm
from experiments.stopping import STOPPED
from tests.experiments.conftest import ROOT, SMALL, make_config, script_environment, wait_for_handler
from tests.experiments.fabricated_runs import configuration, outcomes, write_test, write_training

TINY = ["rl_script_args.tiny_llm.d_model=32", "rl_script_args.tiny_llm.layers=1", "rl_script_args.tiny_llm.heads=2"]


class Killed(BaseException):
    """Stands for a kill in the process of the tests."""


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def kill_at(monkeypatch, owner, name, at, calls):
    """Kill at a call of `owner.name`; a folder that was to be removed has lost a file by then."""
    original = getattr(owner, name)

    def killed(path, *args, **kwargs):
        calls.append(name)
        if len(calls) == at:
            if name == "rmtree" and Path(path).exists():
                min(Path(path).iterdir()).unlink()
            raise Killed
        return original(path, *args, **kwargs)

    monkeypatch.setattr(owner, name, killed)


def test_a_tiny_llm_is_whole_or_absent(tmp_path, monkeypatch):
    def make(folder, seed):
        paths = [f"rl_script_args.saving_path_{kind}=x" for kind in ("logs", "model")]
        path = f"lamorel_args.llm_args.model_path={folder}"
        options = [*paths, path, "rl_script_args.tiny_llm.clone_steps=0", f"rl_script_args.seed={seed}"]
        make_tiny_llm(make_config([*SMALL, *TINY, *options], model_exists=False))

    make(tmp_path / "old", 1)
    make(tmp_path / "new", 2)
    old, new = files(tmp_path / "old"), files(tmp_path / "new")
    assert old.keys() == new.keys()
    assert old != new
    calls, kills = [], 0
    while len(calls) == kills:
        shutil.copytree(tmp_path / "old", tmp_path / "model", dirs_exist_ok=True)
        kills += 1
        calls = []
        with monkeypatch.context() as patched:
            kill_at(patched, shutil, "rmtree", kills, calls)
            kill_at(patched, Path, "rename", kills, calls)
            try:
                make(tmp_path / "model", 2)
            except Killed:
                assert files(tmp_path / "model") in (old, new, {})
            else:
                break
        make(tmp_path / "model", 2)
        assert files(tmp_path / "model") == new
        assert {path.name for path in tmp_path.iterdir()} == {"old", "new", "model"}
        shutil.rmtree(tmp_path / "model")
    assert kills > 4  # two renames, and the removals around them


def test_tables_and_figures_are_whole(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "logs" / "llm_seed_1"
    write_training(folder, configuration(1), [0.5] * 12)
    write_test(folder, configuration(1), "trained", outcomes(5, 10))

    def report(output):
        arguments = ["--logs", str(tmp_path / "logs"), "--output", str(output), "--figures", "learning_curve"]
        assert results_script.main(arguments) == 0, capsys.readouterr().err

    report(tmp_path / "straight")
    whole = files(tmp_path / "straight")
    for kill in (2, 5, len(whole)):
        calls = []
        with monkeypatch.context() as patched:
            kill_at(patched, Path, "replace", kill, calls)
            with pytest.raises(Killed):
                report(tmp_path / "out")
        left = {name: content for name, content in files(tmp_path / "out").items() if not name.startswith(".")}
        assert kill - 1 <= len(left) < len(whole)
        assert left.items() <= whole.items()
        shutil.rmtree(tmp_path / "out")
    report(tmp_path / "out")
    assert files(tmp_path / "out") == whole


@pytest.mark.slow
@pytest.mark.parametrize("script", ["make_tiny_llm.py", "make_sentencepiece.py", "show_episodes.py", "test_results.py"])
def test_signals_at_any_moment(small, tmp_path, script):
    """One line and status 75, whenever it comes; nothing but whole files is left, and the same command makes them."""
    made, options = tmp_path / "made", small
    if script == "make_tiny_llm.py":
        cloning = "rl_script_args.tiny_llm.clone_episodes=20"
        options = [*small, *TINY, f"lamorel_args.llm_args.model_path={made}", cloning]
    elif script == "make_sentencepiece.py":
        options = [*small, f"rl_script_args.spm_path={made / 'spm.model'}"]
    elif script == "show_episodes.py":
        shown = [*range(200)]
        options = [*small, "rl_script_args.random_agent=true", f"rl_script_args.shown_episodes={shown}"]
        made = tmp_path / "logs"
    else:
        write_training(tmp_path / "logs" / "llm_seed_1", configuration(1), [0.5] * 12)
        options = ["--logs", str(tmp_path / "logs"), "--output", str(made)]
    command = [sys.executable, str(ROOT / "experiments" / script), *options]

    def start():
        process = subprocess.Popen(command, env=script_environment(), stderr=subprocess.PIPE, text=True, cwd=tmp_path)
        wait_for_handler(process)
        return process

    def contents():
        found = [path for path in made.rglob("[!.]*") if path.is_file()]
        return {str(path.relative_to(made)): path.read_bytes() for path in found}

    process, begun = start(), time.monotonic()
    _, errors = process.communicate(timeout=300)
    took = time.monotonic() - begun
    whole = contents()
    assert whole, errors
    shutil.rmtree(made)
    generator = random.Random(0)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL, signal.SIGTERM):
        process = start()
        time.sleep(generator.uniform(0, 1) * took)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        if number == signal.SIGKILL:
            assert process.returncode in (-signal.SIGKILL, os.EX_OK)
        elif process.returncode != os.EX_OK:
            assert process.returncode == STOPPED, errors
            assert f"stopped by {number.name}" in errors.splitlines()[-1]
            assert "Traceback" not in errors
        assert contents().items() <= whole.items()
    _, errors = start().communicate(timeout=300)
    assert contents() == whole, errors
