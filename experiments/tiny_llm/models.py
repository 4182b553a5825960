"""Tiny models from scratch: a T5-like encoder-decoder and a Llama-like decoder-only one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from experiments.tiny_llm.vocabulary import word_level_tokenizer
from lamorel.loading import quiet

LLAMA_INIT_STD = 0.02
ARCHITECTURES = {"t5": "seq2seq", "llama": "causal"}  # name -> lamorel's model_type


def tiny_model(
    architecture: str,
    tokenizer: PreTrainedTokenizerFast,
    *,
    d_model: int,
    layers: int,
    heads: int,
    init_scale: float = 1.0,
) -> Any:
    """A model with random weights from torch's global generator.

    Args:
        architecture: t5 (layers in the encoder and as many in the decoder) or llama.
        d_model: width; the feed-forward layers are twice as wide.
        heads: attention heads of d_model / heads each.
        init_scale: the initial weights' standard deviations are transformers' own times this.
    """
    if architecture == "t5":
        return T5ForConditionalGeneration(
            T5Config(  # type: ignore[call-arg]
                vocab_size=len(tokenizer), d_model=d_model, d_kv=d_model // heads, d_ff=2 * d_model, num_layers=layers,
                num_decoder_layers=layers, num_heads=heads, dropout_rate=0.0, tie_word_embeddings=True,
                pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
                decoder_start_token_id=tokenizer.pad_token_id, initializer_factor=init_scale,
            )
        )  # fmt: skip
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=d_model, intermediate_size=2 * d_model, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=2048,
            tie_word_embeddings=True, pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            initializer_range=LLAMA_INIT_STD * init_scale,
        )
    )  # fmt: skip


def save_tiny_model(
    folder: Path,
    architecture: str = "t5",
    *,
    d_model: int = 64,
    layers: int = 2,
    heads: int = 2,
    init_scale: float = 1.0,
    seed: int = 1,
    tokenizer: PreTrainedTokenizerFast | None = None,
) -> None:
    """Write an untrained tiny model and its tokenizer (babyai_text's unless one is given) in Hugging Face format."""
    if tokenizer is None:
        tokenizer = word_level_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = tiny_model(architecture, tokenizer, d_model=d_model, layers=layers, heads=heads, init_scale=init_scale)
    with quiet():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
