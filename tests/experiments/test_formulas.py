"""The formulas against cases worked out by hand, and against an independent slow implementation."""

import math

import numpy as np
import pytest
import torch

from experiments.agents.ppo.action_scores import SCORE_RULES, CandidateOutputs, candidate_outputs, entropy, log_policy
from experiments.agents.ppo.advantages import compute_gae
from experiments.agents.ppo.losses import approximate_kl, broadcast_value_loss, policy_loss, ppo_loss, value_loss


def column(*values):
    return torch.tensor(values, dtype=torch.float32)[:, None]


def ends(*values):
    return torch.tensor(values)[:, None]


class TestGAE:
    """Three steps of one environment: rewards 1, 2, 3; values 1; value 2 after the last step; gamma = lambda = 0.5."""

    def gae(self, **options):
        options = {"ends": ends(False, False, False), "gamma": 0.5, "lam": 0.5, **options}
        return compute_gae(column(1, 2, 3), column(1, 1, 1), last_values=torch.tensor([2.0]), **options)

    def test_no_end(self):
        # delta_2 = 3 + 0.5*2 - 1 = 3;      A_2 = 3
        # delta_1 = 2 + 0.5*1 - 1 = 1.5;    A_1 = 1.5 + 0.25*3 = 2.25
        # delta_0 = 1 + 0.5*1 - 1 = 0.5;    A_0 = 0.5 + 0.25*2.25 = 1.0625
        result = self.gae()
        torch.testing.assert_close(result.advantages, column(1.0625, 2.25, 3))
        torch.testing.assert_close(result.returns, column(2.0625, 3.25, 4))

    def test_episode_end_inside_the_rollout(self):
        # delta_1 = 2 - 1 = 1 = A_1;        A_0 = 0.5 + 0.25*1 = 0.75
        result = self.gae(ends=ends(False, True, False))
        torch.testing.assert_close(result.advantages, column(0.75, 1, 3))

    def test_bootstrapped_timeout(self):
        # the last state of the episode is worth 4: delta_1 = 2 + 0.5*4 - 1 = 3 = A_1;  A_0 = 0.5 + 0.25*3 = 1.25
        result = self.gae(ends=ends(False, True, False), end_values=column(9, 4, 9))
        torch.testing.assert_close(result.advantages, column(1.25, 3, 3))

    def test_end_on_the_last_step_ignores_the_last_value(self):
        # delta_2 = 3 - 1 = 2 = A_2;  A_1 = 1.5 + 0.25*2 = 2;  A_0 = 0.5 + 0.25*2 = 1
        torch.testing.assert_close(self.gae(ends=ends(False, False, True)).advantages, column(1, 2, 2))

    def test_an_action_of_two_steps_is_discounted_twice(self):
        # d_2 = 0.25: delta_2 = 3 + 0.25*2 - 1 = 2.5 = A_2;  A_1 = 1.5 + 0.25*2.5 = 2.125;  A_0 = 0.5 + 0.25*2.125
        result = self.gae(durations=torch.tensor([[1], [1], [2]]))
        torch.testing.assert_close(result.advantages, column(1.03125, 2.125, 2.5))

    def test_against_the_sum_over_future_deltas(self):
        """A_t = sum_k (gamma*lam)^k delta_{t+k} up to the episode's end (eq. 16), written without a recursion."""
        rng = np.random.default_rng(0)
        rewards, values = rng.normal(size=(12, 3)), rng.normal(size=(12, 3))
        done, last = rng.random((12, 3)) < 0.3, rng.normal(size=3)
        expected = np.zeros((12, 3))
        for n in range(3):
            for t in range(12):
                for k in range(t, 12):
                    following = 0.0 if done[k, n] else (values[k + 1, n] if k < 11 else last[n])
                    expected[t, n] += (0.9 * 0.8) ** (k - t) * (rewards[k, n] + 0.9 * following - values[k, n])
                    if done[k, n]:
                        break
        tensors = [torch.tensor(a) for a in (rewards, values, done, last)]
        result = compute_gae(*tensors, gamma=0.9, lam=0.8)
        np.testing.assert_allclose(result.advantages.numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("probability", "advantage", "expected"),
    [
        (0.75, 2.0, -2.4),  # ratio 1.5 is clipped to 1.2: -min(3, 2.4)
        (0.75, -2.0, 3.0),  # -min(-3, -2.4): a bad action that got likelier is not spared
        (0.30, 2.0, -1.2),  # ratio 0.6: -min(1.2, 1.6)
        (0.30, -2.0, 1.6),  # -min(-1.2, -1.6)
    ],
)
def test_policy_loss(probability, advantage, expected):
    new, old = torch.tensor([math.log(probability)]), torch.tensor([math.log(0.5)])
    torch.testing.assert_close(policy_loss(new, old, torch.tensor([advantage]), clip=0.2), torch.tensor([expected]))


def test_value_loss():
    # v = 2, v_old = 1, R = 3, eps = 0.5: (2-3)^2 = 1, clipped v = 1.5: (1.5-3)^2 = 2.25
    # v = 1.2: within the clip, (1.2-3)^2 = 3.24 both ways
    loss = value_loss(torch.tensor([2.0, 1.2]), torch.tensor([1.0, 1.0]), torch.tensor([3.0, 3.0]), clip=0.5)
    torch.testing.assert_close(loss, torch.tensor([2.25, 3.24]))


def test_broadcast_value_loss():
    # value 0 against (v_old, R) = (0, 1): 1; against (2, 3): max((0-3)^2, (2-1-3)^2) = 9; mean 5
    # value 2 against (0, 1): max((2-1)^2, (0+1-1)^2) = 1; against (2, 3): 1; mean 1
    values, targets = torch.tensor([0.0, 2.0]), torch.tensor([1.0, 3.0])
    loss = broadcast_value_loss(values, torch.tensor([0.0, 2.0]), targets, clip=1.0)
    torch.testing.assert_close(loss, torch.tensor([5.0, 1.0]))


def test_approximate_kl():
    # ratio 1.5: 0.5 - log 1.5 = 0.0945349
    kl = approximate_kl(torch.tensor([math.log(0.75)]), torch.tensor([math.log(0.5)]))
    torch.testing.assert_close(kl, torch.tensor([0.0945349]))


def test_ppo_loss():
    """Probability 0.75 after 0.5 (ratio 1.5, clipped to 1.2) with advantage 2, and 0.5 after 0.5 with advantage -2.

    Totals with coefficients 0.1 and 0.5: -2.4 - 0.0562335 + 2 and 2 - 0.0693147 + 0.5.
    """
    log_policy = torch.tensor([[0.75, 0.25], [0.5, 0.5]]).log()
    old, actions = torch.tensor([0.5, 0.5]).log(), torch.tensor([0, 0])
    terms = ppo_loss(log_policy, actions, old, torch.tensor([2.0, -2.0]), clip=0.2, value_loss=torch.tensor([4.0, 1.0]))
    expected = {
        "policy_loss": [-2.4, 2.0],
        "value_loss": [4.0, 1.0],
        "entropy": [0.5623351, 0.6931472],
        "approx_kl": [0.0945349, 0.0],
        "clip_fraction": [1.0, 0.0],
        "ratio_error": [0.5, 0.0],
    }
    for name, values in expected.items():
        torch.testing.assert_close(getattr(terms, name), torch.tensor(values))
    torch.testing.assert_close(terms.total(0.1, 0.5), torch.tensor([-0.4562335, 2.4306853]))
    means = terms.means()
    assert means == pytest.approx((-0.2, 2.5, 0.6277411, 0.04726745, 0.5, 0.5))
    assert means.total(0.1, 0.5) == pytest.approx(0.9872259)


def test_ppo_loss_without_values():
    terms = ppo_loss(torch.tensor([[0.0]]), torch.tensor([0]), torch.tensor([0.0]), torch.tensor([3.0]), clip=0.2)
    assert terms.value_loss.tolist() == [0.0]
    assert terms.total(0.1).tolist() == [-3.0]


CANDIDATES = CandidateOutputs(
    logprob=torch.tensor([-3.0, -1.0]),
    tokens=torch.tensor([3, 1]),
    words=torch.tensor([2, 1]),
    logits=torch.tensor([2.0, 1.0]),
)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("sum", [-3.0, -1.0]),
        ("token", [-1.0, -1.0]),
        ("word", [-1.5, -1.0]),
        ("logits", [2.0, 1.0]),
        ("logits_released", [2.0, 3.0]),  # the second is two tokens shorter
        ("max_scaled", [0.1353353, 1.0]),  # exp(-3) / exp(-1)
    ],
)
def test_score_rules(rule, expected):
    torch.testing.assert_close(SCORE_RULES[rule][0](CANDIDATES), torch.tensor(expected))


def test_words_are_counted_from_the_text():
    outputs = candidate_outputs({"__score": torch.tensor([-3.0, -1.0])}, ["go to the door", "drop"])
    assert outputs.words.tolist() == [4, 1]


def test_log_policy_of_unequal_lists():
    # scores 0 and log 3: probabilities 1/4 and 3/4; a single candidate has probability 1
    policy = log_policy([torch.tensor([0.0, math.log(3)]), torch.tensor([-7.0])]).exp()
    torch.testing.assert_close(policy, torch.tensor([[0.25, 0.75], [1.0, 0.0]]))


def test_temperature_flattens():
    # exp(log(3) / 2) = 1.7320508: 1 / 2.7320508 = 0.3660254
    policy = log_policy([torch.tensor([0.0, math.log(3)])], temperature=2.0).exp()
    torch.testing.assert_close(policy, torch.tensor([[0.3660254, 0.6339746]]))


def test_entropy_ignores_missing_candidates_and_has_a_gradient():
    # -(1/4 log 1/4 + 3/4 log 3/4) = 0.5623351; one candidate: 0
    scores = [torch.tensor([0.0, math.log(3)], requires_grad=True), torch.tensor([1.0], requires_grad=True)]
    result = entropy(log_policy(scores))
    torch.testing.assert_close(result, torch.tensor([0.5623351, 0.0]))
    result.sum().backward()
    assert all(torch.isfinite(s.grad).all() for s in scores)
    assert scores[0].grad.abs().sum() > 0
