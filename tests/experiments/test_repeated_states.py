"""Repeated states of a rollout are decided once, which gives the same rollout with fewer forward passes."""

import math
from contextlib import closing
from types import SimpleNamespace
from unittest import mock

import pytest
import torch

from experiments.agents.ppo.base_ppo_agent import Decision
from experiments.agents.ppo.decided_states import join, split
from experiments.agents.ppo.llm_policy import LLMPolicy
from experiments.llm_side import open_llm_agent
from experiments.prompters import TextState
from experiments.tested_agent import make_agent
from experiments.train_language_agent import train
from lamorel import Caller
from tests.experiments.conftest import make_config
from tests.experiments.test_training import paths_of
from tests.experiments.test_twosome import TWOSOME, causal, lora

KITCHEN = [
    "rl_script_args.env_packages=[virtualhome_text]",
    "rl_script_args.name_environment=VirtualHomeText-FoodPreparation-v0",
    "rl_script_args.max_episode_steps=null",
    "rl_script_args.prompter=environment",
]


def test_decisions_of_different_widths():
    parts = [
        Decision(torch.tensor([[-1.0, -0.5]]), torch.tensor([2.0])),
        Decision(torch.tensor([[-0.1, -3.0, -4.0]]), torch.tensor([5.0])),
    ]
    joined = join(parts)
    assert joined.log_probs.tolist() == [[-1.0, -0.5, -torch.inf], [pytest.approx(-0.1), -3.0, -4.0]]
    assert joined.values.tolist() == [2.0, 5.0]
    assert joined.features is None
    assert [row.values.tolist() for row in split(joined)] == [[2.0], [5.0]]


def collected(config):
    """Two rollouts with an update between them, and the contexts of every call."""
    calls, original = [], Caller.custom_module_fns

    def recorded(self, keys, contexts, candidates=None, **kwargs):
        calls.append(list(zip(contexts, map(tuple, candidates), strict=True)))
        return original(self, keys, contexts, candidates, **kwargs)

    with open_llm_agent(config) as agent, mock.patch.object(Caller, "custom_module_fns", recorded):
        first = agent.collect_rollout()
        agent.update(first)
        in_first = len(calls)
        return [first, agent.collect_rollout()], [calls[:in_first], calls[in_first:]]


@pytest.mark.parametrize("method", ["glam", "twosome"])
def test_the_rollout_is_that_of_deciding_every_state(small, tiny_models, method):
    twosome = [*causal(tiny_models / "llama"), *KITCHEN, *TWOSOME, lora("q_proj", "v_proj")]
    config = make_config([*small, *(twosome if method == "twosome" else [])])
    rollouts, calls = collected(config)
    with mock.patch.object(LLMPolicy, "independent_states", False):
        expected, every = collected(config)
    for found, other in zip(rollouts, expected, strict=True):
        assert found.observations == other.observations
        for name in ("actions", "ends", "rewards"):
            assert torch.equal(getattr(found, name), getattr(other, name))
        for name in ("log_probs", "values", "last_values", "end_values", "features"):
            torch.testing.assert_close(getattr(found, name), getattr(other, name), rtol=1e-4, atol=1e-5)
    for once, again in zip(calls, every, strict=True):  # two rollouts; the update between them changes the weights
        states = [state for call in once for state in call]
        assert len(states) == len(set(states))
        assert set(states) == {state for call in again for state in call}
        assert sum(map(len, again)) > len(states)


def test_a_test_decides_a_state_once_and_again_with_other_weights(small):
    train(make_config([*small, "rl_script_args.num_steps=32"]))
    config, paths, asked = make_config([*small, "rl_script_args.zero_shot=false"]), paths_of(small), []
    original = Caller.custom_module_fns

    def recorded(self, keys, contexts, candidates=None, **kwargs):
        asked.extend(contexts)
        return original(self, keys, contexts, candidates, **kwargs)

    agent, _ = make_agent(config, paths)
    with closing(agent), mock.patch.object(Caller, "custom_module_fns", recorded):
        state = SimpleNamespace(text=TextState("You see a red ball", ["turn left", "go forward"], [0, 2]))
        other = SimpleNamespace(text=TextState("You see a red ball", ["go forward"], [2]))
        first = agent.decide([state, state])
        assert len(asked) == 1
        again = agent.decide([state, other])
        assert len(asked) == 2  # other candidates are another state
        assert again.log_probs[0].tolist() == first.log_probs[0].tolist() == first.log_probs[1].tolist()
        assert again.log_probs[1].tolist() == [0, -math.inf]
        agent.load(paths.models / "last")
        agent.decide([state])
        assert len(asked) == 3
