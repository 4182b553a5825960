"""The scripts, started by the launcher with two LLM processes: the results are those of one process."""

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from experiments.experiment_paths import ExperimentPaths
from experiments.post_training_tests import run_tests
from experiments.show_episodes import page_path, show_episodes
from experiments.train_language_agent import train
from tests.experiments.conftest import ROOT, make_config, script_environment
from tests.experiments.test_training import assert_same_run, elsewhere, logs_without_time, paths_of

LLM_PROCESSES = "lamorel_args.distributed_setup_args.n_llm_processes=2"


def launch(script, overrides, cwd, *, timeout=300):
    """`python -m lamorel_launcher.launch` as a user calls it, from the folder `cwd`."""
    command = [sys.executable, "-m", "lamorel_launcher.launch", "--config-path", str(ROOT / "configs")]
    command += ["--config-name", "base", f"rl_script_args.path={ROOT / 'experiments' / script}", *overrides]
    return subprocess.run(
        command, cwd=cwd, env=script_environment(), capture_output=True, text=True, timeout=timeout, check=False
    )


def test_launched_training_and_tests_are_those_of_one_process(small, tmp_path):
    small = [*small, "rl_script_args.calibration=batch"]  # whose biases travel with every update
    alone = elsewhere(small, tmp_path)
    train(make_config(alone))
    run_tests(make_config([*alone, "rl_script_args.zero_shot=false"]))

    train(make_config([*small, "rl_script_args.num_steps=32"]))  # a run may go on with another number of processes
    trained = launch("train_language_agent.py", [*small, LLM_PROCESSES], tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert trained.stderr.count("resumed at update 1") == 1
    assert trained.stderr.count("update 3 |") == 1  # one process speaks
    tested = launch("post-training_tests.py", [*small, LLM_PROCESSES, "rl_script_args.zero_shot=false"], tmp_path)
    assert tested.returncode == 0, tested.stderr

    found, expected = (logs_without_time(paths_of(overrides)) for overrides in (small, alone))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-3, atol=1e-4)
    found, expected = (episodes_of(overrides) for overrides in (small, alone))
    assert len(found) == 1 + 6
    assert found == expected


def episodes_of(overrides):
    """The episodes of the one test that was run, below a heading."""
    folder = paths_of(overrides).test_folder("BabyAI-GoToRedBallNoDists-v0") / "episodes"
    [path] = folder.glob("*.csv")
    return path.read_text().splitlines()


@pytest.mark.slow
def test_a_launched_run_resumes_exactly(small, tmp_path):
    straight = elsewhere(small, tmp_path)
    assert launch("train_language_agent.py", [*straight, LLM_PROCESSES], tmp_path).returncode == 0
    for steps in (32, 64, 96):
        run = launch("train_language_agent.py", [*small, LLM_PROCESSES, f"rl_script_args.num_steps={steps}"], tmp_path)
        assert run.returncode == 0, run.stderr
    assert_same_run(paths_of(small), paths_of(straight))


@pytest.mark.slow
def test_a_launched_run_shows_the_episodes_of_one_process(small, tmp_path):
    shown = "rl_script_args.shown_episodes=[0,2]"
    alone = make_config([*elsewhere(small, tmp_path), shown])
    show_episodes(alone)
    run = launch("show_episodes.py", [*small, shown, LLM_PROCESSES], tmp_path)
    assert run.returncode == 0, run.stderr
    pages = [
        page_path(config, ExperimentPaths.of(config), "no_modification_test") for config in (alone, make_config(small))
    ]
    found, expected = (re.findall(r'"chosen":(\d+)', page.read_text(encoding="utf-8")) for page in pages)
    assert len(found) > 2
    assert found == expected


def test_bad_input_is_said_once(small, tmp_path):
    run = launch("train_language_agent.py", [*small, LLM_PROCESSES, "rl_script_args.lr=-1"], tmp_path)
    assert run.returncode == 2
    assert run.stderr.count("error: rl_script_args.lr") == 1


def test_agents_without_an_llm_need_no_llm_process(small, tmp_path):
    run = launch("post-training_tests.py", [*small, "rl_script_args.random_agent=true"], tmp_path)
    assert run.returncode == 0, run.stderr
    assert np.isfinite(float(run.stderr.split("success ")[1].split(",")[0]))
