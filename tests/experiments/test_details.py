"""Details of the method that the formulas' tests do not reach; docs/implementation_details.md names them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from experiments.agents.ppo.advantages import Advantages
from experiments.agents.ppo.base_ppo_agent import PPOConfig
from experiments.agents.ppo.heads import ActionHead, ValueHead
from experiments.agents.ppo.llm_policy import ACTION_LOGITS, VALUE
from experiments.episodes import Episode, EpisodeCounter, action_durations, sample_actions
from experiments.llm_side import open_llm_agent
from tests.experiments.conftest import make_config
from tests.experiments.test_released_defects import Corridor, CorridorAgent


def test_actions_are_sampled():
    log_probs = np.log([[0.2, 0.5, 0.3]] * 100)
    uniforms = (np.arange(100) + 0.5) / 100
    assert np.bincount(sample_actions(log_probs, uniforms)).tolist() == [20, 50, 30]
    shorter = np.array([[np.log(0.5), np.log(0.5), -np.inf]])  # two candidates only
    assert sample_actions(shorter, np.array([np.nextafter(1, 0)])).tolist() == [1]


def test_success_is_a_positive_reward_at_a_termination():
    counter = EpisodeCounter.empty(6, 0.5)
    flags = {  # rewards, terminated, truncated
        "success": (0.7, True, False),
        "on the last allowed step": (0.1, True, True),
        "time-out": (0.0, False, True),
        "failure": (-1.0, True, False),
        "goes on": (0.5, False, False),
        "time-out with a reward": (0.5, False, True),
    }
    rewards, terminated, truncated = (np.array(column) for column in zip(*flags.values(), strict=True))
    durations = np.ones(6, dtype=int)
    ended = counter.step(rewards, terminated, truncated, durations)
    assert {i: episode.success for i, episode in ended.items()} == {0: True, 1: True, 2: False, 3: False, 5: False}
    assert counter.step(rewards, terminated, truncated, durations)[0].episode_return == 0.7  # a new episode
    assert counter.returns[4] == 1.0  # the running one


def test_the_discounted_return_counts_primitive_steps():
    """Actions of 3, 1 and 2 primitive steps begin after 0, 3 and 4: 2 + 0.5^3 * 8 - 0.5^4 * 16 = 2 + 1 - 1 = 2."""
    counter = EpisodeCounter.empty(2, 0.5)
    no, yes = np.array([False, False]), np.array([True, False])
    assert counter.step(np.array([2.0, 1.0]), no, no, np.array([3, 1])) == {}
    saved = json.loads(json.dumps(counter.get_state()))
    counter = EpisodeCounter.empty(2, 0.5)
    counter.set_state(saved)
    counter.step(np.array([8.0, 1.0]), no, no, np.array([1, 1]))
    ended = counter.step(np.array([-16.0, 1.0]), yes, no, np.array([2, 1]))
    assert ended == {0: Episode(-6.0, 3, False, 2.0, 6)}
    # the other: three actions of one step, 1 + 0.5 + 0.25
    assert counter.get_state() == {
        "returns": [0.0, 3.0], "frames": [0, 3], "discounted_returns": [0.0, 1.75], "primitive_steps": [0, 3],
    }  # fmt: skip


def test_the_duration_of_an_episodes_last_action_is_its_own():
    """After an automatic reset `duration` is the new episode's; the finished one's stands in `final_info`."""
    infos = {
        "duration": np.array([1, 4, 0]), "_duration": np.array([True, True, False]),
        "final_info": {"duration": np.array([7, 0, 0]), "_duration": np.array([True, False, False])},
    }  # fmt: skip
    assert action_durations(infos, np.array([True, False, False])).tolist() == [7, 4, 1]
    assert action_durations({}, np.array([True, False])).tolist() == [1, 1]


def corridor_agent():
    config = PPOConfig(
        steps_per_env=5, gamma=0.99, gae_lambda=0.99, reward_scale=20.0, epochs=2, batch_size=4,
        bootstrap_timeouts=False, normalize_advantages=False, target_kl=None, max_skipped_gradient_steps=10,
    )  # fmt: skip
    return CorridorAgent(Corridor(), config, seed=3)


def test_training_rewards_are_scaled_and_recorded_returns_are_not():
    rollout = corridor_agent().collect_rollout()
    assert rollout.rewards.unique().tolist() == [20.0]
    assert {episode.episode_return for episode in rollout.episodes} == {2.0}


def test_every_epoch_is_a_permutation_cut_into_slices():
    agent, again = corridor_agent(), corridor_agent()
    slices = [part.tolist() for part in agent._minibatches(10)]
    assert [len(part) for part in slices] == [4, 4, 2] * 2
    epochs = [[i for part in slices[first : first + 3] for i in part] for first in (0, 3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(10))] * 2
    assert epochs[0] != epochs[1]
    assert slices == [part.tolist() for part in again._minibatches(10)]  # from the seed


@pytest.mark.parametrize(("head", "outputs"), [(ValueHead(), 1), (ActionHead(6), 6)])
def test_heads(head, outputs):
    head.llm_config, head.device = SimpleNamespace(hidden_size=32), torch.device("cpu")
    head.initialize()
    linear = [layer for layer in head.mlp if isinstance(layer, nn.Linear)]
    assert [type(layer) for layer in head.mlp] == [nn.Linear, nn.Sigmoid] * 2 + [nn.Linear]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(32, 1024), (1024, 1024), (1024, outputs)]


def test_heads_stay_in_fp32(small):
    with open_llm_agent(make_config([*small, "lamorel_args.llm_args.dtype=bf16"])) as agent:
        module = agent.caller._worker._llm.module
        assert {p.dtype for p in module._module_functions.parameters()} == {torch.float32}
        assert {p.dtype for p in module._LLM_model.parameters()} == {torch.bfloat16}
        assert agent.collect_rollout().values.dtype == torch.float32


def test_one_gradient_step(small):
    """The gradients of the heads' last biases, derived by hand, and the one Adam over LLM and heads.

    On an update's first minibatch v = v_old and the ratio is 1. With b the value head's last bias and R = v + 1,
        d loss / d b = 0.5 * mean(2 (v - R)) = -1,
    and with z the action head's logits, whose gradient is that of its last bias,
        d(-A log p_a)/dz_k = -A (1[k = a] - p_k),  d(-0.01 H)/dz_k = 0.01 p_k (log p_k + H).
    """
    adam = ["lr=1e-5", "beta1=0.8", "beta2=0.99", "adam_eps=1e-4"]  # none of them torch's default
    config = make_config([*small, *(f"rl_script_args.{key}" for key in ("use_action_heads=true", *adam))])
    with open_llm_agent(config) as agent:
        module, updater = agent.caller._worker._llm.module, agent.caller._worker._updater
        with torch.no_grad():  # probabilities that differ between states and actions
            module._module_functions[ACTION_LOGITS].mlp[-1].weight *= 3
        rollout = agent.collect_rollout()
        advantages = torch.linspace(-1, 2, 32).reshape(8, 4)
        samples = rollout.samples(Advantages(advantages, rollout.values + 1))
        log_probs = agent._decide(samples.observations).log_probs.double()
        report = agent._minibatch_step(samples)

        p, taken = log_probs.exp(), nn.functional.one_hot(samples.actions, 6)
        entropy = -(p * log_probs).sum(dim=1, keepdim=True)
        policy = -samples.advantages[:, None] * (taken - p)
        expected = (policy + 0.01 * p * (log_probs + entropy)).mean(dim=0)
        scale = min(1.0, 0.5 / report["grad_norm"])  # what clipping to 0.5 leaves
        bias = {name: module._module_functions[name].mlp[-1].bias.grad / scale for name in (VALUE, ACTION_LOGITS)}
        torch.testing.assert_close(bias[VALUE], torch.tensor([-1.0]), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(bias[ACTION_LOGITS].double(), expected, rtol=1e-3, atol=1e-4)
        assert expected.abs().max() > 0.05

        gradients = [p.grad.double().flatten() for p in module.parameters() if p.grad is not None]
        assert torch.cat(gradients).norm().item() == pytest.approx(min(0.5, report["grad_norm"]), rel=1e-3)
        assert report["loss"] == pytest.approx(
            report["policy_loss"] - 0.01 * report["entropy"] + 0.5 * report["value_loss"], rel=1e-5
        )
        assert isinstance(updater.optimizer, torch.optim.Adam)
        for group in updater.optimizer.param_groups:
            assert (group["lr"], group["betas"], group["eps"]) == (1e-5, (0.8, 0.99), 1e-4)
        trained = {id(p) for group in updater.optimizer.param_groups for p in group["params"]}
        assert trained == {id(p) for p in module.parameters()}
