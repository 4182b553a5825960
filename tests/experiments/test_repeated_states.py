"""States that come again in a rollout are decided once: the same rollout, of fewer forwards."""

from unittest import mock

import pytest
import torch

from experiments.agents.ppo.base_ppo_agent import Decision
from experiments.agents.ppo.llm_policy import LLMPolicy
from experiments.llm_side import open_llm_agent
from lamorel import Caller
from tests.experiments.conftest import make_config
from tests.experiments.test_twosome import TWOSOME, causal, lora

KITCHEN = [
    "rl_script_args.env_packages=[virtualhome_text]",
    "rl_script_args.name_environment=VirtualHomeText-FoodPreparation-v0",
    "rl_script_args.max_episode_steps=null",
    "rl_script_args.prompter=environment",
]


def test_decisions_of_different_widths():
    split = [
        Decision(torch.tensor([[-1.0, -0.5]]), torch.tensor([2.0])),
        Decision(torch.tensor([[-0.1, -3.0, -4.0]]), torch.tensor([5.0])),
    ]
    joined = Decision.of(split)
    assert joined.log_probs.tolist() == [[-1.0, -0.5, -torch.inf], [pytest.approx(-0.1), -3.0, -4.0]]
    assert joined.values.tolist() == [2.0, 5.0]
    assert joined.features is None
    assert [row.values.tolist() for row in joined.split()] == [[2.0], [5.0]]


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
    for once, again in zip(calls, every, strict=True):  # after the update, the states are decided anew
        states = [state for call in once for state in call]
        assert len(states) == len(set(states))
        assert set(states) == {state for call in again for state in call}
        assert sum(map(len, again)) > len(states)
