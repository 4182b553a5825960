"""The module that is trained: the language model and its heads, behind one differentiable call."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from lamorel import reference
from lamorel.causal import CausalForwards
from lamorel.config import LLMArgs
from lamorel.forwards import Forwards, Root, base_model
from lamorel.heads import run_functions
from lamorel.module_function import BaseModuleFunction
from lamorel.padding import chunks_by_length
from lamorel.probe import cache_defect
from lamorel.scoring import TokenScores, per_candidate, score_from_root, score_pairs
from lamorel.seq2seq import Seq2SeqForwards
from lamorel.tokenization import TextEncoder, TokenIds, check_inputs

logger = logging.getLogger(__name__)

BUILTIN_KEYS = ("__score", "__tokens", "__logits")

Outputs = dict[str, torch.Tensor]

# Tokens of one root forward, padding included. A CPU gains nothing from more and loses by padding short contexts to
# the length of long ones; a GPU wants larger batches.
_TOKENS_PER_FORWARD = {"cpu": 2048}
_TOKENS_ON_ACCELERATOR = 32768


class LLMModule(torch.nn.Module):
    """A Hugging Face model and the user's module functions. Always in eval mode: dropout is never active.

    State-dict keys begin with `_LLM_model.` and `_module_functions.`.
    """

    def __init__(
        self, model: Any, encoder: TextEncoder, functions: dict[str, BaseModuleFunction], args: LLMArgs
    ) -> None:
        super().__init__()
        self._LLM_model = model
        self._module_functions = torch.nn.ModuleDict(functions)
        self.encoder = encoder
        self._args = args
        self._cache_works: bool | None = None  # found out at the first scoring
        self.eval()

    def train(self, mode: bool = True) -> "LLMModule":
        """Stays in eval mode: a policy whose dropout differs between acting and learning has wrong ratios."""
        return super().train(False)

    def forward(
        self,
        module_function_keys: Sequence[str],
        contexts: Sequence[str],
        candidates: Sequence[Sequence[str]] | None = None,
        *,
        require_grad: bool = False,
        minibatch_size: int | None = None,
        **kwargs: Any,
    ) -> list[Outputs]:
        """Runs built-in keys and module functions.

        Args:
            module_function_keys: names of functions, and of `__score` (sum of log-probabilities of a candidate's
                tokens), `__tokens` (their number) and `__logits` (sum of their raw logits).
            contexts: C texts.
            candidates: per context its K_c candidates; None runs functions on the root position alone.
            require_grad: keep the graph.
            minibatch_size: rows of any one forward; None takes `llm_args.minibatch_size`.
            **kwargs: handed to every module function.

        Returns:
            Per context a dict with each key: K_c rows; one row for a `context_only` function, or without candidates.
        """
        check_inputs(contexts, candidates)
        self._check_keys(module_function_keys, candidates)
        context_ids = self.encoder.contexts(contexts)
        candidate_ids = None if candidates is None else self.encoder.candidates(candidates)
        rows = minibatch_size or self._args.minibatch_size
        with torch.set_grad_enabled(require_grad):
            return self._run(module_function_keys, context_ids, candidate_ids, rows, kwargs)

    def chunks(self, contexts: Sequence[str], candidates: Sequence[Sequence[str]], tokens: int) -> list[list[int]]:
        """Indices of contexts of similar length, in groups of about `tokens` tokens with padding and candidates."""
        continued = [sum(map(len, group)) for group in self.encoder.candidates(candidates)]
        lengths = [len(ids) for ids in self.encoder.contexts(contexts)]
        return chunks_by_length(lengths, continued, tokens=tokens, rows=max(1, len(lengths)))

    @property
    def minibatch_size(self) -> int:
        """Rows of any one forward."""
        return self._args.minibatch_size

    def forwards(self) -> Forwards:
        """The forward passes of this model's family."""
        if base_model(self._LLM_model).config.is_encoder_decoder:
            return Seq2SeqForwards(self._LLM_model, pad_id=self.encoder.pad_id)
        return CausalForwards(
            self._LLM_model, pad_id=self.encoder.pad_id, from_last_context_token=self._args.pre_encode_inputs
        )

    def score_tokens(self, contexts: Sequence[TokenIds], candidates: Sequence[Sequence[TokenIds]]) -> TokenScores:
        """Scores of every candidate token, contexts and candidates given as token ids."""
        forwards = self.forwards()
        from_cache = self._scores_from_cache(forwards)
        root = forwards.root(contexts, use_cache=True, hidden_states=False) if from_cache else None
        return self._token_scores(forwards, contexts, candidates, self._args.minibatch_size, root)

    def _run(
        self,
        keys: Sequence[str],
        contexts: list[TokenIds],
        candidates: list[list[TokenIds]] | None,
        rows: int,
        kwargs: dict[str, Any],
    ) -> list[Outputs]:
        """All keys, in chunks of contexts that share one root forward."""
        run_chunk: Callable[..., list[Outputs]] = self._run_chunk
        if torch.is_grad_enabled() and self._args.gradient_checkpointing:
            run_chunk = partial(checkpoint, self._run_chunk, use_reentrant=False)
        results: list[Outputs] = [{} for _ in contexts]
        lengths = [len(ids) for ids in contexts]
        budget = _TOKENS_PER_FORWARD.get(self.forwards().device.type, _TOKENS_ON_ACCELERATOR)
        for chunk in chunks_by_length(lengths, [0] * len(lengths), tokens=budget, rows=rows):
            of_chunk = None if candidates is None else [candidates[i] for i in chunk]
            outputs = run_chunk(keys, [contexts[i] for i in chunk], of_chunk, rows, kwargs)
            for i, output in zip(chunk, outputs, strict=True):
                results[i] = output
        return results

    def _run_chunk(
        self,
        keys: Sequence[str],
        contexts: list[TokenIds],
        candidates: list[list[TokenIds]] | None,
        rows: int,
        kwargs: dict[str, Any],
    ) -> list[Outputs]:
        """All keys for contexts that share their forwards."""
        forwards = self.forwards()
        functions: dict[str, Any] = {key: self._module_functions[key] for key in keys if key not in BUILTIN_KEYS}
        scores_wanted = len(functions) < len(keys)
        from_cache = scores_wanted and self._scores_from_cache(forwards)
        on_root = any(f.context_only and f.adapters for f in functions.values())
        root = forwards.root(contexts, use_cache=from_cache, hidden_states=on_root) if from_cache or on_root else None
        by_key: dict[str, Sequence[torch.Tensor]] = {}
        if scores_wanted:
            assert candidates is not None
            scores = self._token_scores(forwards, contexts, candidates, rows, root if from_cache else None)
            by_key |= per_candidate(scores, candidates)
        by_key |= run_functions(
            functions, forwards, contexts, candidates, root=root, rows_per_forward=rows, kwargs=kwargs
        )
        return [{key: by_key[key][i] for key in keys} for i in range(len(contexts))]

    def _token_scores(
        self,
        forwards: Forwards,
        contexts: Sequence[TokenIds],
        candidates: Sequence[Sequence[TokenIds]],
        rows: int,
        root: Root | None,
    ) -> TokenScores:
        if self._args.scoring == "reference":
            return TokenScores(*reference.token_scores(self._LLM_model, contexts, candidates))
        if root is None:
            return score_pairs(forwards, contexts, candidates, rows_per_forward=rows)
        return score_from_root(forwards, root, candidates, rows_per_forward=rows)

    def _scores_from_cache(self, forwards: Forwards) -> bool:
        if self._args.scoring == "reference":
            return False
        if self._cache_works is None:
            defect = cache_defect(forwards)
            self._cache_works = defect is None
            if defect is not None:
                name = type(base_model(self._LLM_model)).__name__
                logger.warning("%s is scored by plain forwards over all pairs (slower): %s", name, defect)
        return self._cache_works

    def _check_keys(self, keys: Sequence[str], candidates: Any) -> None:
        if isinstance(keys, str):
            raise TypeError(f"module function keys: expected a list of str, got {keys!r}")
        known = [*BUILTIN_KEYS, *self._module_functions]
        for key in keys:
            if key not in known:
                raise KeyError(f"unknown module function {key!r}; known: {', '.join(known)}")
            if key in BUILTIN_KEYS and candidates is None:
                raise ValueError(f"{key} needs candidates")
