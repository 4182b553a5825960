"""The ways to decode the candidates of a context, and the choice of the fastest that a model can take.

    packed     contexts and trees in one row, no padding; a T5 model, or a decoder-only one with sdpa attention
    cached     contexts padded, candidates continue the cache of keys and values
    pairs      plain forwards over all (context, prefix) pairs

All give the same logits. `reference` (lamorel.reference) is a fourth, slow way to the same scores for comparison.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from typing import Any

import torch

from lamorel.causal import CausalForwards
from lamorel.config import LLMArgs
from lamorel.forwards import Forwards, View, base_model
from lamorel.packed import PackedForwards, pairs, roots
from lamorel.packed_causal import PackedCausal
from lamorel.packed_t5 import PackedT5, is_t5
from lamorel.padding import chunks_by_length
from lamorel.probe import defect
from lamorel.scoring import nodes_from_cache, nodes_from_pairs
from lamorel.seq2seq import Seq2SeqForwards
from lamorel.tokenization import TokenIds
from lamorel.trie import ROOT, Trie, plan_all

logger = logging.getLogger(__name__)

# Tokens of one forward. A CPU gains nothing from more; a GPU wants larger batches.
_TOKENS_PER_FORWARD = {"cpu": 2048}
_TOKENS_ON_ACCELERATOR = 32768

# Of a packed tree. Its mask grows with their square: 500 candidates of 6 tokens score faster, and in a hundredth of
# the memory, from the cache.
_MOST_NODES = 1024

Shared = Mapping[bool, Any]  # by whether adapters are active: what the contexts of a call have in common


class Ways:
    """The forwards of one model, as it stands; made anew when the model object is replaced."""

    def __init__(self, model: Any, args: LLMArgs, *, pad_id: int) -> None:
        self.model = model
        self.forwards: Forwards
        self._packed: PackedForwards | None = None
        self._scoring = args.scoring
        self._chosen: str | None = None  # found out at the first use
        why_not = None if args.attention == "sdpa" else f"it takes the place of sdpa attention, not of {args.attention}"
        if base_model(model).config.is_encoder_decoder:
            seq2seq = Seq2SeqForwards(model, pad_id=pad_id)
            self.forwards = seq2seq
            if not is_t5(model):
                why_not = "of encoder-decoders it knows T5's alone, on one device"
            elif why_not is None:
                self._packed = PackedT5(model, pad_id=pad_id, start_id=seq2seq.start_id)
        else:
            self.forwards = CausalForwards(model, pad_id=pad_id, from_last_context_token=args.pre_encode_inputs)
            if not self.forwards.accepts_position_ids:
                why_not = "the model takes no position_ids"
            elif why_not is None:
                self._packed = PackedCausal(model, pad_id=pad_id)
        self._why_not_packed = why_not
        # Whole left-padded sequences, as upstream's functions may ask for, are no rows of tree nodes.
        self._packed_shows_pairs = isinstance(self._packed, PackedT5) or args.pre_encode_inputs

    def forget(self) -> None:
        """Drops what was kept between calls: the weights have changed, or are about to."""
        if self._packed is not None:
            self._packed.forget()

    def share(self, contexts: Sequence[TokenIds], *, adapters: Sequence[bool], keep: bool = False) -> Shared:
        """What the contexts of a call have in common, by state of the adapters.

        Args:
            keep: it may be kept for the next call, or be what an earlier one kept.
        """
        if self.way != "packed":
            return {}
        assert self._packed is not None
        shared = {}
        for active in adapters:
            with self.adapters(active):
                shared[active] = self._packed.share(contexts, adapters=active, keep=keep)
        return shared

    def chunks(
        self, contexts: Sequence[TokenIds], tries: Sequence[Trie] | None, *, tokens: int | None, rows: int
    ) -> list[list[int]]:
        """Indices of contexts that run together.

        Args:
            tokens: budget of a chunk; None for what suits the device.
            rows: cap on the contexts of a chunk.
        """
        if tokens is None:
            tokens = _TOKENS_PER_FORWARD.get(self.forwards.device.type, _TOKENS_ON_ACCELERATOR)
        packed = self._packed if self.way == "packed" else None
        shared = 0 if packed is None else packed.shared_tokens(contexts)
        lengths = [len(ids) - shared for ids in contexts]
        nodes = [len(trie) - 1 for trie in tries] if tries is not None else [0] * len(contexts)
        return chunks_by_length(lengths, nodes, tokens=tokens - shared, rows=rows, padded=packed is None)

    def decode(
        self,
        contexts: Sequence[TokenIds],
        tries: Sequence[Trie],
        *,
        rows: int,
        shared: Shared | None = None,
        hidden_states: bool = False,
    ) -> tuple[torch.Tensor, View | None]:
        """The node logits (R, V) of all contexts, and with `hidden_states` the view of their roots.

        Args:
            rows: cap on the rows of a forward over candidates; a packed one has one row.
        """
        way = self.way if _fit(tries) else self._way_of_large_trees
        if way == "packed":
            assert self._packed is not None
            nodes = self._packed.run(contexts, tries, (shared or {}).get(True), hidden_states=hidden_states)
            return nodes.logits, self._packed.view(nodes, contexts, roots(tries)) if hidden_states else None
        if way == "pairs":
            view = self.forwards.root(contexts, use_cache=False, hidden_states=True).view if hidden_states else None
            return nodes_from_pairs(self.forwards, contexts, tries, rows_per_forward=rows), view
        root = self.forwards.root(contexts, use_cache=True, hidden_states=hidden_states)
        logits = nodes_from_cache(self.forwards, root, tries, rows_per_forward=rows)
        return logits, root.view if hidden_states else None

    def root_view(self, contexts: Sequence[TokenIds], *, adapters: bool, shared: Shared) -> View:
        """The view of the roots alone, with hidden states."""
        if self.way == "packed":
            assert self._packed is not None
            tries = [ROOT] * len(contexts)
            nodes = self._packed.run(contexts, tries, shared[adapters], hidden_states=True)
            return self._packed.view(nodes, contexts, roots(tries))
        return self.forwards.root(contexts, use_cache=False, hidden_states=True).view

    def pair_views(
        self,
        contexts: Sequence[TokenIds],
        candidates: Sequence[Sequence[TokenIds]],
        *,
        rows: int,
        adapters: bool,
        shared: Shared,
    ) -> Iterator[View]:
        """Views of all (context, candidate) pairs in order, at most `rows` at a time, with hidden states."""
        tries = plan_all(candidates, whole=True) if self.way == "packed" and self._packed_shows_pairs else None
        if tries is not None and _fit(tries):
            assert self._packed is not None
            nodes = self._packed.run(contexts, tries, shared[adapters], hidden_states=True)
            shown = pairs(candidates, tries)
            for start in range(0, len(shown), rows):
                yield self._packed.view(nodes, contexts, shown[start : start + rows])
            return
        plain = [(context, ids) for context, group in enumerate(candidates) for ids in group]
        for start in range(0, len(plain), rows):
            yield self.forwards.pairs(contexts, plain[start : start + rows])

    def adapters(self, active: bool) -> AbstractContextManager[Any]:
        """Within it, the base model runs where `active` is false: peft adapters disabled, no gradient."""
        return nullcontext() if active else _base_model_alone(self.model)

    @property
    def way(self) -> str:
        """The fastest way that works: packed, cached or pairs; `llm_args.scoring` may rule out the first."""
        if self._chosen is None:
            self._chosen = self._choose()
        return self._chosen

    def _choose(self) -> str:
        if self._scoring in ("pairs", "reference"):
            return "pairs"
        reason = self._why_not_packed
        if self._packed is not None and self._scoring == "fast":
            packed = self._packed
            reason = defect(self.forwards, lambda c, t: packed.run(c, t, packed.share(c)).logits)
            packed.forget()
            if reason is None:
                return "packed"
        return self._choose_unpacked(reason)

    @cached_property
    def _way_of_large_trees(self) -> str:
        """The fastest way for trees that are too large to be packed."""
        return self._choose_unpacked(f"of trees over {_MOST_NODES} nodes") if self.way == "packed" else self.way

    def _choose_unpacked(self, reason: str | None) -> str:
        """cached or pairs; logs which, and the reason why not packed."""
        name = type(base_model(self.model)).__name__
        without_cache = defect(self.forwards, self._decode_from_cache)
        if without_cache is not None:
            logger.warning("%s is scored by plain forwards over all pairs (slower): %s", name, without_cache)
            return "pairs"
        if self._scoring == "fast":
            logger.info("%s is scored by continuing its cache; packed scoring is out: %s", name, reason)
        return "cached"

    def _decode_from_cache(self, contexts: Sequence[TokenIds], tries: Sequence[Trie]) -> torch.Tensor:
        root = self.forwards.root(contexts, use_cache=True, hidden_states=False)
        if root.cache is None:
            raise ValueError("its forward returns no cache")
        return nodes_from_cache(self.forwards, root, tries, rows_per_forward=8)


def _fit(tries: Sequence[Trie]) -> bool:
    """Whether the trees are small enough to be packed."""
    return max(map(len, tries), default=0) <= _MOST_NODES


@contextmanager
def _base_model_alone(model: Any) -> Iterator[None]:
    """Adapters disabled, no gradient."""
    if not hasattr(model, "peft_config"):
        with torch.no_grad():
            yield
        return
    # peft turns requires_grad off with the adapters, and on with them: also where the user had turned it off.
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        with torch.no_grad(), model.disable_adapter():
            yield
    finally:
        for parameter, was_trained in trained:
            parameter.requires_grad_(was_trained)
