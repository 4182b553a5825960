"""Episodes that minigrid's bot cannot plan end there, without an action in its name, and are counted and reported."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from minigrid.utils.baby_ai_bot import BabyAIBot

from experiments import trajectories
from experiments.agents.bot import BotAgent
from experiments.environments import check_environment
from experiments.errors import UserError
from experiments.evaluation import evaluate
from experiments.experiment_paths import ExperimentPaths
from experiments.make_tiny_llm import make_tiny_llm
from experiments.playing import play_episodes
from experiments.post_training_tests import run_tests
from experiments.show_episodes import show_episodes
from experiments.tiny_llm.cloning import FIRST_EPISODE, bot_demonstrations
from tests.experiments.conftest import make_config
from tests.experiments.test_viewer import page_of

TEST = "no_modification_test"
EXPORT = ["rl_script_args.get_example_trajectories=true", "rl_script_args.num_steps=137"]


def of_level(level, limit="null", episodes=6):
    return [
        f"rl_script_args.name_environment={level}",
        f"rl_script_args.max_episode_steps={limit}",
        f"rl_script_args.number_episodes={episodes}",
        "rl_script_args.bot=true",
    ]


def files(config):
    folder = ExperimentPaths.of(config).test_folder(config.rl.name_environment)
    return folder, sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def balls_are_beyond_it(monkeypatch):
    """The bot gives up at the third decision of missions that end in "ball"."""
    original = BabyAIBot.replan

    def replan(self, *played):
        self.asked = getattr(self, "asked", 0) + 1
        if self.asked == 3 and self.mission.unwrapped.mission.endswith("ball"):
            raise AssertionError
        return original(self, *played)

    monkeypatch.setattr(BabyAIBot, "replan", replan)


@pytest.mark.parametrize("backend", ["sync", "process"])
@pytest.mark.parametrize("level", ["KeyInBox", "PutNextS5N2Carrying"])
def test_a_test_tells_in_how_many_episodes_it_gave_up(small, caplog, level, backend):
    config = make_config([*small, *of_level(f"BabyAI-{level}-v0"), f"rl_script_args.vector_backend={backend}"])
    run_tests(config)
    assert f"{TEST}: the bot gave up in 6 of 6 episodes, which end there and count as failures" in caplog.messages
    folder, _ = files(config)
    episodes = pd.read_csv(folder / "episodes" / f"{TEST}.csv")
    assert episodes.gave_up.tolist() == [1] * 6
    assert episodes.success.sum() == episodes.episode_return.sum() == 0
    assert episodes.seed.tolist() == [1_000_000_000 + k for k in range(6)]  # those of every other agent
    # KeyInBox: some at the reset, where nothing is played
    assert (0 in episodes.frames.tolist()) == (level == "KeyInBox")
    assert (episodes.primitive_steps == episodes.frames).all()
    results = json.loads((folder / "episodes" / f"{TEST}.json").read_text())["results"]
    assert (results["gave_up"], results["success_rate"], results["episodes"]) == (6, 0, 6)


def test_a_bot_that_gave_up_is_not_asked_again(small, monkeypatch):
    """In UnlockToUnlock minigrid's bot pushes subgoals without end; it solves some of the episodes."""
    asked, original = [], BabyAIBot.replan
    monkeypatch.setattr(BabyAIBot, "replan", lambda self, *played: asked.append(self) or original(self, *played))
    rl = make_config([*small, *of_level("BabyAI-UnlockToUnlock-v0", episodes=8), "rl_script_args.number_envs=1"]).rl
    check_environment(rl)
    episodes = evaluate(rl, BotAgent(), TEST)
    assert {(episode.gave_up, episode.success) for episode in episodes} == {(True, False), (False, True)}
    # once in every state but the one in which an episode has ended, where nobody is asked; the last reset is of none
    decisions = [episode.frames + episode.gave_up for episode in episodes]
    assert [asked.count(bot) for bot in dict.fromkeys(asked)][:8] == decisions


def test_whatever_its_planning_runs_into_is_giving_up(small, monkeypatch):
    for error in (TypeError("no place to drop it"), IndexError("beyond the grid")):

        def fail(self, *played, error=error):
            raise error

        monkeypatch.setattr(BabyAIBot, "replan", fail)
        rl = make_config([*small, "rl_script_args.bot=true"]).rl
        assert all(episode.gave_up for episode in play_episodes(rl, BotAgent(), range(3)))


@pytest.mark.usefixtures("balls_are_beyond_it")
def test_an_export_leaves_out_episodes_that_the_bot_gave_up(small, caplog, monkeypatch):
    caplog.set_level("INFO")
    monkeypatch.setattr(trajectories, "EPISODES_AT_ONCE", 10)
    arrays = []
    for envs in (1, 4):
        config = make_config([*small, *of_level("BabyAI-GoToLocal-v0"), *EXPORT, f"rl_script_args.number_envs={envs}"])
        run_tests(config)
        folder, _ = files(config)
        arrays.append([np.load(folder / f"bot_trajectories_{kind}_0.npy") for kind in ("prompts", "actions")])
    (prompts, actions), (prompts_again, actions_again) = arrays
    assert (prompts == prompts_again).all()
    assert (actions == actions_again).all()
    assert len(prompts) == len(actions) == 137
    starts = [i for i, prompt in enumerate(prompts) if "Observation 1" not in prompt]
    lengths = np.diff([*starts, len(prompts)])
    goals = [prompts[i].partition("Goal of the agent: ")[2].partition(" \n")[0] for i in starts]
    assert {goal.split()[-1] for goal in goals} >= {"key", "box"}
    assert all(length < 3 for goal, length in zip(goals, lengths, strict=True) if goal.endswith("ball"))
    record = json.loads((folder / "bot_trajectories.json").read_text())
    assert (record["transitions"], record["episodes"] % 10) == (137, 0)
    played = play_episodes(config.rl, BotAgent(), range(250_000_000, 250_000_000 + record["episodes"]))
    assert record["gave_up"] == sum(not episode.success for episode in played) > 0
    told = f"the bot gave up in {record['gave_up']} of {record['episodes']} episodes, which are left out"
    assert caplog.messages.count(told) == 2


def interrupted(write, count):
    """`write`, until it has been called so many times."""
    left = iter(range(count))

    def write_or_stop(path, array):
        if next(left, None) is None:
            raise KeyboardInterrupt
        write(path, array)

    return write_or_stop


@pytest.mark.usefixtures("balls_are_beyond_it")
def test_an_interrupted_export_counts_what_an_uninterrupted_one_does(small, tmp_path, monkeypatch):
    monkeypatch.setattr(trajectories, "EPISODES_AT_ONCE", 10)
    monkeypatch.setattr(trajectories, "TRANSITIONS_PER_FILE", 30)
    command = [*small, *of_level("BabyAI-GoToLocal-v0"), *EXPORT]
    straight = make_config([*command, f"rl_script_args.saving_path_logs={tmp_path / 'straight'}"])
    run_tests(straight)
    config, write = make_config(command), trajectories.save_array
    for after in (3, 4, 3):  # arrays; two make a file
        monkeypatch.setattr(trajectories, "save_array", interrupted(write, after))
        with pytest.raises(KeyboardInterrupt):
            run_tests(config)
    monkeypatch.setattr(trajectories, "save_array", write)
    run_tests(config)
    records = [json.loads((files(c)[0] / "bot_trajectories.json").read_text()) for c in (straight, config)]
    for record in records:
        record.pop("config")
    assert records[0] == records[1]
    assert records[0]["gave_up"] > 0
    assert files(straight)[1] == files(config)[1]


@pytest.mark.parametrize("level", ["KeyInBox", "PutNextS5N2Carrying"])
def test_an_export_of_nothing_ends_in_one_line_and_leaves_no_file(small, level):
    config = make_config([*small, *of_level(f"BabyAI-{level}-v0"), *EXPORT])
    with pytest.raises(UserError, match=rf"name_environment=BabyAI-{level}-v0: the bot gave up in all of 100 episodes"):
        run_tests(config)
    assert files(config)[1] == []


@pytest.mark.parametrize("level", ["MiniGrid-KeyCorridorS3R3-v0", "MiniGrid-Empty-5x5-v0"])
def test_a_level_without_babyais_instructions_has_no_bot(small, tmp_path, level):
    config = make_config([*small, *of_level(level)])
    for job in (run_tests, show_episodes):
        with pytest.raises(UserError, match=f"bot=True: the bot plays BabyAI's levels, so that it .* had in {level}$"):
            job(config)
    own = [*small, *of_level(level), "rl_script_args.bot=false", f"lamorel_args.llm_args.model_path={tmp_path / 'new'}"]
    with pytest.raises(UserError, match=rf"clone_steps=25: the bot to imitate .*, set it to 0 for {level}$"):
        make_tiny_llm(make_config(own, model_exists=False))


@pytest.mark.usefixtures("balls_are_beyond_it")
def test_a_warm_start_imitates_no_episode_that_the_bot_gave_up(small, caplog):
    rl = make_config([*small, *of_level("BabyAI-GoToLocal-v0")]).rl
    pairs = bot_demonstrations(rl, 10)
    played = play_episodes(rl, BotAgent(), range(FIRST_EPISODE, FIRST_EPISODE + 10))
    assert len(pairs) == sum(episode.frames for episode in played if not episode.gave_up)
    gave_up = sum(episode.gave_up for episode in played)
    assert caplog.messages == [f"the bot gave up in {gave_up} of 10 episodes, which are left out"]
    assert 0 < gave_up < 10


def test_a_warm_start_without_demonstrations_is_refused(small, tmp_path):
    paths = ["rl_script_args.tiny_llm.clone_episodes=3", f"lamorel_args.llm_args.model_path={tmp_path / 'm' / 'new'}"]
    config = make_config(
        [*small, *of_level("BabyAI-KeyInBox-v0"), "rl_script_args.bot=false", *paths], model_exists=False
    )
    with pytest.raises(
        UserError, match=r"clone_episodes=3: the bot to imitate gave up in all .*clone_steps=0 for Baby"
    ):
        make_tiny_llm(config)
    assert list((tmp_path / "m").iterdir()) == []


def test_a_page_shows_where_the_bot_gave_up(small):
    shown = "rl_script_args.shown_episodes=[0,1,2,3,4,5]"
    config = make_config([*small, *of_level("BabyAI-KeyInBox-v0"), shown])
    show_episodes(config)
    page = page_of(config).data
    played = evaluate(dataclasses.replace(config.rl, number_episodes=6), BotAgent(), TEST)
    assert page["facts"]["note"].startswith("the bot gave up in 6 of 6 episodes")
    assert [len(episode["steps"]) for episode in page["episodes"]] == [episode.frames for episode in played]
    for episode in page["episodes"]:
        assert episode["gave_up"]
        assert episode["mission"]
        prompt = page["strings"][episode["end"]["prompt"]]
        # of an episode that was given up at its reset, the end shows the reset: nothing was played
        assert ("Observation 1" in prompt) == bool(episode["steps"])
