"""What scoring asks of a model family: the root step, continuations of it, and the padded pairs functions look at.

The *root* is the position that predicts the first token of a candidate: the decoder's start token of an
encoder-decoder, the last context token of a decoder-only model. Letters: C contexts, R rows, T tokens, V vocabulary.
"""

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import Cache, EncoderDecoderCache

from lamorel.padding import Padded
from lamorel.tokenization import TokenIds

Row = tuple[int, TokenIds]  # index of a context, tokens that follow it


class View(NamedTuple):
    """The three arguments of a module function, and where the root stands in them."""

    forward_outputs: Any  # Hugging Face ModelOutput: logits (R, T, V), a tuple of hidden states (R, T, hidden)
    minibatch: dict[str, torch.Tensor]
    tokenized_contexts: list[dict[str, list[int]]]  # one entry per row
    root: int = 0  # index of the root on the position axis of `forward_outputs`


class Root(NamedTuple):
    """The root step of C contexts."""

    contexts: Padded
    logits: torch.Tensor  # (C, V), of the first token of a candidate
    view: View  # one row per context, one position
    cache: Cache | None = None  # keys and values, to continue from
    encoded: torch.Tensor | None = None  # (C, tokens, hidden), the encoder's output


class Forwards(ABC):
    """The forward passes of one model. Stateless: results depend on the weights and the arguments alone."""

    def __init__(self, model: Any, *, pad_id: int) -> None:
        self.model = model
        self.pad_id = pad_id
        self.accepts_position_ids = accepts(model, "position_ids")
        self.accepts_logits_to_keep = accepts(model, "logits_to_keep")
        self.learned_positions = _learned_positions(base_model(model))

    @property
    def device(self) -> torch.device:
        """Where inputs go: the place of the embedding, also when a model is spread over several GPUs."""
        return self.model.get_input_embeddings().weight.device

    def check_lengths(self, contexts: Sequence[TokenIds], candidates: Sequence[Sequence[TokenIds]] | None) -> None:
        """Raises ValueError, naming the context, for texts longer than the model has positions.

        A GPU would end the process in place of an error.
        """
        if self.learned_positions is None:
            return
        for i, ids in enumerate(contexts):
            # Nothing follows a candidate's last token.
            needed = self.positions_needed(len(ids), max(map(len, candidates[i])) if candidates is not None else 0)
            if needed > self.learned_positions:
                raise ValueError(
                    f"contexts[{i}] ({len(ids)} tokens) and its candidates need {needed} positions, but "
                    f"{type(base_model(self.model)).__name__} has {self.learned_positions}: shorten the texts, or take "
                    f"a model with more"
                )

    @abstractmethod
    def positions_needed(self, context: int, candidate: int) -> int:
        """Positions that these numbers of tokens take."""

    @abstractmethod
    def root(self, contexts: Sequence[TokenIds], *, use_cache: bool, hidden_states: bool) -> Root:
        """One forward over the contexts."""

    @abstractmethod
    def continuation(self, root: Root, rows: Sequence[Row]) -> torch.Tensor:
        """Logits (R, T, V) after each token of the rows, right-padded, continued from the root's cache."""

    @abstractmethod
    def pairs(self, contexts: Sequence[TokenIds], rows: Sequence[Row], *, hidden_states: bool = True) -> View:
        """A plain forward over (context, candidate) pairs, as module functions see it. Needs no cache."""

    def right_padded(self, contexts: Sequence[TokenIds], width: int) -> View:
        """The last position of the contexts, right-padded to `width` tokens.

        Raises:
            ValueError: the model has an encoder, which reads them as a whole.
        """
        raise ValueError(f"right_padded module functions are for decoder-only models, not {type(self.model).__name__}")


def _learned_positions(model: Any) -> int | None:
    """Number of learned positions (GPT-2, OPT, BART); None where positions are computed and have no end."""
    count = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    tables = [m for m in model.modules() if isinstance(m, torch.nn.Embedding) and m is not model.get_input_embeddings()]
    # OPT's and BART's tables begin with 2 rows of no position.
    learned = count is not None and any(table.num_embeddings - count in (0, 2) for table in tables)
    return count if learned else None


def accepts(model: Any, argument: str) -> bool:
    """Whether the model's forward names this argument."""
    return argument in inspect.signature(type(base_model(model)).forward).parameters


def base_model(model: Any) -> Any:
    """The Hugging Face model inside a peft model; any other model itself."""
    return model.get_base_model() if hasattr(model, "peft_config") and hasattr(model, "get_base_model") else model


def select_cache(cache: Cache, rows: torch.Tensor) -> Cache:
    """A cache whose row i is row `rows[i]` of `cache`, which stays as it is. Gradients flow through."""
    picked: Any = copy.copy(cache)
    if isinstance(cache, EncoderDecoderCache):
        picked.self_attention_cache = select_cache(cache.self_attention_cache, rows)
        picked.cross_attention_cache = select_cache(cache.cross_attention_cache, rows)
        return picked
    picked.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in picked.layers:
        keys = getattr(layer, "keys", None)  # on the layer's GPU, where a model is spread over several
        layer.batch_select_indices(rows if keys is None else rows.to(keys.device))
    return picked


def unpadded(contexts: Sequence[TokenIds]) -> list[dict[str, list[int]]]:
    """Contexts in the form of `tokenized_contexts`."""
    return [{"input_ids": list(ids), "attention_mask": [1] * len(ids)} for ids in contexts]
