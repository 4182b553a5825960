"""The rows of a model's embeddings, and the tokens of a tokenizer that need one."""

from typing import Any


def input_embeddings(model: Any) -> list[Any]:
    """The model's token embeddings; those of an encoder-decoder are followed by its encoder's and its decoder's, which
    may be the same or others."""
    parts = [model, model.get_encoder(), model.get_decoder()] if model.config.is_encoder_decoder else [model]
    # FSMT's encoder and decoder are plain modules
    return [getattr(part, "get_input_embeddings", lambda part=part: part.embed_tokens)() for part in parts]


def rows(model: Any) -> int:
    """Number of tokens, from id 0 on, that the model can read and predict."""
    head = model.get_output_embeddings()
    return min(layer.weight.shape[0] for layer in (*input_embeddings(model), head) if layer is not None)


def largest_ids(tokenizer: Any) -> tuple[int, int]:
    """The largest id of the tokens that texts are made of, and that of all tokens.

    Special tokens without a role in text differ: those of images (Gemma 3), T5's sentinels, or one that transformers
    adds to the tokenizer of a GGUF file. Tokenizers list them although the model may have no row for them.
    """
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    special -= {tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token, tokenizer.pad_token}
    ids = tokenizer.get_vocab()
    return max(index for token, index in ids.items() if token not in special), max(ids.values())
