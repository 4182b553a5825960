"""Success of the random agent and of the bot over 1,000 episodes of every level, beside the published environment's."""

import dataclasses
import math

import pytest

from experiments.agents.bot import BotAgent
from experiments.agents.random_agent import RandomAgent
from experiments.environments import check_environment
from experiments.evaluation import evaluate
from tests.experiments.conftest import make_config

EPISODES, REFERENCE_EPISODES = 1000, 200
RANDOM_SUCCESS = {  # of 200 episodes with six actions, in the published environment
    "BabyAI-MixedTrainLocal-v0": 0.100,
    "BabyAI-MixedTestLocal-v0": 0.075,
    "BabyAI-PickUpSeqGoToLocal-v0": 0.055,
    "BabyAI-PickUpThenGoToLocal-v0": 0.135,
    "BabyAI-GoToAfterPickUpLocal-v0": 0.135,
    "BabyAI-PickUpSeqPickUpLocal-v0": 0.035,
    "BabyAI-GoToFrench-v0": 0.330,
    "BabyAI-GoToLocal-v0": 0.330,
}


def success_rate(level, agent, small):
    config = make_config([*small, f"rl_script_args.name_environment={level}", "rl_script_args.max_episode_steps=null"])
    check_environment(config.rl)
    rl = dataclasses.replace(config.rl, number_envs=32, number_episodes=EPISODES)
    return sum(episode.success for episode in evaluate(rl, agent, "no_modification_test")) / EPISODES


@pytest.mark.slow
@pytest.mark.parametrize(("level", "reference"), RANDOM_SUCCESS.items())
def test_random_success(small, level, reference):
    rate = success_rate(level, RandomAgent(), small)
    variance = rate * (1 - rate) / EPISODES + reference * (1 - reference) / REFERENCE_EPISODES
    assert abs(rate - reference) <= 3 * math.sqrt(variance), (rate, reference)


@pytest.mark.slow
@pytest.mark.parametrize("level", RANDOM_SUCCESS)
def test_the_bot_solves(small, level):
    assert success_rate(level, BotAgent(), small) >= 0.99
