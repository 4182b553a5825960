"""`make train` and `make train-twosome`: what make would run, and the second of them in small."""

import shlex
import subprocess

import pandas as pd
import pytest

from experiments.make_tiny_llm import make_tiny_llm
from experiments.post_training_tests import run_tests
from experiments.test_results import main as make_report
from experiments.train_language_agent import train
from tests.experiments.conftest import ROOT, make_config

MAKE_LLM, TRAIN, TEST, RESULTS = (
    "make_tiny_llm.py", "train_language_agent.py", "post-training_tests.py", "test_results.py",
)  # fmt: skip
JOBS = {MAKE_LLM: make_tiny_llm, TRAIN: train, TEST: run_tests}
SMALLER = [
    "rl_script_args.number_envs=4",
    "rl_script_args.frames_per_proc=8",
    "rl_script_args.num_steps=64",  # 2 updates
    "rl_script_args.twosome.actor_minibatches=4",
    "rl_script_args.twosome.critic_minibatches=2",
    "rl_script_args.number_episodes=3",
    "rl_script_args.tiny_llm.d_model=32",
    "rl_script_args.tiny_llm.layers=1",
    "rl_script_args.tiny_llm.vocabulary_episodes=5",
]


def commands(target):
    """(script, arguments) of each command of a target, as make would run it."""
    command = ["make", "--dry-run", target, "SEED=3"]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.replace("\\\n", " ")
    found = [shlex.split(line) for line in lines.splitlines() if " experiments/" in line]
    return [(words[1].removeprefix("experiments/"), words[2:]) for words in found]


@pytest.mark.parametrize(("target", "demo"), [("train", "demo"), ("train-twosome", "twosome_demo")])
def test_what_make_runs(target, demo):
    found = commands(target)
    assert [script for script, _ in found] == [MAKE_LLM, TEST, TEST, TRAIN, TEST, RESULTS]
    *jobs, (_, report) = found
    assert all(words[:2] == [f"experiment={demo}", "rl_script_args.seed=3"] for _, words in jobs)
    assert report[1] == f"storage/{demo}/logs"


def test_what_make_runs_with_a_pretrained_llm():
    found = commands("train-llm")
    assert [script for script, _ in found] == [TEST, TEST, TRAIN, TEST, RESULTS]
    *jobs, (_, report) = found
    assert all(words[:2] == ["experiment=smollm2_food_preparation", "rl_script_args.seed=3"] for _, words in jobs)
    assert report[1] == "storage/smollm2_food_preparation/logs"


def test_the_twosome_demo_in_small(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for script, words in commands("train-twosome"):
        if script == RESULTS:
            make_report(words)
        else:
            JOBS[script](make_config([*words, *SMALLER], model_exists=script != MAKE_LLM))
    table = pd.read_csv("storage/twosome_demo/results_seed_3/results.csv")
    assert list(table.agent) == ["random", "zero-shot", "trained"]
    assert (table.episodes == 3).all()
    assert (table.level == "VirtualHomeText-FoodPreparation-v0").all()


def test_the_llm_of_the_twosome_demo_has_not_seen_the_task(tmp_path):
    """Nothing is cloned or pretrained: what acts before PPO has random weights, and LoRA alone changes the policy."""
    config = make_config(
        ["experiment=twosome_demo", f"lamorel_args.llm_args.model_path={tmp_path / 'tiny'}"], model_exists=False
    )
    assert (config.rl.method, config.rl.tiny_llm.clone_steps, config.lamorel.llm_args.model_type) == (
        "twosome", 0, "causal",
    )  # fmt: skip
    assert config.lamorel.llm_args.lora is not None
    assert (config.rl.number_episodes, config.rl.max_episode_steps) == (300, None)
