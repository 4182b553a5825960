"""Tiny GGUF files, written with the package gguf. Their weights are random; most are in blocks of 8 bits."""

import json
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, HEADS, KEY_HEADS, FEED_FORWARD, LAYERS = 32, 4, 2, 64, 2


def write_llama(path: Path, tokenizer: Any, *, own_head: bool = False) -> Path:
    """A Llama with the tokens of a byte-level tokenizer.

    Args:
        own_head: write an output head; without one it is the embedding.
    """
    import gguf

    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(LAYERS)
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] * 4 + [gguf.TokenType.NORMAL] * (len(tokens) - 4))
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(3)
    shapes = {"token_embd": (len(tokens), WIDTH), "output_norm": (WIDTH,)}
    if own_head:
        shapes["output"] = (len(tokens), WIDTH)
    for i in range(LAYERS):
        keys = WIDTH // HEADS * KEY_HEADS
        shapes |= {
            f"blk.{i}.attn_norm": (WIDTH,), f"blk.{i}.ffn_norm": (WIDTH,),
            f"blk.{i}.attn_q": (WIDTH, WIDTH), f"blk.{i}.attn_output": (WIDTH, WIDTH),
            f"blk.{i}.attn_k": (keys, WIDTH), f"blk.{i}.attn_v": (keys, WIDTH),
            f"blk.{i}.ffn_gate": (FEED_FORWARD, WIDTH), f"blk.{i}.ffn_up": (FEED_FORWARD, WIDTH),
            f"blk.{i}.ffn_down": (WIDTH, FEED_FORWARD),
        }  # fmt: skip
    _write(writer, shapes)
    return path


def write_t5(path: Path, tokens: list[str]) -> Path:
    """A T5 1.1: gated, with an output head of its own. Its tokenizer is a unigram model of `tokens`."""
    import gguf

    tokens = ["<pad>", "</s>", "<unk>", *tokens]
    writer = gguf.GGUFWriter(path, "t5")
    writer.add_name("tiny")
    writer.add_block_count(LAYERS)
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_key_length(WIDTH // HEADS)
    writer.add_value_length(WIDTH // HEADS)
    writer.add_layer_norm_eps(1e-6)
    writer.add_relative_attn_buckets_count(8)
    writer.add_decoder_start_token_id(0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("t5")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 3 + [-float(i) for i in range(1, len(tokens) - 2)])
    writer.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (len(tokens) - 3))
    writer.add_pad_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(2)
    matrix, vocabulary = (WIDTH, WIDTH), (len(tokens), WIDTH)
    shapes = {"token_embd": vocabulary, "output": vocabulary}
    for part in ("enc", "dec"):
        shapes[f"{part}.output_norm"] = (WIDTH,)
        for i in range(LAYERS):
            block = f"{part}.blk.{i}"
            for attention in ("attn", "cross_attn") if part == "dec" else ("attn",):
                shapes |= {f"{block}.{attention}_{name}": matrix for name in ("q", "k", "v", "o")}
                shapes[f"{block}.{attention}_norm"] = (WIDTH,)
            if i == 0:
                shapes[f"{block}.attn_rel_b"] = (8, HEADS)
            shapes |= {
                f"{block}.ffn_norm": (WIDTH,),
                f"{block}.ffn_gate": (FEED_FORWARD, WIDTH),
                f"{block}.ffn_up": (FEED_FORWARD, WIDTH),
                f"{block}.ffn_down": (WIDTH, FEED_FORWARD),
            }
    _write(writer, shapes)
    return path


def _write(writer: Any, shapes: dict[str, tuple[int, ...]]) -> None:
    import gguf

    generator = np.random.default_rng(0)
    for name, shape in shapes.items():
        tensor = generator.normal(scale=0.3, size=shape).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(f"{name}.weight", 1 + tensor)
        elif shape[1] % 32:
            writer.add_tensor(f"{name}.weight", tensor)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(f"{name}.weight", gguf.quants.quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
