"""GLAM's and TWOSOME's agents in each other's environments, by configuration alone, with a tiny decoder-only LLM."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from experiments.agents.random_agent import RandomAgent
from experiments.environments import check_environment
from experiments.experiment_paths import ExperimentPaths
from experiments.playing import play_episodes
from experiments.post_training_tests import run_tests
from experiments.show_episodes import page_path, show_episodes
from experiments.train_language_agent import train
from tests.experiments.conftest import make_config

FOOD, ENTERTAINMENT = "VirtualHomeText-FoodPreparation-v0", "VirtualHomeText-Entertainment-v0"
TASKS = ("food_preparation", "entertainment")


def make(experiment, *overrides):
    """The configuration, its environment's package imported as a script does."""
    config = make_config([f"experiment=[{experiment}]", *overrides])
    check_environment(config.rl)
    return config


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """An untrained model that has every word of both household tasks."""
    from experiments.tiny_llm.models import save_tiny_model
    from experiments.tiny_llm.vocabulary import word_level_tokenizer, written_texts

    texts = set()
    for task in TASKS:
        texts |= written_texts(make(f"twosome_{task},random", "rl_script_args.number_envs=1").rl, 20)
    folder = tmp_path_factory.mktemp("models") / "llama"
    save_tiny_model(folder, "llama", d_model=16, layers=1, heads=2, tokenizer=word_level_tokenizer(texts))
    return folder


@pytest.fixture
def tiny(llama, tmp_path):
    """Overrides of two updates of 32 frames that write below tmp_path."""
    return [
        f"lamorel_args.llm_args.model_path={llama}",
        "lamorel_args.llm_args.dtype=fp32",
        "rl_script_args.torch_threads=1",
        "rl_script_args.frames_per_proc=8",
        "rl_script_args.num_steps=64",
        "rl_script_args.number_episodes=5",
        "+rl_script_args.environment_options.max_steps=12",
        f"rl_script_args.saving_path_logs={tmp_path / 'logs'}",
        f"rl_script_args.saving_path_model={tmp_path / 'models'}",
    ]


@pytest.mark.parametrize("task", TASKS)
def test_discounted_returns_are_those_that_the_environment_tells(task):
    rl = make(f"twosome_{task},random").rl
    played = play_episodes(rl, RandomAgent(), range(40), with_transitions=True)
    assert any(episode.success for episode in played) or task == "entertainment"
    for episode in played:
        told = episode.end.info["episode"]
        assert episode.discounted_return == pytest.approx(told["r"], abs=1e-12)
        assert episode.primitive_steps == told["l"]


def test_glams_agent_in_a_household_task(tiny, tmp_path):
    """Trains, is tested at home and in the other task, shown and exported, all from one checkpoint."""
    agent = "twosome_food_preparation,glam_agent"
    config = make(agent, *tiny)
    paths = ExperimentPaths.of(config)
    train(config)
    log = pd.read_csv(paths.logs / "log.csv")
    assert log.frames.tolist() == [32, 64]
    assert (log.entropy > 0).all()
    assert not (paths.logs / "distrib.csv").exists()  # GLAM's probe prompts are not this environment's
    crossed = make(f"{agent},crossover_entertainment", *tiny)
    for tested in (config, crossed):
        run_tests(tested)
        folder = paths.test_folder(tested.rl.name_environment) / "episodes"
        facts = json.loads((folder / "no_modification_test.json").read_text())
        episodes = pd.read_csv(folder / "no_modification_test.csv")
        assert (facts["agent"], facts["checkpoint_update"], facts["results"]["episodes"]) == ("trained", 2, 5)
        assert (episodes.primitive_steps == episodes.frames).all()
        assert episodes.frames.max() <= 12
    assert {path.name for path in (paths.logs / "test").iterdir() if path.is_dir()} == {FOOD, ENTERTAINMENT}
    run_tests(make(f"{agent},crossover_entertainment,zero_shot", *tiny))
    assert (folder / "no_modification_test_zero_shot.csv").exists()

    shown = make(f"{agent},crossover_entertainment", *tiny, "rl_script_args.shown_episodes=[0,1]")
    show_episodes(shown)
    page = page_path(shown, paths, "no_modification_test").read_text()
    assert "walk to the living room" in page
    run_tests(make(agent, *tiny, "rl_script_args.get_example_trajectories=true", "rl_script_args.num_steps=30"))
    prompts, actions = (
        np.load(paths.test_folder(FOOD) / f"trajectories_{kind}_0.npy") for kind in ("prompts", "actions")
    )
    assert prompts.shape == actions.shape == (30,)
    assert all(re.match("(walk|grab|put|open|close) ", action) for action in actions)
    assert len(set(prompts)) > 1


@pytest.mark.parametrize("task", TASKS)
def test_the_random_policy_needs_no_model(task, tiny):
    config = make(f"twosome_{task},random", *tiny[1:])
    run_tests(config)
    folder = ExperimentPaths.of(config).test_folder(config.rl.name_environment)
    assert json.loads((folder / "episodes/no_modification_test.json").read_text())["agent"] == "random"
