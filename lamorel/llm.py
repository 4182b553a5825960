"""The module that is trained: the language model and its heads, behind one differentiable call."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from lamorel.config import LLMArgs
from lamorel.forwards import Forwards, View, base_model
from lamorel.generation import generate
from lamorel.heads import Kind, run_functions
from lamorel.module_function import BaseModuleFunction
from lamorel.placement import input_device
from lamorel.scoring import TokenScores, per_candidate
from lamorel.tokenization import TextEncoder, TokenIds, read_inputs
from lamorel.update_chunks import gpu_memory, tokens_that_fit
from lamorel.ways import Shared, Ways

BUILTIN_KEYS = ("__score", "__tokens", "__logits")

Outputs = dict[str, torch.Tensor]


@dataclass(frozen=True)
class _Call:
    """What is asked of every context."""

    keys: Sequence[str]
    functions: Mapping[str, BaseModuleFunction]  # those among the keys
    rows: int  # cap on the rows of a forward
    shared: Shared
    longest: int  # tokens of the longest context
    kwargs: Mapping[str, Any]


class LLMModule(torch.nn.Module):
    """A Hugging Face model and the user's module functions. Always in eval mode: dropout is never active.

    State-dict keys begin with `_LLM_model.` and `_module_functions.`.

    Attributes:
        model_type: `llm_args.model_type`, seq2seq or causal.
    """

    def __init__(
        self, model: Any, encoder: TextEncoder, functions: dict[str, BaseModuleFunction], args: LLMArgs
    ) -> None:
        super().__init__()
        self._LLM_model = model
        self._module_functions = torch.nn.ModuleDict(functions)
        self.encoder = encoder
        self.model_type = args.model_type
        self._args = args
        self._ways: Ways | None = None
        self._keeps = True  # what calls without gradient have in common, from one to the next
        self.eval()

    def train(self, mode: bool = True) -> "LLMModule":
        """Stays in eval mode: a policy whose dropout differs between acting and learning has wrong ratios.

        PAPER-DIFF(7): in the released code models made from a config act and learn under dropout.
        """
        return super().train(False)

    def forward(
        self,
        module_function_keys: Sequence[str],
        contexts: Sequence[str],
        candidates: Sequence[Sequence[str]] | None = None,
        require_grad: bool = False,
        minibatch_size: int | None = None,
        **kwargs: Any,
    ) -> list[Outputs]:
        """Runs built-in keys and module functions.

        Args:
            module_function_keys: names of functions, and of `__score` (sum of log-probabilities of a candidate's
                tokens), `__tokens` (their number) and `__logits` (sum of their raw logits).
            contexts: C texts.
            candidates: per context its K_c >= 0 candidates; None runs functions on the root position alone.
            require_grad: keep the graph.
            minibatch_size: rows of any one forward; None takes `llm_args.minibatch_size`.
            **kwargs: handed to every module function.

        Returns:
            Per context a dict with each key: K_c rows; one row for a `context_only` function, or without candidates.
        """
        contexts, candidates = read_inputs(contexts, candidates)
        self._check_keys(module_function_keys, candidates)
        context_ids = self.encoder.contexts(contexts)
        candidate_ids = None
        if candidates is not None:  # an empty candidate runs where there is none, and its rows are dropped
            candidate_ids = self.encoder.candidates([group or [""] for group in candidates])
        self.forwards.check_lengths(context_ids, candidate_ids)
        rows = self._rows(minibatch_size)
        with torch.set_grad_enabled(require_grad):
            inputs = _Distinct(context_ids, candidate_ids, merge=self._run_once(module_function_keys))
            results = self._run(module_function_keys, inputs.contexts, inputs.candidates, rows, kwargs)
            if len(results) < len(contexts):  # copies, as callers may change their outputs in place
                results = [{key: value.clone() for key, value in results[place].items()} for place in inputs.places]
        for i, group in enumerate(candidates or []):
            if not group:
                dropped = {key: value[:0] for key, value in results[i].items() if not self._is_context_only(key)}
                results[i] = {**results[i], **dropped}
        return results

    def generate(
        self, contexts: Sequence[str], return_logprobs: bool = False, **hf_generate_kwargs: Any
    ) -> list[list[dict[str, Any]]]:
        """Continues each context; see `lamorel.generation.generate`."""
        return generate(self, contexts, return_logprobs=return_logprobs, options=hf_generate_kwargs)

    def get_model_config(self) -> Any:
        """The Hugging Face configuration of the model."""
        return base_model(self._LLM_model).config

    @property
    def _LLM_tokenizer(self) -> Any:  # noqa: N802 (the original's name)
        return self.encoder.tokenizer

    @property
    def pad_token(self) -> int:
        """Id that contexts are padded with."""
        return self.encoder.pad_id

    @property
    def device(self) -> torch.device:
        """Where inputs go and outputs come back."""
        return input_device(self._LLM_model)

    def chunks(
        self,
        keys: Sequence[str],
        contexts: Sequence[str],
        candidates: Sequence[Sequence[str]] | None,
        tokens: int,
    ) -> list[list[int]]:
        """Indices of contexts of similar length, in groups of about `tokens` tokens, their candidates included.

        Equal contexts with equal candidates are in one group and count once, where these keys run them once.
        """
        context_ids = self.encoder.contexts(contexts)
        ids = None if candidates is None else self.encoder.candidates(candidates)
        inputs = _Distinct(context_ids, ids, merge=self._run_once(keys))
        chunks = self.ways.chunks(inputs.contexts, inputs.candidates, tokens=tokens, rows=max(1, len(contexts)))
        members = inputs.members()
        return [[i for place in chunk for i in members[place]] for chunk in chunks]

    @property
    def tokens_per_chunk(self) -> int:
        """What suits one forward and backward of an update."""
        if self._args.tokens_per_chunk is not None:
            return self._args.tokens_per_chunk
        return tokens_that_fit(self._LLM_model, gpu_memory(self._LLM_model))

    @property
    def minibatch_size(self) -> int:
        """Rows of any one forward."""
        return self._args.minibatch_size

    @property
    def ways(self) -> Ways:
        """How this model is run."""
        if self._ways is None or self._ways.model is not self._LLM_model:
            self._ways = Ways(self._LLM_model, self._args, pad_id=self.encoder.pad_id)
        return self._ways

    @property
    def forwards(self) -> Forwards:
        """The plain forward passes of this model's family."""
        return self.ways.forwards

    def weights_changed(self) -> None:
        """Drops what is kept of the weights between calls. An in-place operation on a parameter is noticed."""
        if self._ways is not None:
            self._ways.forget()

    @contextmanager
    def weights_changing(self) -> Iterator[None]:
        """While active, nothing is kept of the weights between calls.

        The code of an updater may change them in ways that cannot be noticed: through `.data`, or by other adapters.
        """
        self._keeps = False
        self.weights_changed()
        try:
            yield
        finally:
            self._keeps = True

    def score_tokens(self, contexts: Sequence[TokenIds], candidates: Sequence[Sequence[TokenIds]]) -> TokenScores:
        """Scores of every candidate token, contexts and candidates given as token ids."""
        return self.ways.scores(contexts, candidates, rows=self._args.minibatch_size)[0]

    def _run(
        self,
        keys: Sequence[str],
        contexts: list[TokenIds],
        candidates: list[list[TokenIds]] | None,
        rows: int,
        kwargs: Mapping[str, Any],
    ) -> list[Outputs]:
        """All keys, in chunks of contexts that share their forwards."""
        functions: dict[str, Any] = {key: self._module_functions[key] for key in keys if key not in BUILTIN_KEYS}
        run_chunk: Callable[..., list[Outputs]] = self._run_chunk
        if torch.is_grad_enabled():
            self.weights_changed()  # they are about to
            if self._args.gradient_checkpointing:
                run_chunk = partial(checkpoint, self._run_chunk, use_reentrant=False)
        adapters = sorted({True, *(f.adapters for f in functions.values())})
        shared = self.ways.share(contexts, adapters=adapters, keep=self._keeps)
        call = _Call(keys, functions, rows, shared, max(map(len, contexts), default=0), kwargs)
        results: list[Outputs] = [{} for _ in contexts]
        for chunk in self.ways.chunks(contexts, candidates, tokens=None, rows=rows):
            of_chunk = None if candidates is None else [candidates[i] for i in chunk]
            for i, output in zip(chunk, run_chunk(call, [contexts[i] for i in chunk], of_chunk), strict=True):
                results[i] = output
        return results

    def _run_chunk(
        self, call: _Call, contexts: list[TokenIds], candidates: list[list[TokenIds]] | None
    ) -> list[Outputs]:
        """All keys for contexts that share their forwards."""
        on_root = any(Kind.of(f) == Kind(True, True, False) for f in call.functions.values())
        root: View | None = None
        by_key: dict[str, Sequence[torch.Tensor]] = {}
        if len(call.functions) < len(call.keys):
            assert candidates is not None
            scores, root = self.ways.scores(
                contexts, candidates, rows=call.rows, shared=call.shared, hidden_states=on_root
            )
            by_key |= per_candidate(scores, candidates)
        groups: Sequence[Sequence[TokenIds]] = [[()] for _ in contexts] if candidates is None else candidates

        def views(kind: Kind) -> Iterator[View]:
            shared, adapters = call.shared, kind.adapters
            if kind.right_padded:
                yield self.forwards.right_padded(contexts, call.longest)
            elif not kind.context_only:
                yield from self.ways.pair_views(contexts, groups, rows=call.rows, adapters=adapters, shared=shared)
            elif adapters and root is not None:
                yield root
            else:
                yield self.ways.root_view(contexts, adapters=adapters, shared=shared)

        sizes = [len(group) for group in groups]
        by_key |= run_functions(call.functions, views, sizes=sizes, adapters=self.ways.adapters, kwargs=call.kwargs)
        return [{key: by_key[key][i] for key in call.keys} for i in range(len(contexts))]

    def _run_once(self, keys: Sequence[str]) -> bool:
        """Whether equal contexts with equal candidates are run once for these keys.

        Parallel environments are often in the same state. A function that is not `context_only` sees every row, as in
        the original.
        """
        return all(key in BUILTIN_KEYS or self._is_context_only(key) for key in keys)

    def _is_context_only(self, key: str) -> bool:
        return key not in BUILTIN_KEYS and bool(self._module_functions[key].context_only)

    def _rows(self, minibatch_size: int | None) -> int:
        if minibatch_size is None:
            return self._args.minibatch_size
        if not isinstance(minibatch_size, int) or minibatch_size < 1:
            raise ValueError(f"minibatch_size: expected a number of at least 1, or None, got {minibatch_size!r}")
        return minibatch_size

    def _check_keys(self, keys: Sequence[str], candidates: Any) -> None:
        if isinstance(keys, str):
            raise TypeError(f"module function keys: expected a list of str, got {keys!r}")
        known = [*BUILTIN_KEYS, *self._module_functions]
        for key in keys:
            if key not in known:
                raise KeyError(f"unknown module function {key!r}; known: {', '.join(known)}")
            if key in BUILTIN_KEYS and candidates is None:
                raise ValueError(f"{key} needs candidates")


class _Distinct:
    """The distinct pairs of a context and its candidates.

    Args:
        merge: False takes every pair for distinct.

    Attributes:
        contexts, candidates: of each distinct pair, in the order in which they first come.
        places: of each given pair, its index among the distinct ones.
    """

    def __init__(
        self, contexts: Sequence[TokenIds], candidates: Sequence[Sequence[TokenIds]] | None, *, merge: bool
    ) -> None:
        groups = [()] * len(contexts) if candidates is None else [tuple(group) for group in candidates]
        labels = [0] * len(contexts) if merge else range(len(contexts))
        index: dict[Any, int] = {}
        self.places = [index.setdefault(key, len(index)) for key in zip(contexts, groups, labels, strict=True)]
        self.contexts = [context for context, _, _ in index]
        self.candidates = None if candidates is None else [list(group) for _, group, _ in index]

    def members(self) -> list[list[int]]:
        """Per distinct pair, the indices of the given ones that equal it."""
        members: list[list[int]] = [[] for _ in self.contexts]
        for i, place in enumerate(self.places):
            members[place].append(i)
        return members
