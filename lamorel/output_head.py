"""The output head as config.json asks for it: a matrix of its own, or the token embeddings.

PAPER-DIFF(20): transformers 5 ties the head of T5, mT5, UMT5 and LongT5 to the embeddings even where config.json says
`tie_word_embeddings: false`, as it does for T5 1.1 and Flan-T5. Transformers 4, and with it the released code, did not.
"""

from collections.abc import Mapping
from typing import Any

import torch


def asks_for_own_head(config_json: Mapping[str, Any]) -> bool:
    """Whether a config.json describes a model whose head is a matrix of its own.

    Transformers 5 writes T5 1.1 as `tie_word_embeddings: true` with `scale_decoder_outputs: false`; published T5 models
    scale the decoder's output exactly where the head is the embedding.
    """
    return config_json.get("tie_word_embeddings") is False or config_json.get("scale_decoder_outputs") is False


def is_tied_regardless(config: Any) -> bool:
    """Whether transformers ties the head of this family although `config` asks for one of its own."""
    if getattr(config, "tie_word_embeddings", None) is not False:
        return False
    return type(config).from_dict(config.to_dict()).tie_word_embeddings


def separate_head(model: Any) -> None:
    """Give a loaded model of such a family a head of its own, and the config that says so; in place.

    Where its file has a head that differs from the embedding, transformers has not tied them.
    """
    model.config.tie_word_embeddings = False  # UMT5 scales the decoder's output by it, and it is saved
    head = model.get_output_embeddings()
    if head.weight is model.get_input_embeddings().weight:
        head.weight = torch.nn.Parameter(head.weight.detach().clone())


def share_embedding(model: Any) -> None:
    """Let encoder and decoder of a model of such a family, built untied, use one embedding, as published; in place."""
    model.set_input_embeddings(model.get_input_embeddings())
