"""DRRN's GRU on a CPU against torch's, one text at a time."""

import numpy as np
import torch
from torch import nn

from experiments.agents.drrn.gru import _Scan, last_states, pack
from experiments.agents.drrn.network import DRRN

TEXTS = [np.array(text, dtype=np.uint16) for text in ([3], [1, 2, 3, 4, 2], [7, 7], [1, 2, 3, 4, 2], [5, 0, 6, 1])]


def plain(gru, embedding, texts):
    return torch.cat([gru(embedding(torch.from_numpy(text.astype(np.int64)))[:, None])[1][0] for text in texts])


def test_packing_by_hand():
    packed = pack([np.array([3]), np.array([1, 2, 4]), np.array([7, 8])])
    assert packed.rows == [3, 2, 1]
    assert packed.pieces.tolist() == [1, 7, 3, 2, 8, 4]
    assert packed.last.tolist() == [2, 5, 4]


def test_states_and_gradients_are_those_of_torchs_gru():
    torch.manual_seed(0)
    gru, embedding = nn.GRU(6, 5).double(), nn.Embedding(9, 6).double()
    weights = torch.randn(len(TEXTS), 5, dtype=torch.float64)
    parameters = [*gru.parameters(), *embedding.parameters()]
    found, expected = last_states(gru, embedding, TEXTS), plain(gru, embedding, TEXTS)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    of_found = torch.autograd.grad((weights * found).sum(), parameters)
    of_expected = torch.autograd.grad((weights * expected).sum(), parameters)
    for one, other in zip(of_found, of_expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_gradients_by_finite_differences():
    torch.manual_seed(1)
    gates, weight, bias = (
        torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((6, 9), (9, 3), (9,))
    )
    assert torch.autograd.gradcheck(lambda *inputs: _Scan.apply(*inputs, [3, 2, 1]), (gates, weight, bias))


def test_repeated_states_are_read_once_and_change_nothing():
    torch.manual_seed(2)
    network = DRRN(vocabulary=9, embedding=6, hidden=5)
    candidates = [[(1,), (2, 3)], [(4,)], [(1,)], [(4,), (2, 3), (5,)], [(6,)]]
    together = network(TEXTS, candidates)
    for row, (text, actions) in enumerate(zip(TEXTS, candidates, strict=True)):
        alone = network([text], [actions])[0]
        torch.testing.assert_close(together[row, : len(actions)], alone, rtol=0, atol=1e-6)
