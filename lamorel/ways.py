"""Ways to score the candidates of a context, and the choice of the fastest that is exact for a model.

    packed     contexts and trees in one row, no padding; a T5 model, or a decoder-only one with sdpa attention
    cached     contexts padded, candidates continue the cache of keys and values
    equal      plain forwards over whole (context, candidate) pairs of equal lengths, which need no padding
    reference  one unpadded sequence at a time (lamorel.reference)

All give the same scores, each way for more models than the one before. A fifth, `pairs` (plain forwards over padded
(context, prefix) pairs), is used on request: a model whose cache cannot be continued is often one that padding
disturbs, or whose rounding padding amplifies.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from itertools import groupby
from typing import Any

import torch

from lamorel import reference
from lamorel.causal import CausalForwards
from lamorel.config import LLMArgs
from lamorel.forwards import Forwards, Row, View, base_model
from lamorel.packed import PackedForwards, pairs, roots
from lamorel.packed_causal import PackedCausal
from lamorel.packed_t5 import PackedT5, is_t5
from lamorel.padding import chunks_by_length
from lamorel.probe import Probe
from lamorel.rotary import longest_with_fixed_frequencies, make_stateless
from lamorel.scoring import (
    TokenScores,
    nodes_from_cache,
    nodes_from_pairs,
    read_scores,
    scores_of_equal_lengths,
)
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

_WITHOUT_PADDING = ("equal", "reference")
_FASTEST_FIRST = {
    "fast": ("packed", "cached", *_WITHOUT_PADDING),
    "cached": ("cached", *_WITHOUT_PADDING),
    "pairs": ("pairs", *_WITHOUT_PADDING),
    "equal": _WITHOUT_PADDING,
    "reference": ("reference",),
}
_SLOW = {
    "equal": "plain forwards over pairs of equal length (slower: every candidate repeats its context)",
    "reference": "one sequence at a time (slowest)",
}

Shared = Mapping[bool, Any]  # by whether adapters are active: what the contexts of a call have in common


class Ways:
    """The forwards of one model, as it stands; made anew when the model object is replaced."""

    def __init__(self, model: Any, args: LLMArgs, *, pad_id: int) -> None:
        make_stateless(model)
        self.model = model
        self.forwards: Forwards
        self._args = args
        self._pad_id = pad_id
        self._packed: PackedForwards | None = None
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
        self._longest_with_fixed_frequencies = longest_with_fixed_frequencies(model)
        self._probe = Probe(model, positions=self.forwards.learned_positions)

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
        self,
        contexts: Sequence[TokenIds],
        candidates: Sequence[Sequence[TokenIds]] | None,
        *,
        tokens: int | None,
        rows: int,
    ) -> list[list[int]]:
        """Indices of contexts that run together.

        Args:
            tokens: budget of a chunk; None for what suits the device.
            rows: cap on the contexts of a chunk.
        """
        if tokens is None:
            tokens = _TOKENS_PER_FORWARD.get(self.forwards.device.type, _TOKENS_ON_ACCELERATOR)
        members_of: dict[tuple[str, int], list[int]] = defaultdict(list)
        for i, ids in enumerate(contexts):
            way = self._way_of([ids], None if candidates is None else [candidates[i]])
            members_of[way, len(ids) if way in _WITHOUT_PADDING else 0].append(i)
        chunks = []
        for (way, _), members in members_of.items():
            shared = self._packed.shared_tokens(contexts) if way == "packed" and self._packed is not None else 0
            lengths = [len(contexts[i]) - shared for i in members]
            tries = [ROOT] * len(members) if candidates is None else plan_all([candidates[i] for i in members])
            found = chunks_by_length(
                lengths,
                [len(trie) - 1 for trie in tries],
                tokens=tokens - shared,
                rows=1 if way == "reference" else rows,
                padded=way != "packed",
            )
            chunks += [[members[i] for i in chunk] for chunk in found]
        return chunks

    def scores(
        self,
        contexts: Sequence[TokenIds],
        candidates: Sequence[Sequence[TokenIds]],
        *,
        rows: int,
        shared: Shared | None = None,
        hidden_states: bool = False,
    ) -> tuple[TokenScores, View | None]:
        """Scores of all candidate tokens.

        Args:
            rows: cap on the rows of a forward over candidates; a packed one has one row.
            hidden_states: give the view of the contexts' roots too, where the forward passes them.
        """
        return self._scores_by(
            self._way_of(contexts, candidates),
            contexts,
            candidates,
            rows=rows,
            shared=shared or {},
            hidden_states=hidden_states,
        )

    def root_view(self, contexts: Sequence[TokenIds], *, adapters: bool, shared: Shared) -> View:
        """The view of the roots alone, with hidden states."""
        if self._way_of(contexts, None) == "packed":
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
        way = self._way_of(contexts, candidates)
        tries = plan_all(candidates, whole=True) if way == "packed" and self._packed_shows_pairs else None
        if tries is not None and _fit(tries):
            assert self._packed is not None
            nodes = self._packed.run(contexts, tries, shared[adapters], hidden_states=True)
            shown = pairs(candidates, tries)
            for start in range(0, len(shown), rows):
                yield self._packed.view(nodes, contexts, shown[start : start + rows])
            return
        plain = [(context, ids) for context, group in enumerate(candidates) for ids in group]
        for together in _runs(plain, contexts, padded=way not in _WITHOUT_PADDING):
            for start in range(0, len(together), 1 if way == "reference" else rows):
                yield self.forwards.pairs(contexts, together[start : start + rows])

    def adapters(self, active: bool) -> AbstractContextManager[Any]:
        """Within it, the base model runs where `active` is false: peft adapters disabled, no gradient."""
        return nullcontext() if active else _base_model_alone(self.model)

    def may_pad(self, longest: int) -> bool:
        """Whether sequences of up to `longest` tokens may share a padded forward."""
        limit = self._longest_with_fixed_frequencies
        return self.way not in _WITHOUT_PADDING and (limit is None or longest <= limit)

    @cached_property
    def way(self) -> str:
        """The fastest way that is exact for this model, from `llm_args.scoring` on. Tried at the first use."""
        return self._first_exact(self._args.scoring)

    @cached_property
    def _way_of_large_trees(self) -> str:
        """The fastest way for trees that are too large to be packed."""
        return self._first_exact("cached", f"trees of over {_MOST_NODES} nodes are not packed")

    @cached_property
    def _way_of_long_contexts(self) -> str:
        """The fastest way for contexts whose length changes the model's rotary frequencies."""
        limit = self._longest_with_fixed_frequencies
        return self._first_exact("equal", "its rotary frequencies depend on the length", limit)

    def _way_of(self, contexts: Sequence[TokenIds], candidates: Sequence[Sequence[TokenIds]] | None) -> str:
        """The way in which these contexts are scored; candidates None: no candidate is scored."""
        if self.way in _WITHOUT_PADDING:
            return self.way
        groups = candidates or [()] * len(contexts)
        if self._longest_with_fixed_frequencies is not None:
            sizes = [len(ids) + max(map(len, group), default=0) for ids, group in zip(contexts, groups, strict=True)]
            if max(sizes, default=0) > self._longest_with_fixed_frequencies:
                return self._way_of_long_contexts
        if self.way == "packed" and not _fit(plan_all(groups)):
            return self._way_of_large_trees
        return self.way

    def _first_exact(self, scoring: str, reason: str | None = None, shortest: int | None = None) -> str:
        """The fastest exact way for a value of `llm_args.scoring`; a slower one is logged with the reason.

        Args:
            shortest: the way is for contexts over this number of tokens.
        """
        for way in _FASTEST_FIRST[scoring]:
            defect = None if way == "reference" else self._defect(way)
            if defect is None:
                break
            reason = defect
        self._probe.forget()
        if reason is not None:
            name = type(base_model(self.model)).__name__
            name += "" if shortest is None else f", for contexts past {shortest} tokens,"
            if way in _SLOW:
                logger.warning("%s is scored by %s: %s", name, _SLOW[way], reason)
            else:
                logger.info("%s is scored by continuing its cache; packed scoring is out: %s", name, reason)
        return way

    def _defect(self, way: str) -> str | None:
        """Reason why a way is not exact for this model, or None where it is."""
        if way == "packed" and self._packed is None:
            return self._why_not_packed

        def score(model: Any, contexts: Sequence[TokenIds], candidates: Sequence[Sequence[TokenIds]]) -> torch.Tensor:
            ways = self if model is self.model else Ways(model, self._args, pad_id=self._pad_id)
            shared = {} if ways._packed is None or way != "packed" else {True: ways._packed.share(contexts)}
            return ways._scores_by(way, contexts, candidates, rows=8, shared=shared, hidden_states=False)[0].logprob

        return self._probe.defect(score)

    def _scores_by(
        self,
        way: str,
        contexts: Sequence[TokenIds],
        candidates: Sequence[Sequence[TokenIds]],
        *,
        rows: int,
        shared: Shared,
        hidden_states: bool,
    ) -> tuple[TokenScores, View | None]:
        if way == "reference":
            return TokenScores(*reference.token_scores(self.model, contexts, candidates)), None
        if way == "equal":
            return scores_of_equal_lengths(self.forwards, contexts, candidates, rows_per_forward=rows), None
        tries = plan_all(candidates)
        view = None
        if way == "packed":
            assert self._packed is not None
            nodes = self._packed.run(contexts, tries, shared.get(True), hidden_states=hidden_states)
            logits = nodes.logits
            view = self._packed.view(nodes, contexts, roots(tries)) if hidden_states else None
        elif way == "pairs":
            logits = nodes_from_pairs(self.forwards, contexts, tries, rows_per_forward=rows)
        else:
            root = self.forwards.root(contexts, use_cache=True, hidden_states=hidden_states)
            logits = nodes_from_cache(self.forwards, root, tries, rows_per_forward=rows)
            view = root.view if hidden_states else None
        return read_scores(logits, tries), view


def _runs(rows: Sequence[Row], contexts: Sequence[TokenIds], *, padded: bool) -> Iterator[list[Row]]:
    """The rows in order, all in one list, or cut so that those of a list need no padding."""
    if padded:
        yield list(rows)
        return
    for _, group in groupby(rows, key=lambda row: (len(contexts[row[0]]), len(row[1]))):
        yield list(group)


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
