"""A GRU over texts of unequal length on a CPU: `torch.nn.GRU`'s numbers, up to the order of sums, in less time.

torch records a dozen small operations per step of the sequence, projects every token of every text, and goes on over
padding. Here each step computes only unfinished texts, the input projection is made once per distinct piece, and most
of the backward pass is a few operations over all steps.

Letters: P tokens of all texts, N texts, H hidden units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn


class Packed(NamedTuple):
    """N texts, longest first, step by step: the first piece of all, the second one of those that have it, and so on."""

    pieces: Tensor  # (P,) long
    rows: list[int]  # per step, the number of texts that have a piece there
    last: Tensor  # (N,) long, the place of each given text's last piece


def pack(texts: Sequence[np.ndarray]) -> Packed:
    """Packs texts, (L,) numbers of pieces each, L at least 1."""
    lengths = np.array([len(text) for text in texts])
    order = np.argsort(-lengths, kind="stable")
    steps = np.arange(lengths.max())
    rows = (lengths[:, None] > steps).sum(axis=0)
    padded = np.zeros((len(steps), len(texts)), dtype=np.int64)
    for row, text in enumerate(order):
        padded[: lengths[text], row] = texts[text]
    pieces = padded[steps[:, None] < lengths[order]]  # row by row: a step after the other
    starts = np.concatenate([[0], rows.cumsum()[:-1]])
    row_of = np.empty(len(texts), dtype=np.int64)
    row_of[order] = np.arange(len(texts))
    return Packed(torch.from_numpy(pieces), rows.tolist(), torch.from_numpy(starts[lengths - 1] + row_of))


def last_states(gru: nn.GRU, embedding: nn.Embedding, texts: Sequence[np.ndarray]) -> Tensor:
    """(N, H) states of a GRU of one layer after the last piece of each text, from a state of zeros."""
    packed = pack(texts)
    distinct, place = packed.pieces.unique(return_inverse=True)
    weights = dict(gru.named_parameters())
    projected = nn.functional.linear(embedding(distinct), weights["weight_ih_l0"], weights["bias_ih_l0"])
    gates = nn.functional.embedding(place, projected)
    states = _Scan.apply(gates, weights["weight_hh_l0"], weights["bias_hh_l0"], packed.rows)
    return states[packed.last]


class _Scan(torch.autograd.Function):
    """States (P, H) after every piece; of `torch.nn.GRU`'s documentation

    r = sigmoid(g_r + W_hr h + b_hr), z likewise, n = tanh(g_n + r (W_hn h + b_hn)), h' = (1 - z) n + z h.
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor, bias: Tensor, rows: list[int]) -> Tensor:
        """
        Args:
            gates: (P, 3H) projected inputs g, biases included, in the order r, z, n.
            weight, bias: (3H, H), (3H,) of the recurrence.
            rows: per step.
        """
        size = weight.shape[1]
        weight_t = weight.t().contiguous()
        before, after, new = (gates.new_empty(len(gates), size) for _ in range(3))
        hidden = gates.new_empty(len(gates), 3 * size)  # W h + b; in place of r and z their sigmoids
        state = gates.new_zeros(rows[0], size)
        resets, updates, inners = (part.split(rows) for part in hidden.split(size, dim=1))
        both, given = hidden[:, : 2 * size].split(rows), gates[:, : 2 * size].split(rows)
        steps = zip(
            before.split(rows), hidden.split(rows), both, given, resets, updates, inners,
            gates[:, 2 * size :].split(rows), new.split(rows), after.split(rows), strict=True,
        )  # fmt: skip
        for old, all_three, r_and_z, g_rz, r, z, inner, g_n, n, next_state in steps:
            state = old.copy_(state[: len(old)])
            torch.addmm(bias, state, weight_t, out=all_three)
            r_and_z.add_(g_rz).sigmoid_()
            torch.addcmul(g_n, r, inner, out=n)
            state = torch.lerp(n.tanh_(), state, z, out=next_state)
        ctx.save_for_backward(weight, before, hidden, new)
        ctx.rows = rows
        return after

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        weight, before, hidden, new = ctx.saved_tensors
        size = weight.shape[1]
        reset, update, inner = hidden.split(size, dim=1)
        # local derivatives, without the gradient from later steps
        by_update = (before - new) * update * (1 - update)
        by_new = (1 - update) * (1 - new * new)
        by_reset = by_new * inner * reset * (1 - reset)
        by_inner = by_new * reset
        local = torch.cat([by_reset, by_update, by_inner], dim=1)  # (P, 3H), by W h + b
        by_hidden = torch.empty_like(local)
        total = grad.clone()  # of a state, by all later steps
        steps = zip(
            total.split(ctx.rows), local.view(-1, 3, size).split(ctx.rows), by_hidden.split(ctx.rows),
            by_hidden.view(-1, 3, size).split(ctx.rows), update.split(ctx.rows), strict=True,
        )  # fmt: skip
        later = grad.new_zeros(0, size)
        for of_state, factors, of_hidden, of_gates, z in reversed(list(steps)):
            of_state[: len(later)].add_(later)
            torch.mul(factors, of_state[:, None], out=of_gates)
            later = torch.addmm(of_state * z, of_hidden, weight)
        by_gates = torch.cat([by_hidden[:, : 2 * size], total * by_new], dim=1)
        return by_gates, by_hidden.t() @ before, by_hidden.sum(dim=0), None
