"""The candidates of a context as a prefix tree of token ids.

A candidate's token is predicted at the node of the tokens before it. "turn left" and "turn right" share the root,
which predicts "turn", and the node "turn", which predicts "left" and "right". Only nodes that predict something are
decoded: a leaf is one column of its parent's logits.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from lamorel.tokenization import TokenIds


class Trie(NamedTuple):
    """Nodes in an order that puts parents first; node 0 is the root, which has no token of its own."""

    tokens: TokenIds  # of node 1, 2, ...
    parents: tuple[int, ...]  # of node 1, 2, ...
    depths: tuple[int, ...]  # of node 0, 1, ...: tokens between the root and the node
    reads: tuple[tuple[int, int], ...]  # (node, token) of every token of every candidate, in order
    paths: tuple[tuple[int, ...], ...]  # per candidate its nodes from the root on

    def __len__(self) -> int:
        return len(self.depths)

    def ancestors(self) -> np.ndarray:
        """(nodes, nodes) bool: node j is node i or stands above it."""
        above = np.eye(len(self), dtype=bool)
        for node, parent in enumerate(self.parents, start=1):
            above[node] |= above[parent]
        return above

    def rows(self) -> tuple[list[TokenIds], list[tuple[int, int]]]:
        """The tree as plain sequences: token ids from the root to every last node, and where each node stands.

        Returns:
            The sequences, at least one; and per node (sequence, position): position 0 is the root, before the first
            token.
        """
        paths: list[TokenIds] = [()]
        for node, parent in enumerate(self.parents, start=1):
            paths.append((*paths[parent], self.tokens[node - 1]))
        inner = set(self.parents)
        last = [node for node in range(len(self)) if node not in inner]
        places: dict[int, tuple[int, int]] = {}
        for row, node in enumerate(last):
            while node not in places:
                places[node] = (row, self.depths[node])
                node = self.parents[node - 1] if node else 0
        return [paths[node] for node in last], [places[node] for node in range(len(self))]


@lru_cache(maxsize=4096)
def plan(candidates: tuple[TokenIds, ...], *, whole: bool = False) -> Trie:
    """The tree of some candidates.

    Args:
        whole: with the nodes after a candidate's last token too, which predict nothing of it.
    """
    nodes: dict[TokenIds, int] = {(): 0}
    tokens: list[int] = []
    parents: list[int] = []
    depths = [0]
    reads: list[tuple[int, int]] = []
    paths: list[tuple[int, ...]] = []
    for candidate in candidates:
        path = [0]
        for i in range(1, len(candidate) + whole):
            prefix = candidate[:i]
            if prefix not in nodes:
                nodes[prefix] = len(nodes)
                tokens.append(prefix[-1])
                parents.append(path[-1])
                depths.append(i)
            path.append(nodes[prefix])
        reads += zip(path, candidate, strict=False)
        paths.append(tuple(path))
    return Trie(tuple(tokens), tuple(parents), tuple(depths), tuple(reads), tuple(paths))


ROOT = plan(())


def plan_all(candidates: Sequence[Sequence[TokenIds]], *, whole: bool = False) -> list[Trie]:
    """The tree of every context."""
    return [plan(tuple(group), whole=whole) for group in candidates]
