"""Packed scoring: the logits of all tree nodes of some contexts from one forward without padding."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch

from lamorel.forwards import View
from lamorel.padding import pad
from lamorel.tokenization import TokenIds
from lamorel.trie import Trie


class Nodes(NamedTuple):
    """The decoded trees of some contexts; R nodes in the order contexts, nodes."""

    logits: torch.Tensor  # (R, V)
    hidden_states: tuple[torch.Tensor, ...]  # per layer (R, hidden); empty where they were not asked for
    memory: torch.Tensor | None = None  # (C, tokens, hidden), the encoder's output


class Shown(NamedTuple):
    """A row of a view: a context, and a candidate with the nodes that stand for it, the root first."""

    context: int
    ids: TokenIds
    nodes: tuple[int, ...]  # indices among the R nodes


class PackedForwards(ABC):
    """The packed forward of one model.

    Args:
        together: attend to all sequences in one call, padded; None: where the model is on a GPU.
    """

    def __init__(self, model: Any, *, pad_id: int, together: bool | None = None) -> None:
        self.model = model
        self.pad_id = pad_id
        self.device: torch.device = model.get_input_embeddings().weight.device
        self.together = self.device.type != "cpu" if together is None else together

    def share(self, contexts: Sequence[TokenIds], *, adapters: bool = True, keep: bool = False) -> Any:
        """What the contexts of one call have in common, for every `run` over some of them.

        Args:
            adapters: the model's adapters are active.
            keep: it may be kept for the next call, or be what an earlier one kept.
        """
        return None

    def shared_tokens(self, contexts: Sequence[TokenIds]) -> int:
        """Leading tokens of every context that `share` takes off it."""
        return 0

    def forget(self) -> None:  # noqa: B027 (not every model keeps something)
        """Drops what was kept between calls: the weights have changed, or are about to."""

    @abstractmethod
    def run(
        self, contexts: Sequence[TokenIds], tries: Sequence[Trie], shared: Any = None, *, hidden_states: bool = False
    ) -> Nodes:
        """The trees of the contexts, decoded.

        Args:
            contexts: token ids.
            tries: per context.
            shared: what `share` gave for a list of contexts with these in it.
            hidden_states: give those of every layer too.
        """

    @abstractmethod
    def view(self, nodes: Nodes, contexts: Sequence[TokenIds], rows: Sequence[Shown]) -> View:
        """What module functions see of these rows; position 0 is the root."""

    def groups(self, total: int) -> list[range]:
        """Indices of the sequences that attention handles in one call each."""
        return [range(total)] if self.together else [range(i, i + 1) for i in range(total)]


def roots(tries: Sequence[Trie]) -> list[Shown]:
    """Rows that show each context's root alone."""
    firsts = accumulate((len(trie) for trie in tries), initial=0)
    return [Shown(context, (), (first,)) for context, first in zip(range(len(tries)), firsts, strict=False)]


def pairs(candidates: Sequence[Sequence[TokenIds]], tries: Sequence[Trie]) -> list[Shown]:
    """Rows that show every context with each of its candidates; the trees must be whole."""
    firsts = accumulate((len(trie) for trie in tries), initial=0)
    return [
        Shown(context, ids, tuple(first + node for node in path))
        for context, (group, trie, first) in enumerate(zip(candidates, tries, firsts, strict=False))
        for ids, path in zip(group, trie.paths, strict=True)
    ]


def gather(rows: Sequence[Shown], device: torch.device) -> torch.Tensor:
    """Places (rows, positions) among the nodes; padding repeats node 0, and the masks tell it from tokens."""
    return pad([row.nodes for row in rows], fill=0, left=False, device=device).ids
