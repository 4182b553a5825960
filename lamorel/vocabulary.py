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


def ids_of_texts(tokenizer: Any) -> dict[str, int]:
    """Ids by token, of the tokens that a text may hold.

    Left out are special tokens without a part in text, which tokenizers may list without the model having a row for
    them: those of images and sounds (Gemma 3), or those that transformers adds to a GGUF file's.
    """
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    roles = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token, tokenizer.pad_token)
    special -= {*roles, *tokenizer.extra_special_tokens}
    return {token: index for token, index in tokenizer.get_vocab().items() if token not in special}
