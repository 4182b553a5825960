"""Contextual calibration: mean scores by hand, one policy in acting and learning, and the same biases in tests."""

import json
import math

import pytest
import torch

from experiments.agents.ppo.calibration import mean_scores, read_biases, subtract_biases, with_unseen
from experiments.agents.ppo.llm_policy import LLMPolicy
from experiments.calibration_states import EPISODES, STATES, calibration_states
from experiments.errors import UserError
from experiments.llm_side import open_llm_agent
from experiments.post_training_tests import run_tests
from experiments.prompters import TextState
from experiments.tested_agent import make_agent
from experiments.train_language_agent import train
from tests.experiments.conftest import make_config
from tests.experiments.test_training import assert_same_run, elsewhere, paths_of

CALIBRATED = "rl_script_args.calibration=batch"


def test_biases_by_hand():
    scores = [torch.tensor([-1.0, -5.0]), torch.tensor([-3.0, -2.0])]
    biases = mean_scores(scores, [["go", "turn"], ["go", "drop"]])
    assert biases == {"go": -2.0, "turn": -5.0, "drop": -2.0}
    assert subtract_biases(scores[0], ["go", "turn"], biases).tolist() == [1.0, 0.0]


def test_the_calibrated_policy_by_hand():
    """exp(-1 - -2) = e against exp(-5 - -5) = 1, at temperature 1 and 2."""
    outputs, biases = [{"__score": torch.tensor([-1.0, -5.0])}], {"go": -2.0, "turn": -5.0}
    for temperature in (1.0, 2.0):
        policy = LLMPolicy(temperature=temperature).log_probs(outputs, [["go", "turn"]], biases).exp()
        odds = math.exp(1 / temperature)
        torch.testing.assert_close(policy, torch.tensor([[odds / (odds + 1), 1 / (odds + 1)]]))


def test_an_action_that_no_state_offered_takes_the_mean_and_is_named(caplog):
    states = [TextState("p", ["go", "jump"], [0, 1])]
    biases = with_unseen({"go": -2.0, "turn": -5.0}, states)
    assert biases == {"go": -2.0, "turn": -5.0, "jump": -3.5}
    assert "'jump' was offered in no calibration state" in caplog.text
    caplog.clear()
    assert with_unseen(biases, states) is biases
    assert not caplog.text


def test_states_are_of_uniform_play(small):
    rl = make_config(small).rl
    states = calibration_states(rl)
    assert 1 < len(states) <= STATES
    assert states == calibration_states(rl)
    assert len({state.prompt for state in states}) > 1
    assert min(EPISODES) > 10**8


def test_training_acts_and_learns_by_one_policy_and_resumes_exactly(small, tmp_path):
    """The first ratio of an update is 1: the updater takes the same biases off."""
    run = [*small, CALIBRATED]
    config = make_config(run)
    with open_llm_agent(config) as agent:
        rollout = agent.collect_rollout()
        policy = torch.cat([agent.probabilities(row) for row in rollout.observations])
        states = calibration_states(config.rl)
        raw = LLMPolicy(score_rule=config.rl.score_rule)
        outputs = agent.caller.custom_module_fns(
            raw.policy_keys, [s.prompt for s in states], [s.candidates for s in states]
        )
        scores = torch.stack(raw.scores(outputs, [s.candidates for s in states]))
        assert list(agent.biases.values()) == pytest.approx(scores.mean(0).tolist(), abs=1e-4)
        assert policy.mean(0) == pytest.approx(torch.full((policy.shape[1],), 1 / policy.shape[1]), abs=0.05)
        assert agent.update(rollout)["first_ratio_error"] < 1e-4
    straight = elsewhere(run, tmp_path)
    train(make_config(straight))
    train(make_config([*run, "rl_script_args.num_steps=32"]))
    train(make_config(run))
    assert_same_run(paths_of(run), paths_of(straight))
    assert read_biases(paths_of(run).models / "last") == read_biases(paths_of(straight).models / "last")


def test_tests_take_the_biases_of_training_and_calibrate_new_words(small):
    run = [*small, CALIBRATED]
    train(make_config(run))
    config = make_config([*run, "rl_script_args.zero_shot=false"])
    agent, _ = make_agent(config, paths_of(run))
    learned_with = read_biases(paths_of(run).models / "last")
    agent.begin(config.rl, "no_modification_test")
    assert agent.biases == learned_with
    renamed = make_config(
        [
            *run,
            "rl_script_args.modified_action_space=true",
            "rl_script_args.new_action_space=[rotate_left,rotate_right,go_forward,take,release,switch]",
        ]
    )
    agent.begin(renamed.rl, "no_modification_test")
    assert agent.biases.keys() == {*learned_with, "rotate left", "rotate right", "take", "release", "switch"}
    assert agent.biases["go forward"] == learned_with["go forward"]
    agent.close()


def test_results_with_and_without_are_kept_apart(small):
    run_tests(make_config([*small, "rl_script_args.zero_shot=true"]))
    with pytest.raises(UserError, match=r"rl_script_args\.calibration: was 'none', given 'batch'"):
        run_tests(make_config([*small, "rl_script_args.zero_shot=true", CALIBRATED]))
    run_tests(
        make_config([*small, "rl_script_args.zero_shot=true", CALIBRATED, "rl_script_args.name_model=calibrated"])
    )
    with pytest.raises(UserError, match=r"calibration='batch': it is for scored actions"):
        make_config([*small, CALIBRATED, "rl_script_args.use_action_heads=true"])


def test_a_run_of_before_is_one_without(small):
    train(make_config(small))
    checkpoint = paths_of(small).models / "last" / "trainer.json"
    assert json.loads(checkpoint.read_text())["config"]["rl_script_args"]["calibration"] == "none"
    with pytest.raises(UserError, match=r"rl_script_args\.calibration"):
        run_tests(make_config([*small, "rl_script_args.zero_shot=false", CALIBRATED]))
