"""Post-training generalisation tests: word substitutions, renamed actions, French, tasks, LoRA checkpoints."""

import json
from contextlib import closing

import numpy as np
import pandas as pd
import pytest

from babyai_text import task_of
from experiments.agents.base_agent import View
from experiments.agents.random_agent import RandomAgent
from experiments.configuration import Config
from experiments.environments import check_environment
from experiments.evaluation import evaluate
from experiments.experiment_paths import ExperimentPaths
from experiments.playing import play_episodes
from experiments.post_training_tests import run_tests
from experiments.probe_prompts import probe_states
from experiments.substitutions import SUBSTITUTIONS, TESTS, rewording
from experiments.tested_agent import make_agent
from experiments.train_language_agent import train
from tests.experiments.conftest import make_config

WORDS = [test for test in TESTS if test in SUBSTITUTIONS]
PROMPT = (
    "Possible action of the agent: turn left, pick up \n Goal of the agent: put the red ball next to a green box "
    "\n Observation 0: You carry a grey key, You see a wall 2 steps left, You see a open red door 1 step forward, "
    "\n Action 0: "
)


# Expected texts are written out by hand from the paper's list of substitutions.
@pytest.mark.parametrize(
    ("test", "old", "new"),
    [
        ("other_name_same_categories", "the red ball next to a green box", "the red table next to a green car"),
        ("other_name_same_categories", "You carry a grey key", "You carry a grey chair"),
        ("adj_synonym", "the red ball next to a green box", "the vermilion ball next to a jade box"),
        ("adj_synonym", "a grey key", "a silver key"),
        ("adj_synonym", "a open red door", "a open vermilion door"),
        ("no_meaning_nouns", "the red ball next to a green box", "the red xolo next to a green afze"),
        ("no_meaning_adj", "the red ball next to a green box", "the faze ball next to a jatu box"),
        ("no_meaning_words", "the red ball next to a green box", "the faze xolo next to a jatu afze"),
        ("no_meaning_words", "a grey key", "a sil dax"),
        ("change_intro_first_personne_speaker", "Goal of the agent: put", "I would like the agent to: put"),
        ("change_intro_first_personne_agent", "Goal of the agent: put", "You have to: put"),
    ],
)
def test_substitutions_in_english(test, old, new):
    assert old in PROMPT
    reworded = rewording(test, "english")(PROMPT)
    assert new in reworded
    assert reworded.startswith("Possible action of the agent: turn left, pick up \n ")
    assert "You see a wall 2 steps left" in reworded  # walls and doors keep their names
    assert "door 1 step forward" in reworded


def test_all_colours():
    words = "red green blue purple yellow grey"
    assert rewording("adj_synonym", "english")(words) == "vermilion jade cyan violet golden silver"
    assert rewording("no_meaning_adj", "english")(words) == "faze jatu croh vurst gakul sil"
    french = "rouge verte bleue violette jaune grise"
    assert rewording("adj_synonym", "french")(french) == "vermilion jade cyan mauve dorée argent"
    assert rewording("no_meaning_words", "french")(f"{french} clef balle boîte porte") == (
        "faze jatu croh vurst gakul sil dax xolo afze porte"
    )


def test_whole_words_only_and_in_one_pass(monkeypatch):
    """A word inside another is left, and what was put in is not substituted again (released defect 32)."""
    nouns = rewording("other_name_same_categories", "english")
    assert nouns("keys keyhole ball, boxing ball-box mailbox") == "keys keyhole table, boxing table-car mailbox"
    assert rewording("other_name_same_categories", "french")("aller à la boîte rouge") == "aller à la voiture rouge"
    chain = {"english": {"red": "green", "green": "red"}}  # with str.replace one after the other: "red red"
    monkeypatch.setitem(SUBSTITUTIONS, "adj_synonym", chain)
    assert rewording("adj_synonym", "english")("red green") == "green red"


def test_french_headers():
    prompt = "Actions possibles pour l'agent: attraper \n But de l'agent: attraper la balle rouge"
    speaker, agent = (rewording(f"change_intro_first_personne_{who}", "french")(prompt) for who in ("speaker", "agent"))
    assert speaker == "Actions possibles pour l'agent: attraper \n Je veux que l'agent fasse: attraper la balle rouge"
    assert agent == "Actions possibles pour l'agent: attraper \n Tu dois faire: attraper la balle rouge"


@pytest.mark.parametrize(
    ("mission", "task"),
    [
        ("go to the red ball", "goto"),
        ("pick up a key", "pickup"),
        ("open the door", "open"),
        ("put the red ball next to a box", "putnext"),
        ("pick up a key, then go to the red ball", "pick up seq go to"),
        ("go to the red ball after you pick up a key", "pick up seq go to"),
        ("pick up a key after you pick up a box", "pick up seq pick up"),
        ("open a door and pick up a key, then go to a box", "open and pick up seq go to"),
        ("get a box", "other"),
    ],
)
def test_task_of(mission, task):
    assert task_of(mission) == task


@pytest.fixture
def mixed(small):
    return [
        *small,
        "rl_script_args.name_environment=BabyAI-MixedTrainLocal-v0",
        "rl_script_args.number_episodes=10",
        "rl_script_args.max_episode_steps=4",
    ]


def results(config: Config, stem: str):
    """The json and the csv of a test."""
    folder = ExperimentPaths.of(config).test_folder(config.rl.name_environment) / "episodes"
    return json.loads((folder / f"{stem}.json").read_text()), pd.read_csv(folder / f"{stem}.csv")


@pytest.mark.parametrize("language", ["english", "french"])
def test_every_wording_plays_the_same_episodes(mixed, language):
    """Tests are paired: each starts from the same seeds, and each file holds that test's episodes only."""
    config = make_config([*mixed, f"rl_script_args.tests=[{','.join(TESTS)}]", f"rl_script_args.language={language}"])
    run_tests(config)
    seeds = {}
    for test in TESTS:
        facts, episodes = results(config, f"{test}_zero_shot")
        assert len(episodes) == 10
        assert facts["test"] == test
        seeds[test] = episodes.seed.tolist()
        if test in WORDS:  # the environment's mission, not its wording
            assert episodes.mission.tolist() == results(config, "no_modification_test_zero_shot")[1].mission.tolist()
    assert all(s == seeds["no_modification_test"] for s in seeds.values())


class Reader:
    """Remembers what it is shown; plays the first action."""

    name = "reader"
    env_wrapper = None

    def __init__(self):
        self.views = []

    def begin(self, rl, test):
        pass

    def decide(self, views):
        self.views += views
        return RandomAgent().decide(views)

    def close(self):
        pass


def test_what_the_agent_reads(mixed):
    config = make_config([*mixed, "rl_script_args.number_envs=3"])
    check_environment(config.rl)
    reader = Reader()
    evaluate(config.rl, reader, "no_meaning_words")
    read = " ".join(view.text.prompt + view.mission for view in reader.views)
    assert {"faze", "xolo"} <= set(read.replace(",", "").split())
    assert not {"red", "ball", "key", "grey"} & set(read.replace(",", "").split())
    assert {view.environment for view in reader.views} == {0, 1, 2}
    assert sum(view.first for view in reader.views) == 10  # one per episode
    assert all("Observation 1" not in view.text.prompt for view in reader.views if view.first)


def test_per_task_results_stand_beside_the_totals(mixed):
    config = make_config([*mixed, "rl_script_args.bot=true", "rl_script_args.max_episode_steps=null"])
    run_tests(config)
    facts, episodes = results(config, "no_modification_test")
    assert episodes.task.nunique() > 2
    for task, group in episodes.groupby("task"):
        stored = facts["results"]["per_task"][task]
        assert stored["episodes"] == len(group)
        assert stored["success_rate"] == group.success.mean()
        assert stored["mean_return"] == pytest.approx(group.episode_return.mean())
    assert facts["results"]["success_rate"] == episodes.success.mean() == 1
    assert sum(t["episodes"] for t in facts["results"]["per_task"].values()) == facts["results"]["episodes"] == 10


def test_renamed_actions(mixed):
    """Prompt and candidates use the new names, the environment still gets the same actions."""
    new = "[rotate_left,rotate_right,move_ahead,take,release,switch]"
    config = make_config(
        [*mixed, "rl_script_args.modified_action_space=true", f"rl_script_args.new_action_space={new}"]
    )
    check_environment(config.rl)
    reader = Reader()
    evaluate(config.rl, reader, "no_modification_test")
    text = reader.views[0].text
    assert text.candidates == ["rotate left", "rotate right", "move ahead", "take", "release", "switch"]
    assert text.action_ids == [0, 1, 2, 3, 4, 5]
    assert "turn" not in text.prompt
    run_tests(config)
    assert len(results(config, "no_modification_test_newactions_zero_shot")[1]) == 10


@pytest.mark.parametrize("kind", ["goto", "pickup", "open", "putnext", "pick up seq go to"])
def test_every_task_without_distractors(small, kind):
    """`num_dists=0`, to stand beside published zero-shot results: nothing lies there but what the task needs."""
    level = ["rl_script_args.name_environment=BabyAI-MixedTrainLocal-v0", "rl_script_args.num_dists=0"]
    config = make_config([*small, *level, f"rl_script_args.task_kind={kind}", "rl_script_args.bot=true"])
    run_tests(config)
    facts, episodes = results(config, "no_modification_test")
    assert episodes.task.tolist() == [kind] * 6
    assert facts["config"]["rl_script_args"]["num_dists"] == 0


def test_a_policy_twice_gives_identical_files(mixed, tmp_path):
    files = []
    for envs in (4, 4, 1, 32):
        logs = tmp_path / str(len(files))
        config = make_config([*mixed, f"rl_script_args.saving_path_logs={logs}", f"rl_script_args.number_envs={envs}"])
        run_tests(config)
        folder = ExperimentPaths.of(config).test_folder(config.rl.name_environment)
        names = ("episodes/no_modification_test_zero_shot.csv", "return_per_episode/no_modification_test_zero_shot.npy")
        files.append([(folder / name).read_bytes() for name in names])
    assert files[0] == files[1] == files[2] == files[3]


def test_the_same_rooms_whatever_the_number_of_environments(mixed):
    """Not missions alone: the first view of every episode, which shows its room."""
    rooms = []
    for envs in (1, 4, 32):
        config = make_config([*mixed, f"rl_script_args.number_envs={envs}"])
        check_environment(config.rl)
        played = play_episodes(config.rl, RandomAgent(), range(10), with_transitions=True)
        rooms.append([np.asarray(e.transitions[0].view.observation["image"]).tolist() for e in played])
    assert rooms[0] == rooms[1] == rooms[2]


def test_transitions_tell_the_whole_episode(mixed):
    config = make_config(mixed)
    check_environment(config.rl)
    for episode in play_episodes(config.rl, RandomAgent(), range(3), with_transitions=True):
        assert len(episode.transitions) == episode.frames
        assert sum(t.reward for t in episode.transitions) == episode.episode_return
        assert [t.view.first for t in episode.transitions] == [True] + [False] * (episode.frames - 1)
        following = [*(t.view for t in episode.transitions[1:]), episode.end]
        for before, after in zip(episode.transitions, following, strict=True):
            assert f"{before.action} \n Observation" in after.text.prompt
        np.testing.assert_allclose(np.exp(episode.transitions[0].log_probs), 1 / 6)


@pytest.mark.parametrize("lora", [[], ["lamorel_args.llm_args.lora={r: 2, alpha: 4, target_modules: [q, v]}"]])
def test_the_trained_policy_is_what_is_tested(small, lora):
    """Loaded for a test, a checkpoint (LoRA adapters included) says what it said at the end of its training."""
    overrides = [*small, *lora, "rl_script_args.lr=0.03"]
    train(make_config(overrides))
    config = make_config([*overrides, "rl_script_args.zero_shot=false"])
    paths = ExperimentPaths.of(config)
    assert (paths.models / "last" / "adapter_model.safetensors").exists() == bool(lora)
    rl = config.rl
    probes = probe_states(rl.action_space, rl.nbr_obs, rl.template_test)
    views = [View(text, "", None, {}, 0, True) for text in probes]
    said = {}
    for name, policy in (("trained", config), ("zero-shot", make_config(overrides))):
        agent, update = make_agent(policy, paths)
        with closing(agent):
            said[name] = np.exp(agent.decide(views).log_probs)
        assert update == (3 if name == "trained" else None)
    at_the_end = pd.read_csv(paths.logs / "distrib.csv").query("update == 3").iloc[:, 3:].to_numpy()
    np.testing.assert_allclose(said["trained"], at_the_end, atol=1e-5)
    assert np.abs(said["zero-shot"] - at_the_end).max() > 1e-2
    run_tests(config)
    assert results(config, "no_modification_test")[0]["checkpoint_update"] == 3


def test_a_longer_export_leaves_no_files_behind(small, monkeypatch):
    monkeypatch.setattr("experiments.trajectories.TRANSITIONS_PER_FILE", 20)
    bot = [*small, "rl_script_args.bot=true", "rl_script_args.get_example_trajectories=true"]
    for steps, files in ((70, 4), (25, 2)):
        config = make_config([*bot, f"rl_script_args.num_steps={steps}"])
        run_tests(config)
        folder = ExperimentPaths.of(config).test_folder(config.rl.name_environment)
        for kind in ("prompts", "actions"):
            found = sorted(folder.glob(f"bot_trajectories_{kind}_*.npy"))
            assert [path.name for path in found] == [f"bot_trajectories_{kind}_{k}.npy" for k in range(files)]
            assert sum(len(np.load(path)) for path in found) == steps
    assert json.loads((folder / "bot_trajectories.json").read_text())["transitions"] == 25


@pytest.mark.parametrize(
    ("pretrained", "load_embedding", "heads"),
    [("true", "true", "true"), ("false", "true", "true"), ("false", "false", "true"), ("false", "true", "false")],
    ids=["AFlan", "NPAE", "NPA", "NPE"],
)
def test_variants_are_trained_resumed_and_tested(small, pretrained, load_embedding, heads):
    """Training and tests find one experiment id for each (released defect 28), and its checkpoint loads."""
    overrides = [
        *small,
        f"lamorel_args.llm_args.pretrained={pretrained}",
        f"rl_script_args.load_embedding={load_embedding}",
        f"rl_script_args.use_action_heads={heads}",
    ]
    for frames in (32, 64):
        train(make_config([*overrides, f"rl_script_args.num_steps={frames}"]))
    config = make_config([*overrides, "rl_script_args.zero_shot=false"])
    run_tests(config)
    assert results(config, "no_modification_test")[0]["checkpoint_update"] == 2
    # distrib.csv holds probabilities with action heads, too (released defect 12)
    distrib = pd.read_csv(ExperimentPaths.of(config).logs / "distrib.csv").iloc[:, 3:]
    assert distrib.shape == (2 * 11, 6)
    np.testing.assert_allclose(distrib.sum(axis=1), 1, atol=1e-5)
