"""Builds the model and its tokenizer from `llm_args`."""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
import transformers
from transformers.utils import logging as transformers_logging

from lamorel.config import LamorelConfigError, LLMArgs, LoraArgs

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_AUTO_CLASSES = {"seq2seq": transformers.AutoModelForSeq2SeqLM, "causal": transformers.AutoModelForCausalLM}
HUB_TIMEOUT_S = 5
_STREAMS = {"model": 0, "heads": 1}


def check_device(args: LLMArgs) -> torch.device:
    """The device of the model, after checking that this machine can do what `parallelism` and `load_in_4bit` ask.

    Raises:
        LamorelConfigError: no such GPU, or a package is missing; the message says what to change.
    """
    wanted = args.parallelism.model_parallelism_size
    if args.load_in_4bit and importlib.util.find_spec("bitsandbytes") is None:
        raise LamorelConfigError("llm_args.load_in_4bit needs the package bitsandbytes: pip install bitsandbytes")
    if not args.parallelism.use_gpu:
        for key, asked in (("load_in_4bit", args.load_in_4bit), ("parallelism.model_parallelism_size", wanted > 1)):
            if asked:
                raise LamorelConfigError(f"llm_args.{key} needs a GPU: set llm_args.parallelism.use_gpu to true")
        return torch.device("cpu")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found == 0:
        raise LamorelConfigError(
            "llm_args.parallelism.use_gpu is true, but torch finds no CUDA GPU here: set it to false, or run where "
            "there is a GPU with a CUDA build of torch (python -c 'import torch; print(torch.cuda.is_available())')"
        )
    if found < wanted:
        raise LamorelConfigError(
            f"llm_args.parallelism.model_parallelism_size is {wanted}, but torch finds {found} GPU(s) here"
        )
    return torch.device("cuda", 0)


def load_tokenizer(args: LLMArgs) -> Any:
    """The tokenizer beside the model."""
    assert args.model_path is not None
    _check_hub_id(args.model_path)
    with quiet(), _naming(args.model_path):
        return transformers.AutoTokenizer.from_pretrained(
            _location(args.model_path), trust_remote_code=args.trust_remote_code
        )


def load_model(args: LLMArgs, device: torch.device) -> Any:
    """The model in eval mode on `device` (or spread from there on), with its LoRA adapter where one is asked for."""
    assert args.model_path is not None
    with quiet(), seeded(args.seed, "model"), _naming(args.model_path):
        model = _from_pretrained(args, device) if args.pretrained else _from_config(args)
        if not args.load_in_4bit:
            model = _place(model, args, device)
        if args.lora is not None:
            model = _add_lora(model, args.lora, args.model_type)
    return model.eval()


@contextmanager
def seeded(seed: int, stream: str) -> Iterator[None]:
    """Random numbers of torch seeded by `seed`, other ones per stream; the caller's random state is left as it was."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(len(_STREAMS) * seed + _STREAMS[stream])
        yield


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars where nobody watches them: they fill log files."""
    was_enabled = transformers_logging.is_progress_bar_enabled()
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            transformers_logging.enable_progress_bar()


@contextmanager
def _naming(model_path: str) -> Iterator[None]:
    """Turns what transformers says of a model it cannot find or read into one line that names the key."""
    try:
        yield
    except OSError as error:
        raise _cannot_load(model_path, error) from error


def _check_hub_id(model_path: str) -> None:
    """Finds out in seconds, not after a minute of transformers' retries, that the hub does not have a model."""
    if Path(_location(model_path)).is_dir() or huggingface_hub.constants.HF_HUB_OFFLINE:
        return
    if isinstance(huggingface_hub.try_to_load_from_cache(model_path, "config.json"), str):
        return
    try:
        huggingface_hub.model_info(model_path, timeout=HUB_TIMEOUT_S)
    except Exception as error:  # the HTTP library, and with it the type, depends on huggingface_hub's version
        raise _cannot_load(model_path, error) from error


def _cannot_load(model_path: str, error: Exception) -> LamorelConfigError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return LamorelConfigError(
        f"llm_args.model_path {model_path} cannot be loaded: give an existing model folder, or a hub id that this "
        f"machine can reach ({reason})"
    )


def _location(model_path: str) -> str:
    folder = Path(model_path).expanduser()
    return str(folder) if folder.is_dir() else model_path


def _from_pretrained(args: LLMArgs, device: torch.device) -> Any:
    options: dict[str, Any] = {}
    if args.load_in_4bit:
        options["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_compute_dtype=DTYPES[args.dtype]
        )
        spread = args.parallelism.model_parallelism_size
        options["device_map"] = {"": device} if spread == 1 else "auto"
        if spread > 1:
            options["max_memory"] = _memory_of(spread)
    assert args.model_path is not None
    return _AUTO_CLASSES[args.model_type].from_pretrained(
        _location(args.model_path),
        dtype=DTYPES[args.dtype],
        attn_implementation=args.attention,
        trust_remote_code=args.trust_remote_code,
        **options,
    )


def _from_config(args: LLMArgs) -> Any:
    if args.load_in_4bit:
        raise LamorelConfigError("llm_args.load_in_4bit needs pretrained weights: set llm_args.pretrained to true")
    assert args.model_path is not None
    config = transformers.AutoConfig.from_pretrained(
        _location(args.model_path), trust_remote_code=args.trust_remote_code
    )
    return _AUTO_CLASSES[args.model_type].from_config(
        config,
        dtype=DTYPES[args.dtype],
        attn_implementation=args.attention,
        trust_remote_code=args.trust_remote_code,
    )


def _place(model: Any, args: LLMArgs, device: torch.device) -> Any:
    """The model on its device, or spread over `model_parallelism_size` GPUs."""
    spread = args.parallelism.model_parallelism_size
    if spread > 1:
        from accelerate import dispatch_model, infer_auto_device_map
        from accelerate.utils import get_balanced_memory

        whole = list(getattr(model, "_no_split_modules", None) or [])
        memory = get_balanced_memory(model, max_memory=_memory_of(spread), no_split_module_classes=whole)
        return dispatch_model(model, infer_auto_device_map(model, max_memory=memory, no_split_module_classes=whole))
    model = model.to(device)
    # Weights read from a safetensors file lie at any address of the mapped file, and kernels may round otherwise
    # there than on memory that torch has aligned: a resumed run would differ in the last bit.
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
    return model


def _memory_of(gpus: int) -> dict[int, int]:
    """Free bytes of the first GPUs; the others are not to be used."""
    return {i: torch.cuda.mem_get_info(i)[0] for i in range(gpus)}


def _add_lora(model: Any, lora: LoraArgs, model_type: str) -> Any:
    from peft import LoraConfig, TaskType, get_peft_model

    targets = list(lora.target_modules) if isinstance(lora.target_modules, tuple) else lora.target_modules
    config = LoraConfig(
        task_type=TaskType.SEQ_2_SEQ_LM if model_type == "seq2seq" else TaskType.CAUSAL_LM,
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
    )
    return get_peft_model(model, config)
