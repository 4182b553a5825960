"""Log-likelihoods of candidates: which forwards are needed, and which logits are read.

    score(c | context) = sum over t of log_softmax(logits(context, c[:t]))[c[t]]        (fp32, natural logarithm)

The first token of every candidate is predicted at the root, once per context. Further tokens need a *prefix* of the
candidate; candidates share them: "turn left" and "turn right" both read the row "turn", and a prefix of a longer
prefix needs no row of its own.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch

from lamorel.forwards import Forwards, Root, Row
from lamorel.tokenization import TokenIds


class TokenScores(NamedTuple):
    """Per candidate token, in the order contexts, candidates, tokens."""

    logprob: torch.Tensor  # (N,) fp32
    logit: torch.Tensor  # (N,) fp32, raw


class Read(NamedTuple):
    """One logit to read."""

    position: int  # along its row
    token: int
    target: int  # index of this candidate token among those to score


class GroupPlan(NamedTuple):
    """How the candidates of one context are scored."""

    at_root: tuple[Read, ...]  # first tokens
    prefixes: tuple[TokenIds, ...]  # one row to decode for each
    in_rows: tuple[tuple[Read, ...], ...]  # per prefix, what is read from its row
    size: int  # candidate tokens


@lru_cache(maxsize=4096)
def plan_group(candidates: tuple[TokenIds, ...]) -> GroupPlan:
    """Which prefixes to decode, and where the logit of every candidate token will stand."""
    prefixes = _maximal_prefixes(candidates)
    row_of = {prefix[:n]: row for row, prefix in enumerate(prefixes) for n in range(1, len(prefix) + 1)}
    at_root: list[Read] = []
    in_rows: list[list[Read]] = [[] for _ in prefixes]
    target = 0
    for candidate in candidates:
        for i, token in enumerate(candidate):
            reads = in_rows[row_of[candidate[:i]]] if i else at_root
            reads.append(Read(max(i - 1, 0), token, target))
            target += 1
    return GroupPlan(tuple(at_root), tuple(prefixes), tuple(map(tuple, in_rows)), target)


def _maximal_prefixes(candidates: Sequence[TokenIds]) -> list[TokenIds]:
    """The candidates without their last token, less those that begin another of them."""
    longest_first = sorted({candidate[:-1] for candidate in candidates if len(candidate) > 1}, key=len, reverse=True)
    covered: set[TokenIds] = set()
    kept = []
    for prefix in longest_first:
        if prefix not in covered:
            kept.append(prefix)
            covered.update(prefix[:n] for n in range(1, len(prefix) + 1))
    return kept


def score_from_root(
    forwards: Forwards, root: Root, candidates: Sequence[Sequence[TokenIds]], *, rows_per_forward: int
) -> TokenScores:
    """Scores of all candidate tokens, continued from the cache of the root step.

    Args:
        root: of the C contexts, with a cache.
        candidates: per context, the token ids of its candidates.
        rows_per_forward: cap on the rows decoded at once.
    """
    reader = _Reader()
    offset = 0
    rows: list[tuple[Row, list[Read]]] = []
    first_tokens: list[list[Read]] = []
    for context, group in enumerate(candidates):
        plan = plan_group(tuple(group))
        first_tokens.append(_shift(plan.at_root, 0, offset))
        for prefix, reads in zip(plan.prefixes, plan.in_rows, strict=True):
            rows.append(((context, prefix), _shift(reads, 0, offset)))
        offset += plan.size
    reader.read(root.logits[:, None], first_tokens)
    for some in _slices(rows, rows_per_forward):
        reader.read(forwards.continuation(root, [row for row, _ in some]), [reads for _, reads in some])
    return reader.result()


def score_pairs(
    forwards: Forwards,
    contexts: Sequence[TokenIds],
    candidates: Sequence[Sequence[TokenIds]],
    *,
    rows_per_forward: int,
) -> TokenScores:
    """The same by plain forwards over whole (context, prefix) pairs: for models whose cache cannot be continued."""
    reader = _Reader()
    offset = 0
    rows: list[tuple[Row, list[Read]]] = []
    for context, group in enumerate(candidates):
        plan = plan_group(tuple(group))
        reads_of = [_shift(reads, 1, offset) for reads in plan.in_rows] or [[]]
        reads_of[0] += _shift(plan.at_root, 0, offset)  # every row of a context begins with its root
        for prefix, reads in zip(plan.prefixes or ((),), reads_of, strict=True):
            rows.append(((context, prefix), reads))
        offset += plan.size
    for some in _slices(rows, rows_per_forward):
        view = forwards.pairs(contexts, [row for row, _ in some], hidden_states=False)
        reader.read(view.forward_outputs.logits[:, view.root :], [reads for _, reads in some])
    return reader.result()


def per_candidate(scores: TokenScores, candidates: Sequence[Sequence[TokenIds]]) -> dict[str, tuple[torch.Tensor, ...]]:
    """The built-in keys, per context (K_c,): `__score`, `__logits` (sums over tokens) and `__tokens` (their number)."""
    lengths = torch.tensor([len(ids) for group in candidates for ids in group], device=scores.logit.device)
    owner = torch.repeat_interleave(lengths)
    sizes = [len(group) for group in candidates]

    def total(values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return values.new_zeros(len(lengths)).index_add(0, owner, values).split(sizes)

    return {"__score": total(scores.logprob), "__tokens": lengths.split(sizes), "__logits": total(scores.logit)}


class _Reader:
    """Collects the scores read from successive forwards, and puts them in the order of their targets."""

    def __init__(self) -> None:
        self._parts: list[TokenScores] = []
        self._targets: list[int] = []

    def read(self, logits: torch.Tensor, reads: Sequence[Sequence[Read]]) -> None:
        """Reads `reads[r]` from row r of the logits (R, T, V)."""
        width = logits.shape[1]
        cells = [(row * width + read.position, read.token) for row, some in enumerate(reads) for read in some]
        index = torch.tensor(cells, dtype=torch.int64, device=logits.device).reshape(-1, 2)
        flat = logits.reshape(-1, logits.shape[-1]).float()
        logit = flat[index[:, 0], index[:, 1]]
        self._parts.append(TokenScores(logit - flat.logsumexp(dim=-1)[index[:, 0]], logit))
        self._targets += [read.target for some in reads for read in some]

    def result(self) -> TokenScores:
        device = self._parts[0].logit.device
        place = torch.empty(len(self._targets), dtype=torch.int64)
        place[self._targets] = torch.arange(len(self._targets))
        place = place.to(device)
        return TokenScores(*(torch.cat(part)[place] for part in zip(*self._parts, strict=True)))


def _shift(reads: Sequence[Read], positions: int, targets: int) -> list[Read]:
    return [Read(read.position + positions, read.token, read.target + targets) for read in reads]


def _slices(rows: Sequence[tuple[Row, list[Read]]], size: int) -> Iterator[Sequence[tuple[Row, list[Read]]]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
