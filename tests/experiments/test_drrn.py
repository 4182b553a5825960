"""DRRN's parts: network, loss and replay memory, each against a slow or hand-worked counterpart."""

import errno
import math
import os
import shutil

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from experiments.agents.drrn.drrn_agent import DRRNAgent, DRRNConfig
from experiments.agents.drrn.drrn_policy import DRRNPolicy, DRRNTestAgent
from experiments.agents.drrn.network import DRRN
from experiments.agents.drrn.replay_memory import EncodedState, ReplayMemory, Transition
from experiments.agents.drrn.td_learning import td_targets
from experiments.agents.drrn.vocabulary import Vocabulary
from experiments.configuration import DRRNArgs
from experiments.errors import UserError
from experiments.prompters import TextState
from tests.experiments.conftest import ROOT

ARGS = DRRNArgs(
    vocabulary=8000, embedding=4, hidden=5, discount=0.9, lr=1e-3, batch_size=4, max_grad_norm=0.5, memory=100,
    update_every=4,
)  # fmt: skip


def text(prompt, *candidates):
    return TextState(prompt, list(candidates), list(range(len(candidates))))


def test_the_published_settings():
    assert OmegaConf.load(ROOT / "configs" / "base.yaml").rl_script_args.drrn == {
        "vocabulary": 8000, "embedding": 128, "hidden": 128, "discount": 0.9, "lr": 1e-4, "batch_size": 64,
        "max_grad_norm": 5, "memory": 5_000_000, "update_every": 4,
    }  # fmt: skip


# -- network ----------------------------------------------------------------------------------------------------------


def gru_by_hand(gru, embedded):
    """Last state of a one-layer GRU from its equations (Cho et al. 2014, in torch's parametrisation), in float64."""
    w_i, w_h, b_i, b_h = (p.detach().double().numpy() for p in gru.parameters())
    state = np.zeros(gru.hidden_size)
    for x in embedded:
        i_r, i_z, i_n = np.split(w_i @ x + b_i, 3)
        h_r, h_z, h_n = np.split(w_h @ state + b_h, 3)
        r, z = 1 / (1 + np.exp(-i_r - h_r)), 1 / (1 + np.exp(-i_z - h_z))
        state = (1 - z) * np.tanh(i_n + r * h_n) + z * state
    return state


def q_by_hand(network, state, action):
    embedding = network.embedding.weight.detach().double().numpy()
    joint = np.concatenate(
        [gru_by_hand(network.state_encoder, embedding[state]), gru_by_hand(network.action_encoder, embedding[action])]
    )
    first, _, last = network.q
    hidden = np.maximum(0, first.weight.detach().double().numpy() @ joint + first.bias.detach().double().numpy())
    return (last.weight.detach().double().numpy() @ hidden).item() + last.bias.item()


def test_q_values_of_a_batch_are_those_of_each_pair_alone():
    """States of 1 to 12 pieces with 1 to 4 actions of their own; -inf where a state has no such action."""
    torch.manual_seed(0)
    network = DRRN(30, 4, 5)
    rng = np.random.default_rng(0)
    states = [rng.integers(0, 30, size=length).astype(np.uint16) for length in (12, 1, 7, 3)]
    candidates = [[(1, 2, 3)], [(4,), (1, 2, 3)], [(5, 6), (7,), (8, 9, 10, 11)], [(4,), (4,), (1,), (29, 29)]]
    values = network(states, candidates)
    assert values.shape == (4, 4)
    for i, row in enumerate(candidates):
        for j in range(4):
            if j >= len(row):
                assert values[i, j] == -math.inf
            else:
                assert values[i, j].item() == pytest.approx(q_by_hand(network, states[i], list(row[j])), abs=1e-6)


def test_sizes_of_the_published_network():
    """Embedding 128, GRUs of 128 for state and action, 256 -> 128 -> 1."""
    shapes = {name: tuple(p.shape) for name, p in DRRN(8000, 128, 128).named_parameters() if "bias" not in name}
    assert shapes == {
        "embedding.weight": (8000, 128),
        "state_encoder.weight_ih_l0": (384, 128),
        "state_encoder.weight_hh_l0": (384, 128),
        "action_encoder.weight_ih_l0": (384, 128),
        "action_encoder.weight_hh_l0": (384, 128),
        "q.0.weight": (128, 256),
        "q.2.weight": (1, 128),
    }


# -- loss -------------------------------------------------------------------------------------------------------------


def test_targets():
    # 1 + 0.9 * 10; 20 with nothing to bootstrap from; 0.9^3 * 2 = 1.458 after an action of three steps
    targets = td_targets(
        torch.tensor([1.0, 20.0, 0.0]), torch.tensor([10.0, 0.0, 2.0]), torch.tensor([1, 1, 3]), gamma=0.9
    )
    torch.testing.assert_close(targets, torch.tensor([10.0, 20.0, 1.458]))


class TablePolicy:
    """Q-values from a table: (first piece of the prompt, action) -> Q, times a factor that can be learned."""

    def __init__(self, table):
        self.table = table
        self.network = torch.nn.Module()
        self.network.factor = torch.nn.Parameter(torch.tensor(1.0))
        self.network.device = torch.device("cpu")

    def q_values(self, prompts, candidates):
        width = max(map(len, candidates))
        rows = [
            [self.table[int(prompt[0]), action] for action in row] + [-math.inf] * (width - len(row))
            for prompt, row in zip(prompts, candidates, strict=True)
        ]
        return torch.tensor(rows) * self.network.factor


class NoEnvs:
    num_envs = 1


def test_a_gradient_step_worked_out_by_hand(monkeypatch):
    """Huber loss with threshold 1: half the squared error up to 1, |error| - 1/2 beyond.

    transition          target                    Q     error   loss
    going on            0 + 0.9 * max(2, -1)      1.5   -0.3    0.045
    success             20                        5     -15     14.5
    time-out            0                         0.4   0.4     0.08
    time-out, bootstr.  0 + 0.9^2 * max(3) = 2.43 0.43  -2      1.5
    """
    table = {(1, "a"): 1.5, (2, "a"): 2.0, (2, "b"): -1.0, (3, "a"): 5.0, (4, "b"): 0.4, (5, "b"): 0.43, (6, "c"): 3.0}
    nothing = np.array([], dtype=np.uint16)
    batch = [
        Transition(np.array([1]), "a", 0.0, 1, np.array([2]), ["a", "b"]),
        Transition(np.array([3]), "a", 20.0, 1, nothing, []),
        Transition(np.array([4]), "b", 0.0, 1, nothing, []),
        Transition(np.array([5]), "b", 0.0, 2, np.array([6]), ["c"]),
    ]
    agent = DRRNAgent(NoEnvs(), [], TablePolicy(table), DRRNConfig(8, 20.0, True, 10, ARGS), seed=1)
    monkeypatch.setattr(agent.memory, "sample", lambda count, generator: batch)
    loss, norm = agent._gradient_step()
    assert loss == pytest.approx((0.045 + 14.5 + 0.08 + 1.5) / 4)
    # d loss / d factor = mean of Q * clip(error, -1, 1): (1.5 * -0.3 + 5 * -1 + 0.4 * 0.4 + 0.43 * -1) / 4; the targets
    # are constants of it
    assert norm == pytest.approx(abs(-0.45 - 5 + 0.16 - 0.43) / 4)
    assert abs(agent.policy.network.factor.grad.item()) == pytest.approx(0.5, rel=1e-4)  # clipped to max_grad_norm
    assert agent.policy.network.factor.item() == pytest.approx(1 + 1e-3)  # Adam's first step is lr, against the sign


def test_the_policy_is_the_softmax_of_q_and_the_value_its_maximum(vocabulary):
    policy = DRRNPolicy(DRRN(len(vocabulary), 4, 5), vocabulary)
    states = policy.encode([text("You see", "turn left", "go forward", "toggle"), text("", "turn left")])
    q = policy.q_values([s.pieces for s in states], [s.text.candidates for s in states])
    decided = policy.decide(states)
    np.testing.assert_allclose(
        np.exp(decided.log_probs[0]), np.exp(q[0].detach()) / np.exp(q[0].detach()).sum(), rtol=1e-5
    )
    np.testing.assert_array_equal(decided.log_probs[1], [0, -np.inf, -np.inf])
    np.testing.assert_allclose(decided.values, [q[0].max().item(), q[1, 0].item()])
    assert DRRNTestAgent(policy).name == "drrn"


# -- replay memory ----------------------------------------------------------------------------------------------------


def fill(memory, steps, rng, expected):
    """Random steps into the memory, and what each transition must be replayed as into `expected`."""
    count = memory.environments
    for _ in range(steps):
        states = [
            EncodedState(
                rng.integers(0, 65536, size=rng.integers(1, 2000)).astype(np.uint16),
                text("", *(f"action {i}" for i in rng.permutation(9)[: rng.integers(1, 5)])),
            )
            for _ in range(count)
        ]
        for i, state in enumerate(states):  # what the last step of each environment led to
            before = expected[len(expected) - count + i] if len(expected) >= count else None
            if before is not None and before[4] is None:
                before[4:] = [state.pieces, state.text.candidates]
        actions = np.array([rng.integers(len(state.text.candidates)) for state in states])
        ended = rng.random(count) < 0.3
        kept = {i: states[0] for i in np.flatnonzero(ended) if rng.random() < 0.5}
        rewards, durations = rng.random(count), rng.integers(1, 4, size=count)
        memory.add(states, actions, rewards, ended, durations.tolist(), kept)
        for i, state in enumerate(states):
            following = [None, None]
            if ended[i]:
                following = [kept[i].pieces, kept[i].text.candidates] if i in kept else [[], []]
            action = state.text.candidates[actions[i]]
            expected.append([state.pieces, action, np.float32(rewards[i]), durations[i], *following])


def assert_replays(memory, expected):
    """Exactly the newest `capacity` transitions but for the last step's, each as it was."""
    oldest = max(0, len(expected) - memory.capacity)
    assert len(memory) == max(0, len(expected) - memory.environments - oldest)
    for number in range(oldest, len(expected) - memory.environments):
        for got, wanted in zip(memory._transition(number), expected[number], strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_the_memory_against_a_plain_list():
    """Segments of 5 do not divide 23 transitions, nor steps of 3 environments; it wraps round several times."""
    rng = np.random.default_rng(0)
    memory, expected = ReplayMemory(23, 3, segment=5), []
    for _ in range(40):
        fill(memory, 1, rng, expected)
        assert_replays(memory, expected)
        assert len(memory.segments) <= 6  # ceil(23 / 5) and one that has just begun or is about to go


def test_sampling_is_uniform_over_what_may_be_replayed():
    rng = np.random.default_rng(0)
    memory, expected = ReplayMemory(10, 2, segment=4), []
    fill(memory, 20, rng, expected)  # 40 transitions: 30 to 37 may be replayed, 38 and 39 wait for their next state
    rewards = [expected[number][2] for number in range(30, 38)]
    drawn = [t.reward for t in memory.sample(8000, np.random.default_rng(1))]
    counts = [drawn.count(reward) for reward in rewards]
    assert sum(counts) == 8000
    assert min(counts) > 850  # 1000 each, standard deviation 30
    assert max(counts) < 1150


def test_the_memory_is_compact():
    """A transition of 150 pieces and six actions takes 2 bytes a piece and less than 150 more."""
    memory = ReplayMemory(100_000, 4, segment=1024)
    state = EncodedState(np.arange(150, dtype=np.uint16), text("", *"abcdef"))
    for _ in range(1024):
        memory.add([state] * 4, np.zeros(4, int), np.zeros(4), np.zeros(4, bool), [1] * 4, {})
    held = [
        a
        for s in memory.segments.values()
        for a in (*s.columns.values(), *vars(s.pieces).values(), *vars(s.candidates).values())
    ]
    assert len(memory.segments) == 4
    assert sum(array.nbytes for array in held) / 4096 < 2 * 150 + 150


def test_full_segments_are_linked_and_what_is_read_back_goes_on(tmp_path):
    rng = np.random.default_rng(0)
    memory, expected = ReplayMemory(60, 3, segment=10), []
    fill(memory, 9, rng, expected)  # 27 transitions: two full segments
    memory.save(tmp_path / "one", tmp_path / "none")
    fill(memory, 1, rng, expected)  # the third is full now
    memory.save(tmp_path / "two", tmp_path / "one")
    inodes = [{path.name: path.stat().st_ino for path in (tmp_path / name).iterdir()} for name in ("one", "two")]
    assert [inodes[0][f"00000{i}.safetensors"] == inodes[1][f"00000{i}.safetensors"] for i in range(3)] == [
        True,
        True,
        False,
    ]
    again = ReplayMemory(60, 3, segment=10)
    again.load(tmp_path / "two")
    again.set_state(memory.get_state())
    assert_replays(again, expected)
    both, copies = (memory, again), (expected, [list(row) for row in expected])
    for one, rows in zip(both, copies, strict=True):
        fill(one, 30, np.random.default_rng(2), rows)
        assert_replays(one, rows)
    again.save(tmp_path / "three", tmp_path / "two")
    assert sorted(path.name for path in (tmp_path / "three").iterdir())[0] == "000006.safetensors"  # from 120 - 60 on


def test_segments_are_copied_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    memory, expected = ReplayMemory(60, 2, segment=4), []
    fill(memory, 5, np.random.default_rng(0), expected)  # 10 transitions: two full segments
    for previous, name in (("none", "one"), ("one", "two"), ("two", "three")):
        memory.save(tmp_path / name, tmp_path / previous)
    shutil.rmtree(tmp_path / "one")
    again = ReplayMemory(60, 2, segment=4)
    again.load(tmp_path / "three")
    again.set_state(memory.get_state())
    assert_replays(again, expected)


def test_a_segment_is_not_linked_to_another_file_of_its_name(tmp_path):
    rng = np.random.default_rng(0)
    memory, expected = ReplayMemory(60, 2, segment=4), []
    fill(memory, 2, rng, expected)
    memory.save(tmp_path / "one", tmp_path / "none")
    (tmp_path / "one" / "000000.safetensors").rename(tmp_path / "kept")
    (tmp_path / "one" / "000000.safetensors").write_bytes(b"of another run")
    memory.save(tmp_path / "two", tmp_path / "one")
    again = ReplayMemory(60, 2, segment=4)
    again.load(tmp_path / "two")
    again.set_state(memory.get_state())
    assert_replays(again, expected)


# -- vocabulary -------------------------------------------------------------------------------------------------------


def test_pieces(vocabulary):
    assert vocabulary.encode("turn left").tolist() == [*vocabulary.action("turn"), *vocabulary.action("left")]
    assert len(vocabulary.encode("")) == 1
    unknown = vocabulary.encode("")[0]
    assert unknown not in vocabulary.encode("a Ωord of other letters")  # those are bytes


@pytest.mark.parametrize("content", [b"something else", b""])
def test_a_file_that_is_no_sentencepiece_model(tmp_path, content):
    (tmp_path / "spm.model").write_bytes(content)
    with pytest.raises(UserError, match=r"rl_script_args\.spm_path=.*is no sentencepiece model"):
        Vocabulary(tmp_path / "spm.model")
