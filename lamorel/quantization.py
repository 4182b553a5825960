"""4-bit and 8-bit weights by bitsandbytes (`llm_args.load_in_4bit`, `llm_args.load_in_8bit`)."""

import importlib.util
from typing import Any

import torch

from lamorel.config import LLM_KEY, LamorelConfigError, LLMArgs


def quantization_key(args: LLMArgs) -> str | None:
    """The key that asks for quantised weights; None where none does."""
    return next((key for key in ("load_in_4bit", "load_in_8bit") if getattr(args, key)), None)


def check_quantization(args: LLMArgs) -> None:
    """Raises LamorelConfigError, before anything is loaded, for quantisation that cannot be had."""
    key = quantization_key(args)
    if key is None:
        return
    if importlib.util.find_spec("bitsandbytes") is None:
        raise LamorelConfigError(f"{LLM_KEY}.{key} needs the package bitsandbytes: pip install bitsandbytes")
    if not args.parallelism.use_gpu:
        raise LamorelConfigError(f"{LLM_KEY}.{key} needs a GPU: set {LLM_KEY}.parallelism.use_gpu to true")
    if not args.pretrained:
        raise LamorelConfigError(f"{LLM_KEY}.{key} needs pretrained weights: set {LLM_KEY}.pretrained to true")


def quantization_config(args: LLMArgs, compute_dtype: torch.dtype) -> Any:
    """What `from_pretrained` takes.

    4 bit: NF4, whose levels fit normally distributed weights (Dettmers et al. 2023, QLoRA), computing in
    `compute_dtype`. 8 bit: LLM.int8() with its outlier columns in 16 bit (Dettmers et al. 2022).
    """
    from transformers import BitsAndBytesConfig

    if args.load_in_4bit:
        return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute_dtype)
    return BitsAndBytesConfig(load_in_8bit=True)
