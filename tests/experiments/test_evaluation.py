"""Test episodes are fixed beforehand, whatever plays them and in how many environments."""

import dataclasses
import json

import numpy as np
import pytest

import babyai_text
from experiments.agents.bot import BotAgent
from experiments.agents.random_agent import RandomAgent
from experiments.checkpoint import TRAINER, read_trainer
from experiments.environments import check_environment
from experiments.errors import UserError
from experiments.evaluation import evaluate, summary, write_results
from experiments.experiment_paths import ExperimentPaths
from experiments.other_goal import OtherGoal, other_mission
from experiments.playing import EpisodeResult
from experiments.post_training_tests import run_tests
from experiments.results.intervals import bootstrap_mean, wilson
from experiments.results.loading import load_tests
from experiments.results.runs import find_runs
from experiments.results.tables import results_table
from experiments.tested_agent import load_settled, make_agent
from experiments.train_language_agent import train
from tests.experiments.conftest import make_config

TEST = "no_modification_test"


@pytest.fixture
def rl(small):
    config = make_config(
        [
            *small,
            "rl_script_args.name_environment=BabyAI-MixedTrainLocal-v0",
            "rl_script_args.max_episode_steps=null",
            "rl_script_args.number_episodes=12",
            "rl_script_args.seed=3",
        ]
    )
    check_environment(config.rl)
    return config.rl


def missions_of(episodes):
    return [(e.episode, e.seed, e.mission) for e in episodes]


def test_the_same_episodes_for_any_number_of_environments(rl):
    runs = [evaluate(dataclasses.replace(rl, number_envs=n), RandomAgent(), TEST) for n in (1, 4, 32)]
    assert [e.seed for e in runs[0]] == [3_000_000_000 + k for k in range(12)]
    assert len({e.mission for e in runs[0]}) > 6
    # not only the rooms: actions have a stream per episode, so the outcomes are the same too
    assert runs[0] == runs[1] == runs[2]


def test_another_agent_plays_the_same_episodes(rl):
    random, bot = evaluate(rl, RandomAgent(), TEST), evaluate(rl, BotAgent(), TEST)
    assert missions_of(random) == missions_of(bot)
    assert all(e.success and e.episode_return > 0.5 for e in bot)
    assert sum(e.success for e in random) < 8


def test_missions_are_those_of_a_plain_reset(rl):
    env = babyai_text.make(rl.name_environment)
    for episode in evaluate(rl, BotAgent(), TEST)[:4]:
        assert env.reset(seed=episode.seed)[0]["mission"] == episode.mission


def test_the_llm_twice(small):
    config = make_config(small)
    check_environment(config.rl)
    runs = []
    for envs in (4, 4, 3):
        agent, _ = make_agent(config, None)
        runs.append(evaluate(dataclasses.replace(config.rl, number_envs=envs), agent, TEST))
        agent.close()
    assert runs[0] == runs[1] == runs[2]


def test_first_n_takes_them_in_the_order_they_finish(rl):
    released = dataclasses.replace(rl, stop_rule="first_n", number_envs=4, task_kind="per_instance")
    episodes = evaluate(released, RandomAgent(), TEST)
    assert [e.episode for e in episodes] == list(range(12))
    clock = dict.fromkeys({e.seed for e in episodes}, 0)  # environments keep their streams, told apart by their seeds
    assert min(clock) >= 3_000_000_000
    assert max(clock) < 3_000_000_004
    finished_at = []
    for episode in episodes:
        clock[episode.seed] += episode.frames
        finished_at.append(clock[episode.seed])
    assert finished_at == sorted(finished_at)
    assert len({e.seed for e in episodes}) < 12


def test_time_limit_and_success():
    # 12 of 12 successes: Wilson's lower end is 1 / (1 + z^2 / n) = 1 / (1 + 3.8414577/12) = 0.7575
    assert wilson(12, 12).low == pytest.approx(0.757509, abs=1e-5)
    # 1 of 4: centre (0.25 + 3.8414577/8) = 0.7301822, spread 1.959964*sqrt(0.1875/4 + 3.8414577/64) = 0.6409..
    # scale 1.9603644: (0.7301822 -+ 0.6409056) / 1.9603644
    estimate = wilson(1, 4)
    assert estimate.low == pytest.approx(0.0455, abs=2e-3)
    assert estimate.high == pytest.approx(0.6994, abs=2e-3)
    constant = bootstrap_mean(np.full(5, 0.25))
    assert (constant.value, constant.low, constant.high) == (0.25, 0.25, 0.25)
    spread = bootstrap_mean(np.arange(100.0))
    assert spread.low < 49.5 < spread.high
    # the normal approximation: 1.96 * 28.87 / 10 = 5.66
    assert spread.high - spread.low == pytest.approx(11.3, abs=1.0)


def test_files_of_a_test(rl, tmp_path):
    episodes = evaluate(rl, RandomAgent(), TEST)
    write_results(tmp_path, "T_zero_shot", episodes, {"agent": "random"})
    returns = np.load(tmp_path / "return_per_episode" / "T_zero_shot.npy")  # allow_pickle is off by default
    assert returns.tolist() == [e.episode_return for e in episodes]
    rows = (tmp_path / "episodes" / "T_zero_shot.csv").read_text().splitlines()
    assert rows[0] == (
        "episode,seed,mission,task,episode_return,success,frames,discounted_return,primitive_steps,gave_up,"
        "changed_prompts"
    )
    assert len(rows) == 13
    results = json.loads((tmp_path / "episodes" / "T_zero_shot.json").read_text())["results"]
    first = dict(zip(rows[0].split(","), rows[1].split(","), strict=True))
    # BabyAI rewards the last action alone, and every action is one step
    expected = 0.99 ** (int(first["frames"]) - 1) * float(first["episode_return"])
    assert float(first["discounted_return"]) == pytest.approx(expected)
    assert first["primitive_steps"] == first["frames"]
    assert first["gave_up"] == first["changed_prompts"] == "0"
    assert results["mean_primitive_steps"] == results["mean_frames"]


def test_the_summary_of_a_test():
    """Discounted returns 1, 0, 0.5: mean 0.5, variance (0.25 + 0.25 + 0) / 3; lengths 2, 4, 6: variance 8 / 3.

    Of 2 + 3 + 3 prompts 2 + 0 + 2 were changed.
    """
    outcomes = [(1.0, True, 2, 1.0, 2, False, 2), (0.0, False, 3, 0.0, 4, True, 0), (0.8, True, 3, 0.5, 6, False, 2)]
    found = summary([EpisodeResult(k, k, "", "", *outcome, []) for k, outcome in enumerate(outcomes)])
    assert found.pop("per_task").keys() == {""}
    assert found == {
        "episodes": 3, "success_rate": pytest.approx(2 / 3), "mean_return": pytest.approx(0.6),
        "mean_frames": pytest.approx(8 / 3), "mean_discounted_return": pytest.approx(0.5),
        "std_discounted_return": pytest.approx(0.4082, abs=1e-4), "mean_primitive_steps": pytest.approx(4.0),
        "std_primitive_steps": pytest.approx(1.6330, abs=1e-4), "gave_up": 1, "changed_prompts_share": 0.5,
    }  # fmt: skip


def test_exported_trajectories_are_aligned_and_do_not_depend_on_the_environments(small, tmp_path):
    bot = ["rl_script_args.bot=true", "rl_script_args.get_example_trajectories=true", "rl_script_args.num_steps=137"]
    arrays = []
    for envs in (1, 4):
        config = make_config([*small, *bot, f"rl_script_args.number_envs={envs}"])
        run_tests(config)
        folder = ExperimentPaths.of(config).test_folder(config.rl.name_environment)
        arrays.append([np.load(folder / f"bot_trajectories_{kind}_0.npy") for kind in ("prompts", "actions")])
    (prompts, actions), (prompts_again, actions_again) = arrays
    assert prompts.shape == actions.shape == (137,)
    assert (prompts == prompts_again).all()
    assert (actions == actions_again).all()
    assert set(actions) <= {"turn left", "turn right", "go forward"}  # all that going to a ball takes
    # an action stands in the next prompt of its episode, so the two arrays are aligned
    for prompt, action, following in zip(prompts, actions, prompts[1:], strict=False):
        if "Observation 1" in following:
            assert f"\n Action 0: {action} \n Observation 1" in following, (prompt, action)


def test_a_checkpoint_is_tested_with_the_policy_it_was_trained_with(small):
    train(make_config([*small, "rl_script_args.num_steps=32"]))
    run_tests(make_config([*small, "rl_script_args.zero_shot=false"]))
    with pytest.raises(UserError, match=r"another configuration \(rl_script_args\.score_rule\)"):
        run_tests(make_config([*small, "rl_script_args.zero_shot=false", "rl_script_args.score_rule=token"]))


def test_results_of_other_settings_are_not_replaced(small):
    run_tests(make_config(small))
    run_tests(make_config([*small, "rl_script_args.number_episodes=3"]))  # more or fewer of the same are welcome
    refusal = r"another configuration \(rl_script_args\.max_episode_steps\).* another rl_script_args.saving_path_logs"
    with pytest.raises(UserError, match=refusal):
        run_tests(make_config([*small, "rl_script_args.max_episode_steps=9"]))


@pytest.mark.parametrize("content", ["", '{"agent": "zero-shot", "con', "[]", '{"agent": "zero-shot"}'])
def test_a_damaged_record_is_named(small, content):
    config = make_config([*small, "rl_script_args.random_agent=true"])
    record = ExperimentPaths.of(config).test_folder(config.rl.name_environment) / "episodes" / f"{TEST}.json"
    record.parent.mkdir(parents=True)
    record.write_text(content)
    with pytest.raises(UserError, match=rf"{TEST}\.json cannot be read .*: remove it"):
        run_tests(config)


def test_agents_without_an_llm_depend_on_none_of_its_settings(small):
    random = [*small, "rl_script_args.random_agent=true"]
    run_tests(make_config(random))
    of_the_llm = ["lamorel_args.llm_args.model_path=another", "rl_script_args.score_rule=token"]
    run_tests(make_config([*random, *of_the_llm]))
    with pytest.raises(UserError, match=r"another configuration \(rl_script_args\.max_episode_steps\)"):
        run_tests(make_config([*random, "rl_script_args.max_episode_steps=9"]))


def test_the_precision_of_the_llm_is_a_setting_of_its_results(small):
    run_tests(make_config(small))
    with pytest.raises(UserError, match=r"another configuration \(lamorel_args\.llm_args\.dtype\)"):
        run_tests(make_config([*small, "lamorel_args.llm_args.dtype=bf16"]))


def test_a_cloned_model_that_is_none_is_named_by_its_key(small, tiny_models, tmp_path):
    (tmp_path / "empty").mkdir()
    for path, message in (("empty", "holds no config.json"), (tiny_models / "llama", "choose another im_path")):
        cloned = ["rl_script_args.im_learning=true", f"rl_script_args.im_path={tmp_path / path}"]
        with pytest.raises(UserError, match=message) as error:
            run_tests(make_config([*small, *cloned]))
        assert "lamorel_args.llm_args.model_path" not in str(error.value)


class TrainingBeside:
    """Stands for a training that writes a checkpoint while the tests read the one before."""

    def __init__(self, checkpoint, times):
        self.checkpoint, self.times, self.reads = checkpoint, times, []

    def __call__(self, checkpoint):
        before = read_trainer(checkpoint)["update"]
        self.reads.append(before)
        if len(self.reads) <= self.times:
            (checkpoint / TRAINER).write_text(json.dumps({"update": before + 1}))
        return before


@pytest.mark.parametrize("times", [0, 1, 4, 5])
def test_a_checkpoint_that_a_training_replaces_is_read_again(small, tmp_path, monkeypatch, times):
    """What is tested is one checkpoint, and the update that the results name is its own."""
    config = make_config([*small, "rl_script_args.zero_shot=false"])
    (tmp_path / TRAINER).write_text('{"update": 7}')
    monkeypatch.setattr("experiments.tested_agent.trained_checkpoint", lambda config, paths: tmp_path)
    load = TrainingBeside(tmp_path, times)
    if times < 5:
        assert load_settled(config, None, tmp_path, load) == (7 + times, 7 + times)
        assert load.reads == [7 + i for i in range(times + 1)]
    else:
        with pytest.raises(UserError, match="was replaced 5 times while it was read"):
            load_settled(config, None, tmp_path, load)


def test_a_checkpoint_that_cannot_be_loaded_is_not_read_again(small, tmp_path):
    (tmp_path / TRAINER).write_text('{"update": 7}')
    tries = []

    def load(checkpoint):
        tries.append(checkpoint)
        raise ValueError("another shape")

    with pytest.raises(ValueError, match="another shape"):
        load_settled(make_config(small), None, tmp_path, load)
    assert len(tries) == 1


def test_every_run_has_its_own_row(small, tmp_path):
    """Another model, and other action names, are not pooled with the first; the seeds of one run are."""
    renamed = ["rl_script_args.modified_action_space=true", "rl_script_args.new_action_space=[a,b,c,d,e,f]"]
    for extra in ([], renamed, ["rl_script_args.name_model=other"], ["rl_script_args.seed=2"]):
        run_tests(make_config([*small, *extra]))
    missing: list[str] = []
    table = results_table(load_tests(find_runs([tmp_path / "logs"], ["*"], [], missing), missing), within=4).full
    assert not missing
    assert sorted(zip(table.test, table.episodes, strict=True)) == [
        ("no modification", 6),
        ("no modification", 12),
        ("no modification, actions named a b c d e f", 6),
    ]


def test_other_mission():
    room = [("red", "ball"), ("blue", "key")]
    assert other_mission("go to the red ball", room) == "go to the blue key"
    assert other_mission("go to a ball", [("blue", "ball"), ("grey", "box")]) == "go to the grey box"
    assert other_mission("go to the red ball", [("red", "ball")]) == "go to the red ball"


def test_other_goal_shows_another_object_and_rewards_the_first():
    env = OtherGoal(babyai_text.make("BabyAI-GoToLocalS5N2-v0"))
    plain = babyai_text.make("BabyAI-GoToLocalS5N2-v0")
    shown, asked = env.reset(seed=1)[0]["mission"], plain.reset(seed=1)[0]["mission"]
    assert shown != asked
    assert env.step(0)[0]["mission"] == shown
    assert env.unwrapped.instrs.surface(env.unwrapped) == asked
