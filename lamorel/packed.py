"""Packed scoring: the logits of all tree nodes of some contexts from one forward without padding."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from lamorel.forwards import View
from lamorel.tokenization import TokenIds
from lamorel.trie import Trie


class Nodes(NamedTuple):
    """The decoded trees of some contexts."""

    logits: torch.Tensor  # (R, V) in the order contexts, nodes
    view: View | None  # of the roots: one row per context, one position


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

    def share(self, contexts: Sequence[TokenIds], *, adapters: bool = True) -> Any:
        """What the contexts of one call have in common, for every `run` over some of them.

        Args:
            adapters: the model's adapters are active.
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
            hidden_states: put those of every layer into the view.
        """

    def groups(self, total: int) -> list[range]:
        """Indices of the sequences that attention handles in one call each."""
        return [range(total)] if self.together else [range(i, i + 1) for i in range(total)]
