"""Every script plays the levels that `babyai_text.make` accepts, whichever package registers them."""

import json
import sys

import gymnasium as gym
import pandas as pd
import pytest

from experiments.agents.random_agent import RandomAgent
from experiments.cloning.data import read_transitions
from experiments.environments import check_environment, make_envs, takes_task_kind
from experiments.errors import UserError
from experiments.experiment_paths import ExperimentPaths
from experiments.make_sentencepiece import players
from experiments.playing import play_episodes
from experiments.post_training_tests import run_tests
from experiments.results.loading import load_tests
from experiments.results.runs import find_runs
from experiments.show_episodes import page_path, show_episodes
from experiments.train_language_agent import train
from experiments.train_symbolic_ppo import train as train_symbolic
from tests.experiments.conftest import make_config

PACKAGE = "tests.experiments.own_levels"
RANDOM = "rl_script_args.random_agent=true"
MODULE_AND_ID = f"{PACKAGE}:OwnRoom-v0"


def of_level(level, packages=f"[babyai_text,{PACKAGE}]"):
    return [f"rl_script_args.name_environment={level}", f"rl_script_args.env_packages={packages}"]


def folder_of(config):
    return ExperimentPaths.of(config).test_folder(config.rl.name_environment)


@pytest.mark.parametrize(
    ("level", "packages", "folder"),
    [
        ("OwnRoom-v0", f"[babyai_text,{PACKAGE}]", "OwnRoom-v0"),
        (MODULE_AND_ID, "[]", "tests.experiments.own_levels_OwnRoom-v0"),
        ("OwnWrapped-v0", f"[{PACKAGE}]", "OwnWrapped-v0"),
    ],
)
def test_tests_exports_and_pages(small, tmp_path, level, packages, folder):
    config = make_config([*small, RANDOM, *of_level(level, packages)])
    run_tests(config)
    assert folder_of(config).name == folder
    missing = []
    [test] = load_tests(find_runs([tmp_path / "logs"], ["*"], [], missing), missing)
    assert not missing
    assert (test.level, len(test.episodes), set(test.episodes.mission)) == (level, 6, {"reach the goal"})
    export = ["rl_script_args.get_example_trajectories=true", "rl_script_args.num_steps=20"]
    run_tests(make_config([*small, RANDOM, *of_level(level, packages), *export]))
    prompts = read_transitions(folder_of(config), "trajectories", "all").prompts
    assert len(prompts) == 20
    assert all("Goal of the agent: reach the goal" in prompt for prompt in prompts)
    assert "You see a blue ball 1 step right and 2 steps forward, You see a green goal 3 steps right" in prompts[0]
    show_episodes(config)
    page = page_path(config, ExperimentPaths.of(config), "no_modification_test")
    assert page.parent == folder_of(config) / "pages"
    assert "picture" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("level", [MODULE_AND_ID, pytest.param("OwnWrapped-v0", marks=pytest.mark.slow)])
def test_trainings(small, symbolic, spm_path, level):
    one_update = "rl_script_args.num_steps=32"
    drrn = ["lamorel_args.distributed_setup_args.n_llm_processes=0", f"rl_script_args.spm_path={spm_path}"]
    jobs = (
        (train, [*small, one_update, "rl_script_args.zero_shot=false"]),
        (train, [*small, one_update, *drrn, "rl_script_args.name_model=drrn", "rl_script_args.drrn.batch_size=6"]),
        (train_symbolic, [*symbolic, one_update, "rl_script_args.symbolic_ppo=true"]),
    )
    for job, overrides in jobs:
        config = make_config([*overrides, *of_level(level)])
        job(config)
        assert pd.read_csv(ExperimentPaths.of(config).logs / "log.csv").frames.tolist() == [32]
        run_tests(config)
        facts = json.loads((folder_of(config) / "episodes" / "no_modification_test.json").read_text())
        assert facts["checkpoint_update"] == 1


@pytest.mark.parametrize("level", [MODULE_AND_ID, "OwnWrapped-v0"])
def test_worker_processes_and_every_option(small, level):
    rl = make_config([*small, *of_level(level), "+rl_script_args.environment_options.size=5"]).rl
    check_environment(rl)
    played = []
    for backend in ("sync", "process"):
        config = make_config(
            [*small, *of_level(level), f"rl_script_args.vector_backend={backend}",
             "+rl_script_args.environment_options.size=5"]
        )  # fmt: skip
        played.append(play_episodes(config.rl, RandomAgent(), range(5), with_transitions=True))
    prompts = [[t.prompt for episode in episodes for t in episode.transitions] for episodes in played]
    assert prompts[0] == prompts[1]
    assert "You see a wall 3 steps forward" in prompts[0][0]  # of five cells
    assert max(episode.frames for episode in played[0]) == 6  # max_episode_steps


def test_a_worker_process_that_inherits_nothing_imports_the_packages(small, monkeypatch):
    """As those that are not forked."""
    rl = make_config([*small, *of_level("OwnRoom-v0")]).rl
    check_environment(rl)
    with monkeypatch.context() as fresh:
        for level in [level for level in gym.registry if level.startswith("Own")]:
            fresh.delitem(gym.registry, level)
        fresh.delitem(sys.modules, PACKAGE)
        envs = make_envs(rl, seeds=[0])
        assert envs.reset()[0]["mission"] == ("reach the goal",)
        envs.close()


def test_the_kinds_of_tasks_of_a_subclass(small):
    assert takes_task_kind("BabyAI-MixedTestLocal-v0")
    assert takes_task_kind("babyai_text:BabyAI-MixedTestLocal-v0")
    assert not takes_task_kind("BabyAI-GoToFrench-v0")
    for kind, count in (("per_instance", 1), ("putnext", 1), ("per_episode", 2)):
        rl = make_config([*small, *of_level("OwnMixed-v0"), f"rl_script_args.task_kind={kind}"]).rl
        check_environment(rl)
        envs = make_envs(rl, seeds=[3])
        tasks = set()
        for _ in range(6):
            envs.reset()
            tasks.add(envs.envs[0].unwrapped.task)
        assert (len(tasks) == 1) == (count == 1)
        envs.close()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (of_level("OwnFixedRoom-v0"), "OwnFixedRoom-v0 takes no option 'max_steps': set .*max_episode_steps=null$"),
        ([*of_level("OwnRoom-v0"), "rl_script_args.num_dists=3"], "takes no option 'num_dists': set .*num_dists=8$"),
        ([*of_level("OwnRoom-v0"), "rl_script_args.task_kind=goto"], "'task_kind': set .*task_kind=per_episode$"),
        (of_level("OwnRom-v0"), "is not a registered level: did you mean OwnRoom-v0"),
        (of_level(f"{PACKAGE}:OwnRom-v0"), "is not a registered level: did you mean OwnRoom-v0"),
        (of_level("nowhere:OwnRoom-v0"), "No module named 'nowhere', install it or put its folder on PYTHONPATH"),
        (of_level("OwnRoom-v0", "[babyai_text,nowhere]"), "env_packages: package 'nowhere' is not installed.* PYTHON"),
        ([*of_level("OwnRoom-v0"), "rl_script_args.bot=true"], "the bot plays BabyAI's levels"),
        (of_level("LunarLander-v3"), r'Box2D is not installed, .*gymnasium\[box2d\]'),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_one_line(small, overrides, message):
    with pytest.raises(UserError, match=message) as raised:
        check_environment(make_config([*small, *overrides]).rl)
    assert "\n" not in str(raised.value)


def test_a_level_that_lacks_its_extra_names_it(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio", None)
    monkeypatch.setitem(sys.modules, "imageio.v2", None)
    config = make_config([*small, *of_level("MiniGrid-WFC-MazeSimple-v0"), RANDOM])
    for job in (run_tests, show_episodes, train_symbolic):
        with pytest.raises(UserError, match=r"name_environment=MiniGrid-WFC-MazeSimple-v0: .*minigrid\[wfc\]"):
            job(config)
    assert not folder_of(config).exists()


def test_the_vocabulary_of_drrn_takes_options_of_the_own_level_only(small, spm_path):
    options = "+rl_script_args.environment_options.size=5"
    rl = make_config([*small, *of_level("OwnRoom-v0"), options, f"rl_script_args.spm_path={spm_path}"]).rl
    (own, _), *others = players(rl)
    assert own.environment_options == {"size": 5}
    assert all(other.environment_options == {} for other, _ in others)
