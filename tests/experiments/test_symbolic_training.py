"""Symbolic-PPO end to end: what a run writes, that a resumed run is the uninterrupted one, and its tests."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from experiments.experiment_paths import ExperimentPaths
from experiments.post_training_tests import run_tests
from experiments.run_log import COLUMNS
from experiments.train_symbolic_ppo import train
from tests.experiments.conftest import make_config, run_script, script_environment

SCRIPT = "train_symbolic_ppo.py"


def config_of(overrides):
    return make_config([*overrides, "rl_script_args.symbolic_ppo=true"])


def logs_without_time(paths):
    return pd.read_csv(paths.logs / "log.csv").drop(columns=["FPS", "duration"])


def test_what_a_run_writes(symbolic):
    config = config_of(symbolic)
    train(config)
    paths = ExperimentPaths.of(config)
    log = pd.read_csv(paths.logs / "log.csv")
    assert tuple(log.columns) == COLUMNS
    assert log.frames.tolist() == [32, 64, 96]
    assert log[["entropy", "policy_loss", "value_loss", "loss", "grad_norm"]].notna().all(axis=None)
    assert (log.grad_norm > 0).all()
    assert not (paths.logs / "distrib.csv").exists()  # it reads no prompts
    assert "name_environment: BabyAI-GoToRedBallNoDists-v0" in (paths.logs / "config.yaml").read_text()
    last = paths.models / "last"
    assert {path.name for path in last.iterdir()} == {
        "network.safetensors", "vocabulary.json", "optimizer.pt", "trainer.json", "states.json", "manifest.json",
    }  # fmt: skip
    assert json.loads((last / "vocabulary.json").read_text()) == ["go", "to", "the", "red", "ball"]
    torch.load(last / "optimizer.pt", weights_only=True)
    assert json.loads((last / "trainer.json").read_text())["agent"] == "symbolic"
    assert (paths.models / "backup" / "manifest.json").exists()


@pytest.mark.parametrize("level", ["BabyAI-MixedTrainLocal-v0", "BabyAI-BossLevel-v0"])
def test_a_resumed_run_equals_an_uninterrupted_one(symbolic, tmp_path, level):
    """Bit for bit, through episodes, and words, that the starts in between know nothing of."""
    overrides = [*symbolic, f"rl_script_args.name_environment={level}"]
    other = [f"rl_script_args.saving_path_{kind}={tmp_path / 'straight' / kind}" for kind in ("logs", "model")]
    straight = config_of([*overrides, "rl_script_args.max_episode_steps=12", *other])
    train(straight)
    for frames in (32, 64, 96):
        resumed = config_of([*overrides, "rl_script_args.max_episode_steps=12", f"rl_script_args.num_steps={frames}"])
        train(resumed)
    one, two = ExperimentPaths.of(straight), ExperimentPaths.of(resumed)
    assert {one.logs, one.models}.isdisjoint({two.logs, two.models})
    pd.testing.assert_frame_equal(logs_without_time(one), logs_without_time(two), check_exact=True)
    for name in ("states.json", "vocabulary.json"):
        assert (one.models / "last" / name).read_text() == (two.models / "last" / name).read_text()
    first, second = (load_file(paths.models / "last" / "network.safetensors") for paths in (one, two))
    assert all(torch.equal(first[name], second[name]) for name in first)
    optimizers = [torch.load(paths.models / "last" / "optimizer.pt", weights_only=True) for paths in (one, two)]
    moments = [[entry["exp_avg"] for entry in optimizer["state"].values()] for optimizer in optimizers]
    assert all(torch.equal(a, b) for a, b in zip(*moments, strict=True))


def test_another_seed_is_another_run(symbolic):
    runs = []
    for seed in (1, 2):
        config = config_of([*symbolic, f"rl_script_args.seed={seed}", "rl_script_args.num_steps=32"])
        train(config)
        runs.append(load_file(ExperimentPaths.of(config).models / "last" / "network.safetensors"))
    assert not torch.equal(runs[0]["actor.0.weight"], runs[1]["actor.0.weight"])


def returns(config, test):
    folder = ExperimentPaths.of(config).test_folder(config.rl.name_environment)
    return np.load(folder / "return_per_episode" / f"{test}.npy")


def test_the_tests_of_a_trained_agent(symbolic, tmp_path):
    """Twice the same; with French prompts, which it does not read; with words it never met; and as an export."""
    options = [
        *symbolic,
        "rl_script_args.name_environment=BabyAI-MixedTrainLocal-v0",
        "rl_script_args.max_episode_steps=8",
    ]
    train(config_of([*options, "rl_script_args.num_steps=32"]))
    tests = ["no_modification_test", "no_meaning_words", "other_goal_test"]
    config = config_of([*options, f"rl_script_args.tests=[{','.join(tests)}]"])
    folder = ExperimentPaths.of(config).test_folder(config.rl.name_environment) / "episodes"
    run_tests(config)
    before = {test: (folder / f"{test}.csv").read_text() for test in tests}
    run_tests(config)
    assert {test: (folder / f"{test}.csv").read_text() for test in tests} == before
    facts = json.loads((folder / "no_modification_test.json").read_text())
    assert (facts["agent"], facts["checkpoint_update"], facts["results"]["episodes"]) == ("symbolic", 1, 6)
    # the same missions in every test, as in every other agent's
    missions = [pd.read_csv(folder / f"{test}.csv").mission.tolist() for test in tests[:2]]
    assert missions[0] == missions[1]

    french = config_of([*options, "rl_script_args.language=french", f"rl_script_args.saving_path_logs={tmp_path}"])
    run_tests(french)
    np.testing.assert_array_equal(returns(french, tests[0]), returns(config, tests[0]))

    run_tests(config_of([*options, "rl_script_args.get_example_trajectories=true", "rl_script_args.num_steps=20"]))
    assert len(np.load(folder.parent / "trajectories_actions_0.npy")) == 20


def test_the_tested_episodes_do_not_depend_on_the_environments(symbolic):
    train(config_of([*symbolic, "rl_script_args.num_steps=32"]))
    played = []
    for envs in (1, 4):
        config = config_of([*symbolic, f"rl_script_args.symbolic.number_envs={envs}"])
        if envs == 1:  # the id names the number of environments
            paths, trained = ExperimentPaths.of(config), ExperimentPaths.of(config_of(symbolic))
            paths.models.parent.mkdir(exist_ok=True)
            paths.models.symlink_to(trained.models)
        run_tests(config)
        played.append(returns(config, "no_modification_test"))
    np.testing.assert_array_equal(*played)


def test_from_another_folder(symbolic, tmp_path):
    """As a file and as a module, without a model; with bad input one line."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    relative = ["rl_script_args.saving_path_logs=logs", "rl_script_args.saving_path_model=models"]
    result = run_script(SCRIPT, [*symbolic, *relative, "rl_script_args.num_steps=32"], folder)
    assert result.returncode == 0, result.stderr
    assert "has no effect" not in result.stderr
    module = [
        sys.executable,
        "-m",
        "experiments.train_symbolic_ppo",
        *symbolic,
        *relative,
        "rl_script_args.number_envs=8",
    ]
    environment = {**script_environment(), "PYTHONPATH": ":".join(sys.path)}
    result = subprocess.run(
        module, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "rl_script_args.number_envs=8 has no effect on the agent symbolic" in result.stderr
    assert "resumed at update 1" in result.stderr
    assert "update 3 | frames 96" in result.stderr
    assert {path.name for path in folder.iterdir()} == {"logs", "models"}
    result = run_script(SCRIPT, [*symbolic, *relative, "rl_script_args.symbolic.recurrence=3"], folder)
    assert result.returncode == 2
    assert result.stderr.startswith("error: rl_script_args.symbolic.frames_per_proc=8 is not a multiple")
    assert len(result.stderr.splitlines()) == 1
