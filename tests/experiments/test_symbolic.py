"""Symbolic-PPO's network, memory and gradient step against numbers worked out by hand and slow paths."""

import dataclasses

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from experiments.agents.base_agent import View
from experiments.agents.ppo.instruction_vocabulary import InstructionVocabulary
from experiments.agents.ppo.rollout import Samples
from experiments.agents.ppo.symbolic_network import CHANNELS, FiLMBlock, SymbolicNetwork
from experiments.agents.ppo.symbolic_policy import SymbolicPolicy, SymbolicView, Unrolled, empty_memory
from experiments.agents.ppo.symbolic_test_agent import SymbolicTestAgent
from experiments.environments import check_environment
from experiments.errors import UserError
from experiments.symbolic_side import open_symbolic_agent
from tests.experiments.conftest import ROOT, make_config

MISSIONS = ("go to the red ball", "pick up a key", "put the blue box next to a green ball")


@pytest.fixture(autouse=True)
def _one_seed():
    torch.manual_seed(0)


def make_policy(actions=6):
    """A policy that has seen the words of `MISSIONS`, with statistics other than those it starts with."""
    policy = SymbolicPolicy(actions)
    for mission in MISSIONS:
        policy.vocabulary.learn(mission)
    policy.take_statistics(random_views(np.random.default_rng(0), 50))
    return policy


def random_views(rng, count, *, first=False):
    return [
        SymbolicView(rng.integers(0, 8, (7, 7, 3), dtype=np.uint8), MISSIONS[rng.integers(3)], first, empty_memory())
        for _ in range(count)
    ]


@pytest.fixture
def open_agent(symbolic):
    """The agent that learns, on a configuration with further overrides."""

    def opened(*overrides):
        config = make_config([*symbolic, "rl_script_args.symbolic_ppo=true", *overrides])
        check_environment(config.rl)
        return open_symbolic_agent(config)

    return opened


def test_the_published_settings():
    assert OmegaConf.load(ROOT / "configs" / "base.yaml").rl_script_args.symbolic == {
        "number_envs": 64, "frames_per_proc": 40, "recurrence": 20, "batch_size": 1280, "epochs": 4, "lr": 1e-4,
        "discount": 0.99, "gae_lambda": 0.99, "encoder": "film",
    }  # fmt: skip


# -- the network ------------------------------------------------------------------------------------------------------


def test_parameters_counted_by_hand():
    network = SymbolicNetwork(6)
    counts = {name: sum(p.numel() for p in child.parameters()) for name, child in network.named_children()}
    assert counts == {
        "instruction": 101 * 128 + 3 * 128 * (128 + 128) + 2 * 3 * 128,  # 100 words and the unknown; GRU: 3 gates
        # 3 x 2 x 2 and 128 x 3 x 3 inputs per channel, a bias each; scale and shift of the normalisation
        "convolutions": 128 * 12 + 128 + 256 + 128 * 1152 + 128 + 256,
        "film": 2 * (2 * (128 * 1152 + 128) + 2 * 256 + 2 * (128 * 128 + 128)),
        "pool": 0,
        "memory": 4 * 128 * (128 + 128) + 2 * 4 * 128,  # 4 gates, torch's two biases
        "actor": 128 * 64 + 64 + 64 * 6 + 6,
        "critic": 128 * 64 + 64 + 64 + 1,
    }


def test_map_sizes():
    network, sizes = SymbolicNetwork(6), []
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d):
            module.register_forward_hook(lambda _, inputs, output: sizes.append((*output.shape[1:],)))
    images = torch.zeros(5, 7, 7, 3, dtype=torch.uint8)
    features = network.see(images, [torch.tensor([1, 2])], torch.zeros(5, dtype=torch.long))
    assert features.shape == (5, 128)
    # 7 + 2 * 1 - 2 + 1 = 8; pooled 4; kept by padding; pooled 2; two convolutions per FiLM block; pooled 1
    assert sizes == [(128, n, n) for n in (8, 4, 4, 2, 2, 2, 2, 2, 1)]


def test_film_by_hand():
    block = FiLMBlock(channels=1, condition=1)
    first, norm, _, second = block.inner
    for conv, centre, bias in ((first, 3.0, 1.0), (second, 0.5, 0.5)):
        nn.init.zeros_(conv.weight)
        conv.weight.data[0, 0, 1, 1] = centre
        nn.init.constant_(conv.bias, bias)
    norm.weight.data[:], norm.bias.data[:] = 2.0, -1.0
    for bn, mean, variance in ((norm, 1.0, 4.0), (block.outer[0], 0.5, 25.0)):
        bn.running_mean[:], bn.running_var[:] = mean, variance - bn.eps
        bn.eval()
    block.gamma.weight.data[:], block.gamma.bias.data[:] = 2.0, 1.0
    block.beta.weight.data[:], block.beta.bias.data[:] = -1.0, 0.0
    # x = 2: 3 * 2 + 1 = 7; 2 * (7 - 1) / 2 - 1 = 5; ReLU 5; 0.5 * 5 + 0.5 = 3
    # condition 1.5: gamma 2 * 1.5 + 1 = 4, beta -1.5: 4 * 3 - 1.5 = 10.5; (10.5 - 0.5) / 5 = 2
    # condition -1.5: gamma -2, beta 1.5: -4.5; (-4.5 - 0.5) / 5 = -1; ReLU 0
    out = block(torch.full((2, 1, 1, 1), 2.0), torch.tensor([[1.5], [-1.5]]))
    torch.testing.assert_close(out, torch.tensor([2.0, 0.0]).view(2, 1, 1, 1))


def test_linear_layers_begin_with_rows_of_unit_norm():
    network = SymbolicNetwork(9)
    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    assert len(layers) == 2 * 2 + 2 + 2  # FiLM, actor, critic
    for layer in layers:
        torch.testing.assert_close(layer.weight.norm(dim=1), torch.ones(layer.out_features))
        assert (layer.weight > 0).any()
        assert (layer.weight < 0).any()
        assert not layer.bias.any()


def test_an_instruction_is_the_same_beside_a_longer_one():
    """The GRU written out (torch's documentation of nn.GRU), one word at a time."""
    encoder = SymbolicNetwork(6).instruction
    short, long = torch.tensor([3, 1, 2]), torch.tensor([2, 2, 5, 7, 1, 4])
    gru = encoder.gru
    state = torch.zeros(CHANNELS)
    for word in short:
        x = gru.weight_ih_l0 @ encoder.embedding.weight[word] + gru.bias_ih_l0
        h = gru.weight_hh_l0 @ state + gru.bias_hh_l0
        (xr, xz, xn), (hr, hz, hn) = x.view(3, -1), h.view(3, -1)
        reset, update = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
        state = (1 - update) * torch.tanh(xn + reset * hn) + update * state
    for batch, row in (([short], 0), ([long, short], 1), ([short, long], 0)):
        torch.testing.assert_close(encoder(batch)[row], state)


# -- the vocabulary ---------------------------------------------------------------------------------------------------


def test_words_get_ids_in_the_order_they_are_met():
    vocabulary = InstructionVocabulary()
    vocabulary.learn("Pick up the ball, then go to the key")
    assert vocabulary.words == ["pick", "up", "the", "ball", "then", "go", "to", "key"]
    assert vocabulary.ids("go to THE ball") == [6, 7, 3, 4]
    assert InstructionVocabulary(vocabulary.words).ids("go to THE ball") == [6, 7, 3, 4]
    assert vocabulary.ids("go to the dax") == [6, 7, 3, 0]
    assert vocabulary.ids("") == [0]


def test_too_many_words():
    vocabulary = InstructionVocabulary()
    vocabulary.learn(" ".join(f"w{i}" for i in range(100)))
    vocabulary.learn("w3 w99")
    with pytest.raises(UserError, match="'w100' in the mission 'w3 w100' is the 101th different word"):
        vocabulary.learn("w3 w100")


def test_unknown_words_stay_without_meaning():
    policy = make_policy()
    views = [
        random_views(np.random.default_rng(1), 1)[0]._replace(mission=m) for m in ("go to the dax", "go to the xolo")
    ]
    unrolled = policy.unroll(views)
    torch.testing.assert_close(unrolled.log_probs[0], unrolled.log_probs[1])
    unrolled.values.sum().backward()
    assert not policy.network.instruction.embedding.weight.grad[0].any()
    assert not policy.network.instruction.embedding.weight[0].any()


# -- the memory -------------------------------------------------------------------------------------------------------


def test_sequences_across_episode_ends_are_the_episodes_run_separately():
    policy, rng = make_policy(), np.random.default_rng(2)
    lengths = ((4, 3, 1), (2, 6))  # of the episodes of two environments, 8 steps each
    columns = [
        [view._replace(first=t == 0) for length in episodes for t, view in enumerate(random_views(rng, length))]
        for episodes in lengths
    ]
    together = policy.unroll([view for step in zip(*columns, strict=True) for view in step], steps=8)
    values = together.values.view(8, 2)
    for k, episodes in enumerate(lengths):
        start = 0
        for length in episodes:
            alone = policy.unroll(columns[k][start : start + length], steps=length)
            torch.testing.assert_close(values[start : start + length, k], alone.values)
            start += length
        torch.testing.assert_close(together.memory[:, k], alone.memory[:, 0])


def test_an_episode_depends_on_its_past():
    policy, rng = make_policy(), np.random.default_rng(3)
    past, other, now = random_views(rng, 3)
    one, two = (policy.unroll([view, now], steps=2).log_probs[1] for view in (past, other))
    assert (one - two).abs().max() > 1e-4


def test_a_decision_does_not_depend_on_the_others_beside_it():
    policy = make_policy()
    views = random_views(np.random.default_rng(4), 6)
    together = policy.unroll(views + views[:2])
    for i, view in enumerate(views):
        torch.testing.assert_close(policy.unroll([view]).log_probs[0], together.log_probs[i])
    assert torch.equal(together.log_probs[6:], together.log_probs[:2])


def head(layers, hidden):
    """Linear, tanh, linear."""
    first, _, last = layers
    return last.weight @ torch.tanh(first.weight @ hidden + first.bias) + last.bias


def slow_unroll(policy, views, steps):
    """One sequence and one step at a time, every view through the whole network, the LSTM written out."""
    network, count = policy.network, len(views) // steps
    log_probs, values = [None] * len(views), [None] * len(views)
    for k in range(count):
        hidden, cell = views[k].memory
        for t in range(steps):
            view = views[t * count + k]
            if view.first:
                hidden, cell = torch.zeros(CHANNELS), torch.zeros(CHANNELS)
            ids = torch.tensor(policy.vocabulary.ids(view.mission))
            x = network.see(torch.from_numpy(view.image)[None], [ids], torch.tensor([0]))[0]
            lstm = network.memory
            gates = lstm.weight_ih @ x + lstm.bias_ih + lstm.weight_hh @ hidden + lstm.bias_hh
            entry, keep, candidate, out = gates.view(4, -1)
            cell = torch.sigmoid(keep) * cell + torch.sigmoid(entry) * torch.tanh(candidate)
            hidden = torch.sigmoid(out) * torch.tanh(cell)
            logits = head(network.actor, hidden)
            log_probs[t * count + k] = logits - logits.exp().sum().log()
            values[t * count + k] = head(network.critic, hidden)[0]
    return torch.stack(log_probs), torch.stack(values)


def test_minibatches_against_a_slow_path(open_agent):
    """Policies, values and gradients of every minibatch of a rollout in which episodes end."""
    with open_agent("rl_script_args.max_episode_steps=5") as agent:
        agent.update(agent.collect_rollout())  # from here on, memories and statistics are not those of the start
        rollout = agent.collect_rollout()
        assert rollout.ends.any()
        views = [view for row in rollout.observations for view in row]
        seen = []
        for indices in agent._minibatches(rollout.frames):
            seen.append(indices)
            parts = [views[i] for i in indices]
            fast, slow = agent.policy.unroll(parts, 4), slow_unroll(agent.policy, parts, 4)
            torch.testing.assert_close(fast.log_probs, slow[0], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(fast.values, slow[1], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(
                fast.log_probs.gather(1, rollout.actions.flatten()[indices][:, None])[:, 0],
                rollout.log_probs.flatten()[indices],
            )
            weights = torch.randn(len(indices), 6)
            parameters = list(agent.policy.network.parameters())
            gradients = [
                torch.autograd.grad((weights * log_probs).sum() + values.sum(), parameters)
                for log_probs, values in ((fast.log_probs, fast.values), slow)
            ]
            for name, one, other in zip(dict(agent.policy.network.named_parameters()), *gradients, strict=True):
                assert (one - other).abs().max() <= 1e-4 * other.abs().max() + 1e-6, name
    # 2 epochs; 32 frames are 8 sub-sequences of 4 steps, minibatches of 12 samples hold 3 of them: 3 + 3 + 2
    assert [len(indices) for indices in seen] == [12, 12, 8] * 2
    for epoch in (seen[:3], seen[3:]):
        assert sorted(np.concatenate(epoch).tolist()) == list(range(32))
    for indices in seen:  # sample t * 4 + i is step t of environment i
        steps, environments = np.divmod(indices.reshape(4, -1), 4)
        assert (environments == environments[0]).all()
        assert (steps == steps[0] + np.arange(4)[:, None]).all()
        assert set(steps[0]) <= {0, 4}
    assert seen[0].tolist() != seen[3].tolist()


# -- learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides",
    [
        ["rl_script_args.max_episode_steps=5"],
        [
            "rl_script_args.bootstrap_timeouts=true",
            "rl_script_args.max_episode_steps=3",
            "rl_script_args.vector_backend=process",
        ],
        ["rl_script_args.name_environment=BabyAI-MixedTrainLocal-v0", "rl_script_args.normalize_advantages=true"],
    ],
    ids=["ends", "timeouts", "mixed"],
)
def test_the_first_ratio_is_one(open_agent, overrides):
    """Acting and updating see the same policy, also once weights and statistics have changed."""
    with open_agent(*overrides) as agent:
        for _ in range(3):
            stats = agent.update(agent.collect_rollout())
            assert stats["first_ratio_error"] < 1e-5
            assert stats["ratio_error"] > 1e-5
            assert stats["gradient_steps"] == 2 * 3


def statistics(agent):
    return {name: buffer.clone() for name, buffer in agent.policy.network.named_buffers()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_statistics_change_after_an_update_only(open_agent, monkeypatch):
    with open_agent("rl_script_args.symbolic.batch_size=32") as agent:
        before = statistics(agent)
        rollout = agent.collect_rollout()
        assert same(before, statistics(agent))
        take = agent.policy.take_statistics
        monkeypatch.setattr(agent.policy, "take_statistics", lambda views: None)
        agent.update(rollout)
        assert same(before, statistics(agent))
        # the first time they become those of the views: here of all 32, through the first convolution
        views = [view for row in rollout.observations for view in row]
        take(views)
        convolution, normalisation = agent.policy.network.convolutions[:2]
        images = torch.from_numpy(np.stack([view.image for view in views])).permute(0, 3, 1, 2).float()
        maps = convolution(images).detach()
        torch.testing.assert_close(normalisation.running_mean, maps.mean((0, 2, 3)), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(normalisation.running_var, maps.var((0, 2, 3)), atol=1e-5, rtol=1e-4)
        # then the mean of two times, as long as there are few
        mean = normalisation.running_mean.clone()
        take(views[:1])
        torch.testing.assert_close(
            normalisation.running_mean, (mean + maps[:1].mean((0, 2, 3))) / 2, atol=1e-5, rtol=1e-4
        )
        for _ in range(8):  # ten in all
            take(views[:1])
        mean = normalisation.running_mean.clone()
        take(views)  # from the eleventh on: a tenth of the way
        torch.testing.assert_close(
            normalisation.running_mean, 0.9 * mean + 0.1 * maps.mean((0, 2, 3)), atol=1e-5, rtol=1e-4
        )


def test_a_gradient_step_worked_out_by_hand(open_agent, monkeypatch):
    """Two samples of the policy (3/4, 1/4), of entropy 0.562335, and of value 1, through the biases of the last layers.

    sample  action  ratio       A   policy loss          v_old  R  value loss
    1       0       3/2         2   -1.2 * 2 (clipped)   0.5    3  max((1 - 3)^2, (0.5 + 0.2 - 3)^2) = 5.29
    2       1       1          -1   1                    1.1    0  max(1, (1.1 - 0.1 - 0)^2) = 1
    mean                            -0.7                           3.145
    """
    settings = ["action_space=[turn_left,turn_right]", "symbolic.lr=0.1", "adam_eps=1", "beta1=0.8", "beta2=0.7"]
    with open_agent(*(f"rl_script_args.{key}" for key in settings)) as agent:
        network = agent.policy.network
        actor, critic = network.actor[2].bias, network.critic[2].bias

        def unroll(views, steps):
            logits = (actor + torch.tensor([3.0, 1.0]).log()).expand(2, 2)
            return Unrolled(torch.log_softmax(logits, dim=1), (1 + critic).expand(2), empty_memory())

        monkeypatch.setattr(agent.policy, "unroll", unroll)
        old_log_probs, rest = torch.tensor([0.5, 0.25]).log(), [[0.5, 1.1], [2.0, -1.0], [3.0, 0.0]]
        samples = Samples([None] * 2, torch.tensor([0, 1]), old_log_probs, *map(torch.tensor, rest))
        stats = agent._minibatch_step(samples)
        assert agent.optimizer.param_groups[0]["betas"] == (0.8, 0.7)
    assert (stats["policy_loss"], stats["value_loss"], stats["entropy"]) == pytest.approx((-0.7, 3.145, 0.562335))
    assert stats["loss"] == pytest.approx(-0.7 - 0.01 * 0.562335 + 0.5 * 3.145)
    assert (stats["clip_fraction"], stats["ratio_error"]) == pytest.approx((0.5, 0.5))
    # what is clipped has no gradient. value: 0.5 * 2 * 1 / 2 = 0.5; logits: 1 * (-3/4, 3/4) / 2 of the policy, and
    # 0.01 * p * (log p + entropy) = 0.01 * (0.205990, -0.205990) of the entropy: (-0.372940, 0.372940)
    assert stats["grad_norm"] == pytest.approx(0.726752, rel=1e-5)  # sqrt(0.25 + 2 * 0.372940^2)
    # clipped to 0.5, by the factor 0.687993: 0.343996 and 0.256580; Adam's first step is lr * g / (|g| + eps)
    assert critic.item() == pytest.approx(-0.1 * 0.343996 / 1.343996, rel=1e-4)
    assert actor.tolist() == pytest.approx([0.1 * 0.256580 / 1.256580, -0.1 * 0.256580 / 1.256580], rel=1e-4)


def test_logged_losses_are_means_over_all_minibatches(open_agent, monkeypatch):
    with open_agent() as agent:
        steps, original = [], agent._minibatch_step
        monkeypatch.setattr(agent, "_minibatch_step", lambda samples: steps.append(original(samples)) or steps[-1])
        stats = agent.update(agent.collect_rollout())
    assert len(steps) == 6
    for name in ("policy_loss", "value_loss", "entropy", "loss", "grad_norm"):
        assert stats[name] == pytest.approx(sum(step[name] for step in steps) / 6)
    assert len({step["value_loss"] for step in steps}) == 6
    # the loss's own definition, with the base's coefficients
    for step in steps:
        total = step["policy_loss"] - 0.01 * step["entropy"] + 0.5 * step["value_loss"]
        assert step["loss"] == pytest.approx(total, abs=1e-5)


def test_timeouts_are_worth_their_last_state_with_its_memory(open_agent, monkeypatch):
    with open_agent("rl_script_args.bootstrap_timeouts=true", "rl_script_args.max_episode_steps=3") as agent:
        reached_at, original = [], agent._next_observations

        def spy(actions, step):
            following, reached = original(actions, step)
            reached_at.append(reached)
            return following, reached

        monkeypatch.setattr(agent, "_next_observations", spy)
        rollout = agent.collect_rollout()
        timed_out = (rollout.ends & (rollout.rewards == 0)).nonzero().tolist()
        assert len(timed_out) >= 6
        for t, i in timed_out:
            if t < 2:
                continue
            episode = [rollout.observations[s][i] for s in range(t - 2, t + 1)]
            assert [view.first for view in episode] == [True, False, False]
            last = reached_at[t][i]
            with torch.no_grad():
                value = agent.policy.unroll([*episode, last], steps=4).values[-1]
                without = agent.policy.unroll([last._replace(first=True)]).values[0]
            torch.testing.assert_close(rollout.end_values[t, i], value)
            assert (value - without).abs() > 1e-6
        assert (rollout.end_values[~rollout.ends] == 0).all()


def test_actions_beyond_the_environments_are_done(open_agent):
    nine = "[turn_left,turn_right,go_forward,pick_up,drop,toggle,sleep,do_nothing,think]"
    with open_agent(f"rl_script_args.action_space={nine}") as agent:
        assert agent._environment_actions(np.arange(9)).tolist() == [0, 1, 2, 3, 4, 5, 6, 6, 6]
        assert agent.collect_rollout().actions.max() > 5


# -- the agent of tests -----------------------------------------------------------------------------------------------


def test_the_tested_agent_remembers_per_environment():
    policy, rng = make_policy(), np.random.default_rng(5)
    agent = SymbolicTestAgent(policy)
    views = random_views(rng, 6)

    def view(seen, environment, first):
        observation = {"image": seen.image, "mission": "not as the test words it"}
        return View(None, seen.mission, observation, {}, environment, first)

    agent.decide([view(views[0], 3, True), view(views[1], 0, True)])
    agent.decide([view(views[2], 0, False)])  # environment 3 is done
    second = agent.decide([view(views[3], 3, True), view(views[4], 0, False)])
    with torch.no_grad():
        alone = policy.unroll([views[1], views[2], views[4]], steps=3)
        fresh = policy.unroll([views[3]])
    np.testing.assert_allclose(second.log_probs[1], alone.log_probs[2].numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(second.values[1], alone.values[2].numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(second.log_probs[0], fresh.log_probs[0].numpy(), rtol=1e-5, atol=1e-6)


# -- what cannot be used ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["symbolic.recurrence=3"], "symbolic.frames_per_proc=8 is not a multiple of symbolic.recurrence=3"),
        (["symbolic.batch_size=10"], "symbolic.batch_size=10 is not a multiple of symbolic.recurrence=4"),
        (["symbolic.recurrence=0"], "symbolic.recurrence=0: give a number above 0"),
        (["prompter=environment"], "one output for each of action_space, use prompter=glam, or symbolic.encoder=mlp"),
        (["bot=true"], "bot and symbolic_ppo are both true"),
        (
            ["name_environment=CartPole-v1"],
            "name_environment=CartPole-v1: Symbolic-PPO needs an image .* gives no image",
        ),
        (
            ["name_environment=ToyKitchen-v0", "env_packages=[tests.experiments.toy_text_env]"],
            "name_environment=ToyKitchen-v0: Symbolic-PPO needs an image",
        ),
    ],
)
def test_bad_input(symbolic, overrides, message):
    with pytest.raises(UserError, match=message):
        check_environment(
            make_config([*symbolic, "rl_script_args.symbolic_ppo=true", *(f"rl_script_args.{o}" for o in overrides)]).rl
        )


def test_a_checkpoint_of_another_shape(tmp_path):
    SymbolicPolicy(6).save(tmp_path)
    with pytest.raises(UserError, match=r"another network \(actor\.2\.bias: \(6,\) there, \(9,\) here\)"):
        SymbolicPolicy(9).load(tmp_path)


def test_the_section_replaces_keys_of_the_same_name(symbolic):
    rates = [f"rl_script_args.{key}" for key in ("lr=1", "symbolic.discount=0.5", "symbolic.gae_lambda=0.6")]
    rl = make_config([*symbolic, "rl_script_args.symbolic_ppo=true", *rates]).rl
    assert (rl.number_envs, rl.frames_per_proc, rl.epochs, rl.batch_size, rl.lr) == (4, 8, 2, 12, 1e-4)
    assert (rl.discount, rl.gae_lambda) == (0.5, 0.6)
    assert dataclasses.asdict(rl.symbolic)["recurrence"] == 4
