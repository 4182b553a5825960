"""A test that changes no prompt has the result of the plain test: the log, its files and the tables say so."""

import dataclasses
import json

import gymnasium as gym
import pandas as pd
import pytest

from experiments import test_results as script
from experiments.agents.random_agent import RandomAgent
from experiments.environments import check_environment
from experiments.evaluation import evaluate, remarks
from experiments.experiment_paths import ExperimentPaths
from experiments.playing import play_episodes
from experiments.post_training_tests import run_tests
from experiments.show_episodes import show_episodes
from experiments.substitutions import TESTS
from tests.experiments.conftest import make_config
from tests.experiments.fabricated_runs import MIXED, configuration, outcomes, write_test
from tests.experiments.test_viewer import page_of

PLAIN = "no_modification_test"
RANDOM = "rl_script_args.random_agent=true"


def of_level(level, *tests):
    return [RANDOM, f"rl_script_args.name_environment={level}", f"rl_script_args.tests=[{','.join(tests)}]"]


def shares(config):
    """Of every test, the share of prompts that it changed, by its json; its csv says the same."""
    folder = ExperimentPaths.of(config).test_folder(config.rl.name_environment) / "episodes"
    found = {}
    for path in folder.glob("*.json"):
        found[path.stem] = json.loads(path.read_text())["results"]["changed_prompts_share"]
        episodes = pd.read_csv(path.with_suffix(".csv"))
        assert found[path.stem] == episodes.changed_prompts.sum() / episodes.frames.sum()
    return found


def told_of(caplog):
    """Of which tests a line says that they changed nothing."""
    return {text.partition(":")[0] for text in caplog.messages if "prompts was changed" in text}


# By hand: "avoid the lava and get to the green goal square", no key, ball or box, and a green goal in the mission.
LAVA = {
    PLAIN: 0, "other_name_same_categories": 0, "no_meaning_nouns": 0, "other_goal_test": 0, "adj_synonym": 1,
    "no_meaning_adj": 1, "no_meaning_words": 1, "change_intro_first_personne_speaker": 1,
    "change_intro_first_personne_agent": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("level", "language", "expected"),
    [
        ("MiniGrid-LavaCrossingS9N1-v0", "english", LAVA),
        # every mission names an object with its colour, and every room has others
        ("BabyAI-GoToLocal-v0", "english", {test: test != PLAIN for test in TESTS}),
        ("BabyAI-GoToFrench-v0", "french", {test: test != PLAIN for test in TESTS}),
    ],
)
def test_a_test_says_whether_it_changed_a_prompt(small, caplog, level, language, expected):
    config = make_config([*small, *of_level(level, *TESTS), f"rl_script_args.language={language}"])
    run_tests(config)
    assert shares(config) == expected
    assert told_of(caplog) == {test for test, share in expected.items() if not share} - {PLAIN}
    for test in told_of(caplog):
        assert (
            f"{test}: none of the 36 prompts was changed, so that the result is the one without this test"
            in caplog.text
        )


def test_a_share_is_only_recorded(small, caplog):
    """Balls are in sight at times; the mission names none."""
    level = ["MiniGrid-Dynamic-Obstacles-16x16-v0", "other_name_same_categories"]
    config = make_config([*small, *of_level(*level), "rl_script_args.nbr_obs=1"])
    run_tests(config)
    assert 0 < shares(config)["other_name_same_categories"] < 1
    assert not told_of(caplog)


@pytest.mark.parametrize(("first", "share"), [("rotate_left", 1), ("turn_left", 0)])
def test_renamed_actions(small, caplog, first, share):
    names = f"[{first},turn_right,go_forward,pick_up,drop,toggle]"
    renamed = ["rl_script_args.modified_action_space=true", f"rl_script_args.new_action_space={names}"]
    config = make_config([*small, *of_level("BabyAI-GoToLocal-v0", PLAIN, "no_meaning_words"), *renamed])
    run_tests(config)
    assert shares(config) == {f"{PLAIN}_newactions": share, "no_meaning_words_newactions": 1}
    assert told_of(caplog) == ({PLAIN} if not share else set())


def test_prompts_that_an_environment_writes(small, caplog):
    """VirtualHome's have none of the words; one with a mission beside its prompt does not read the other goal."""
    kitchen = ["rl_script_args.prompter=environment", "rl_script_args.max_episode_steps=3"]
    config = make_config([*small, *of_level("VirtualHomeText-FoodPreparation-v0", "adj_synonym"), *kitchen])
    run_tests(config)
    assert (shares(config), told_of(caplog)) == ({"adj_synonym": 0}, {"adj_synonym"})

    class Own(gym.Wrapper):
        """Writes a prompt of its own."""

        def reset(self, **kwargs):
            observation, info = self.env.reset(**kwargs)
            return observation, {**info, "prompt": "Pick an action:"}

        def step(self, action):
            *rest, info = self.env.step(action)
            return *rest, {**info, "prompt": "Pick an action:"}

    rl = make_config([*small, *of_level("BabyAI-GoToLocal-v0", "other_goal_test"), *kitchen]).rl
    episodes = play_episodes(rl, RandomAgent(), range(3), "other_goal_test", wrapper=Own)
    assert remarks(rl, "other_goal_test", episodes)[0].startswith("none of the 9 prompts was changed")


def test_symbolic_ppo_reads_the_mission_alone(symbolic):
    """The words before the goal are nothing to it, and neither are names of actions."""
    level = ["rl_script_args.name_environment=BabyAI-GoToLocal-v0", "rl_script_args.max_episode_steps=5"]
    names = ["rl_script_args.modified_action_space=true", "rl_script_args.new_action_space=[a,b,c,d,e,f]"]
    rl = make_config([*symbolic, *level, *names, "rl_script_args.symbolic_ppo=true"]).rl
    check_environment(rl)
    changed = {test: any(e.changed_prompts for e in evaluate(rl, RandomAgent(), test)) for test in TESTS}
    assert [test for test, any_prompt in changed.items() if not any_prompt] == [
        PLAIN, "change_intro_first_personne_speaker", "change_intro_first_personne_agent"
    ]  # fmt: skip


def test_a_page_says_so_too(small, caplog):
    level = of_level("MiniGrid-LavaCrossingS9N1-v0", "no_meaning_nouns", "adj_synonym")
    config = make_config([*small, *level, "rl_script_args.shown_episodes=[0]"])
    show_episodes(config)
    assert page_of(config, "no_meaning_nouns").data["facts"]["note"].startswith("none of the 6 prompts was changed")
    assert "note" not in page_of(config, "adj_synonym").data["facts"]
    assert told_of(caplog) == {"no_meaning_nouns"}


def test_an_interrupted_test_keeps_its_counts(small):
    rl = make_config([*small, *of_level("BabyAI-GoToLocal-v0", "adj_synonym")]).rl

    class Kept:
        rows = None

        def read(self):
            return json.loads(json.dumps(self.rows))

        def write(self, rows):
            self.rows = rows

    kept = Kept()
    episodes = evaluate(rl, RandomAgent(), "adj_synonym", kept)
    again = evaluate(dataclasses.replace(rl), None, "adj_synonym", kept)
    assert again == episodes
    assert sum(episode.changed_prompts for episode in again) == 36


@pytest.fixture
def tested(tmp_path):
    """Two seeds of the LLM and the bot: other nouns changed nothing, invented ones did; the bot gave up 3 of 8."""
    logs = tmp_path / "logs"
    for seed in (1, 2):
        llm, bot = configuration(seed), configuration(seed, n_llm=0, bot=True, name_model="bot")
        for test, changed in ((PLAIN, 0), ("other_name_same_categories", 0), ("no_meaning_words", 20)):
            write_test(logs / f"llm_seed_{seed}", llm, "zero-shot", outcomes(4, 8), test=test, changed=changed)
        write_test(logs / f"bot_seed_{seed}", bot, "bot", outcomes(5, 8), gave_up=3, changed=0)
    return logs


def test_the_tables_mark_it(tested, tmp_path, capsys):
    output = tmp_path / "out"
    script.main(["--logs", str(tested), "--output", str(output), "--training-level", MIXED])
    capsys.readouterr()
    results = pd.read_csv(output / "results.csv", keep_default_na=False)
    notes = {(row.agent, row.test): row.note for row in results.itertuples()}
    told = {("zero-shot", "other name same categories"): "no prompt changed",
            ("bot", "no modification"): "the bot gave up in 6 of 16"}  # fmt: skip
    assert {key: note for key, note in notes.items() if note} == told
    table = pd.read_csv(output / "generalisation.csv", keep_default_na=False)
    notes = {(row.agent, row.test): row.note for row in table.itertuples() if row.note}
    assert notes == {("LLM zero-shot", "other nouns"): "no prompt changed",
                     ("bot", "no change"): "the bot gave up in 6 of 16"}  # fmt: skip
    lines = (output / "generalisation.md").read_text().splitlines()
    [marked] = [line for line in lines if "no prompt changed" in line]
    assert marked.startswith("| other nouns ")
    assert sum("the bot gave up in 6 of 16" in line for line in lines) == 1
    tasks = (output / "tasks.md").read_text()
    assert tasks.count(", no prompt changed") == 5  # of every kind of task
    # of 5 kinds in turn episodes 5 to 7 failed: goto, pickup and open, each with 2 of the 8 episodes of a seed
    assert tasks.count("the bot gave up in 2 of 4") == 3


def test_tables_without_a_note_have_no_column_of_notes(tmp_path, capsys):
    for test in (PLAIN, "adj_synonym"):
        write_test(tmp_path / "logs" / "llm_seed_1", configuration(1), "trained", outcomes(4, 8), test=test)
    for test in (PLAIN, "other_name_same_categories"):  # whose files do not tell
        write_test(tmp_path / "logs" / "old_seed_1", configuration(1), "trained", outcomes(4, 8), test=test, older=True)
    script.main(["--logs", str(tmp_path / "logs"), "--output", str(tmp_path / "out"), "--figures"])
    capsys.readouterr()
    assert "note" not in pd.read_csv(tmp_path / "out" / "results.csv").columns
    assert "no prompt" not in (tmp_path / "out" / "generalisation.md").read_text()
