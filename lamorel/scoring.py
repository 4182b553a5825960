"""Log-likelihoods of candidates from the logits of their prefix trees.

    score(c | context) = sum over t of log_softmax(logits(context, c[:t]))[c[t]]        (fp32, natural logarithm)

The functions `nodes_from_...` give the logits of every node of every context's tree, (R, V): by continuing the cache
of the root step, or by plain forwards. `lamorel.packed_...` are the faster ways to the same logits.
`scores_of_equal_lengths` does without trees.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch

from lamorel.forwards import Forwards, Root, Row
from lamorel.tokenization import TokenIds
from lamorel.trie import Trie


class TokenScores(NamedTuple):
    """Per candidate token, in the order contexts, candidates, tokens."""

    logprob: torch.Tensor  # (N,) fp32
    logit: torch.Tensor  # (N,) fp32, raw


def read_scores(logits: torch.Tensor, tries: Sequence[Trie]) -> TokenScores:
    """The scores of all candidate tokens.

    Args:
        logits: (R, V) of the nodes of all trees, in the order contexts, nodes.
        tries: per context.
    """
    cells = []
    first = 0
    for trie in tries:
        cells += [(first + node, token) for node, token in trie.reads]
        first += len(trie)
    index = torch.tensor(cells, dtype=torch.int64, device=logits.device).reshape(-1, 2)
    logits = logits.float()
    logit = logits[index[:, 0], index[:, 1]]
    return TokenScores(logit - logits.logsumexp(dim=-1)[index[:, 0]], logit)


def nodes_from_cache(forwards: Forwards, root: Root, tries: Sequence[Trie], *, rows_per_forward: int) -> torch.Tensor:
    """Logits (R, V) of all nodes, continued from the cache of the root step.

    Args:
        root: of the contexts, with a cache.
        tries: per context.
        rows_per_forward: cap on the rows decoded at once.
    """

    def run(rows: Sequence[Row]) -> torch.Tensor:
        return forwards.continuation(root, rows)

    return _decode(tries, run, rows_per_forward=rows_per_forward, root_logits=root.logits)


def nodes_from_pairs(
    forwards: Forwards, contexts: Sequence[TokenIds], tries: Sequence[Trie], *, rows_per_forward: int
) -> torch.Tensor:
    """The same by plain forwards over whole (context, prefix) pairs: for models whose cache cannot be continued."""

    def run(rows: Sequence[Row]) -> torch.Tensor:
        view = forwards.pairs(contexts, rows, hidden_states=False)
        return view.forward_outputs.logits[:, view.root :]

    return _decode(tries, run, rows_per_forward=rows_per_forward, root_logits=None)


def scores_of_equal_lengths(
    forwards: Forwards,
    contexts: Sequence[TokenIds],
    candidates: Sequence[Sequence[TokenIds]],
    *,
    rows_per_forward: int,
) -> TokenScores:
    """The scores from forwards over whole (context, candidate) pairs, each over pairs of equal lengths: no padding.

    For models that padding disturbs, and for those that are not causal, where a token changes the logits before it.
    """
    rows = [(context, ids) for context, group in enumerate(candidates) for ids in group]
    alike: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, (context, ids) in enumerate(rows):
        if ids:
            alike[len(contexts[context]), len(ids)].append(i)
    empty = torch.zeros(0, device=forwards.device)
    found = {i: TokenScores(empty, empty) for i in range(len(rows))}
    for (_, length), members in alike.items():
        for some in _slices(len(members), rows_per_forward):
            view = forwards.pairs(contexts, [rows[i] for i in members[some]], hidden_states=False)
            logits = view.forward_outputs.logits[:, view.root : view.root + length].float()
            tokens = torch.tensor([rows[i][1] for i in members[some]], device=logits.device)[:, :, None]
            logit = logits.gather(2, tokens)[:, :, 0]
            logprob = logit - logits.logsumexp(dim=2)
            found |= {i: TokenScores(*pair) for i, *pair in zip(members[some], logprob, logit, strict=True)}
    parts = [found[i] for i in range(len(rows))] or [TokenScores(empty, empty)]
    return TokenScores(torch.cat([part.logprob for part in parts]), torch.cat([part.logit for part in parts]))


def per_candidate(scores: TokenScores, candidates: Sequence[Sequence[TokenIds]]) -> dict[str, tuple[torch.Tensor, ...]]:
    """The built-in keys, per context (K_c,): `__score`, `__logits` (sums over tokens) and `__tokens` (their number)."""
    lengths = torch.tensor([len(ids) for group in candidates for ids in group], device=scores.logit.device)
    owner = torch.repeat_interleave(lengths)
    sizes = [len(group) for group in candidates]

    def total(values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return values.new_zeros(len(lengths)).index_add(0, owner, values).split(sizes)

    return {"__score": total(scores.logprob), "__tokens": lengths.split(sizes), "__logits": total(scores.logit)}


def _decode(
    tries: Sequence[Trie],
    run: Callable[[Sequence[Row]], torch.Tensor],
    *,
    rows_per_forward: int,
    root_logits: torch.Tensor | None,
) -> torch.Tensor:
    """Logits of all nodes from forwards over sequences of nodes.

    Args:
        run: logits (rows, positions, V) of some rows. Position 0 is the root, or, where `root_logits` are given, the
            first token after it.
        root_logits: (C, V) of the roots, where they are known.
    """
    parts = [] if root_logits is None else [root_logits]
    rows: list[Row] = []
    nodes_of: list[list[tuple[int, int]]] = []  # per row: (node among all, position)
    order: list[int] = []
    first = 0
    for context, trie in enumerate(tries):
        paths, places = trie.rows()
        if root_logits is not None:
            order.append(first)
            paths = [path for path in paths if path]
        rows += [(context, path) for path in paths]
        nodes_of += [[] for _ in paths]
        for node, (row, position) in enumerate(places):
            if root_logits is None:
                nodes_of[row - len(paths)].append((first + node, position))
            elif node:
                nodes_of[row - len(paths)].append((first + node, position - 1))
        first += len(trie)
    for some in _slices(len(rows), rows_per_forward):
        logits = run(rows[some])
        cells = [(row, position) for row, nodes in enumerate(nodes_of[some]) for _, position in nodes]
        index = torch.tensor(cells, dtype=torch.int64, device=logits.device)
        parts.append(logits[index[:, 0], index[:, 1]])
        order += [node for nodes in nodes_of[some] for node, _ in nodes]
    place = torch.empty(len(order), dtype=torch.int64)
    place[order] = torch.arange(len(order))
    return torch.cat(parts)[place.to(parts[0].device)]


def _slices(total: int, size: int) -> Iterator[slice]:
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))
