"""GLAM's and TWOSOME's agents in each other's environments, by configuration alone, with a tiny decoder-only LLM."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from experiments.agents.random_agent import RandomAgent
from experiments.environments import check_environment
from experiments.errors import UserError
from experiments.experiment_paths import ExperimentPaths
from experiments.playing import play_episodes
from experiments.post_training_tests import run_tests
from experiments.show_episodes import page_path, show_episodes
from experiments.train_language_agent import train
from tests.experiments.conftest import make_config

FOOD, ENTERTAINMENT = "VirtualHomeText-FoodPreparation-v0", "VirtualHomeText-Entertainment-v0"
TASKS = ("tomato_salad", "tomato_lettuce_salad", "food_preparation", "entertainment")


def make(experiment, *overrides):
    """The configuration, its environment's package imported as a script does."""
    config = make_config([f"experiment=[{experiment}]", *overrides])
    check_environment(config.rl)
    return config


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """An untrained model that has every word of these tasks."""
    from experiments.tiny_llm.models import save_tiny_model
    from experiments.tiny_llm.vocabulary import word_level_tokenizer, written_texts

    texts = set()
    for task in TASKS:
        texts |= written_texts(make(f"twosome_{task},random", "rl_script_args.number_envs=1").rl, 10)
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
    played = play_episodes(rl, RandomAgent(), range(30), with_transitions=True)
    assert len({episode.discounted_return for episode in played}) > 1 or task == "entertainment"
    for episode in played:
        told = episode.end.info
        assert episode.discounted_return == pytest.approx(told["discounted_return"], abs=1e-12)
        assert episode.primitive_steps == told["primitive_steps"]


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


@pytest.mark.parametrize("agent", ["", ",glam_agent"], ids=["twosome", "glam"])
def test_both_agents_in_overcooked(agent, tiny):
    """Macro-actions of several steps; the overlay's own schedule."""
    config = make(f"twosome_tomato_salad{agent}", *tiny, "rl_script_args.frames_per_proc=32")
    assert config.rl.method == ("glam" if agent else "twosome")
    train(config)
    run_tests(config)
    paths = ExperimentPaths.of(config)
    assert pd.read_csv(paths.logs / "log.csv").frames.tolist() == [128]
    episodes = pd.read_csv(paths.test_folder(config.rl.name_environment) / "episodes/no_modification_test.csv")
    assert (episodes.primitive_steps > episodes.frames).any()
    assert (episodes.primitive_steps >= 12).all()  # the limit, which the last macro-action may pass


def test_twosomes_agent_in_babyai_text(tiny, tiny_models, tmp_path):
    """Its adapters learn on GLAM's prompts, the probe prompts follow it, and it is tested before and after."""
    experiment = "actions_6,twosome_agent"
    here = [
        *tiny[:6],
        f"lamorel_args.llm_args.model_path={tiny_models / 'llama'}",
        "rl_script_args.number_envs=4",
        "rl_script_args.max_episode_steps=8",
        "rl_script_args.twosome.actor_minibatches=8",
        "rl_script_args.twosome.gradient_accumulation=2",
        f"rl_script_args.saving_path_logs={tmp_path / 'logs'}",
        f"rl_script_args.saving_path_model={tmp_path / 'models'}",
    ]
    config = make(experiment, *here)
    train(config)
    paths = ExperimentPaths.of(config)
    log = pd.read_csv(paths.logs / "log.csv")
    assert log.frames.tolist() == [32, 64]
    probes = pd.read_csv(paths.logs / "distrib.csv")
    assert (paths.models / "last" / "adapter_config.json").exists()
    run_tests(config)
    run_tests(make(f"{experiment},zero_shot", *here))
    folder = paths.test_folder("BabyAI-GoToLocal-v0") / "episodes"
    trained, untrained = (
        json.loads((folder / f"no_modification_test{end}.json").read_text()) for end in ("", "_zero_shot")
    )
    assert (trained["checkpoint_update"], untrained["checkpoint_update"]) == (2, None)
    columns = [name.replace(" ", "_") for name in config.rl.action_space]
    assert np.allclose(probes[columns].sum(axis=1), 1, atol=1e-5)
    assert (probes[columns] > 0).all(axis=None)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["random_agent=false", "bot=true"],
            "bot=True: the bot plays BabyAI's levels, so that it cannot be had in Over",
        ),
        (["tests=[other_goal_test]"], "tests=.*: other_goal_test needs a mission"),
        (["modified_action_space=true", "new_action_space=[act]"], "modified_action_space=True: the environment names"),
        (["use_action_heads=true"], "use_action_heads=True: it offers other actions in other states"),
        (["language=french"], "language=french: with prompter=environment the level writes"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_begins(overrides, message):
    with pytest.raises(UserError, match=f"^rl_script_args.{message}"):
        make("twosome_tomato_salad,random", *(f"rl_script_args.{override}" for override in overrides))
