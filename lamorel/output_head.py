"""The output head as config.json asks for it: a matrix of its own, or the token embeddings.

PAPER-DIFF(20): transformers 5 ties the head of T5, mT5, UMT5 and LongT5 to the embeddings even where config.json says
`tie_word_embeddings: false`, as it does for T5 1.1 and Flan-T5. Transformers 4, and with it the released code, did not.
It writes T5 1.1 and LongT5 as `tie_word_embeddings: true` with `scale_decoder_outputs: false`.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch


def ask_as_written(config: Any, config_json: Mapping[str, Any]) -> None:
    """Let `config`, as transformers read it, ask for the head that its file asks for; in place."""
    if config_json.get("tie_word_embeddings") is False:
        config.tie_word_embeddings = False


def is_tied_regardless(config: Any) -> bool:
    """Whether transformers ties the head of this family although `config` asks for one of its own."""
    if getattr(config, "tie_word_embeddings", None) is not False:
        return False
    return type(config).from_dict(config.to_dict()).tie_word_embeddings


def separate_head(model: Any, config: Any) -> None:
    """Give a loaded model the head that `config` asks for, and a config that is true of it; in place.

    Transformers has not tied a head that its file holds and that differs from the embedding. A head that is the
    embedding becomes a copy.
    """
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    asked = is_tied_regardless(config)
    if asked and head.weight is embeddings.weight:
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
    if asked or (_is_unscaled(config) and head.weight is not embeddings.weight):
        model.config.tie_word_embeddings = False  # UMT5 scales the decoder's output by it


def from_config(auto_class: Any, config: Any, **options: Any) -> Any:
    """A model with random weights that has the head `config` asks for. Encoder and decoder use one embedding.

    Args:
        auto_class, options: transformers' class, and what its `from_config` takes.
    """
    if _is_unscaled(config):
        config = copy.deepcopy(config)
        config.tie_word_embeddings = False
    model = auto_class.from_config(config, **options)
    if is_tied_regardless(config):  # built untied, each of the two has one
        model.set_input_embeddings(model.get_input_embeddings())
    return model


def _is_unscaled(config: Any) -> bool:
    """Whether this is a T5 1.1 or LongT5; a T5 whose head is the embedding scales the decoder's output."""
    return getattr(config, "scale_decoder_outputs", True) is False
