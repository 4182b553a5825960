"""Builds the model and its tokenizer from `llm_args`.

What cannot be loaded is a `LamorelConfigError` of one line, which names the key, the reason and the remedy.
"""

import json
import logging
import os
import pickle
import struct
import sys
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers.utils import is_gguf_available
from transformers.utils import logging as transformers_logging

from lamorel import output_head
from lamorel.adapters import add_lora, base_of_adapter, load_adapter
from lamorel.compiling import check_compiler, compile_layers
from lamorel.config import LLM_KEY, LamorelConfigError, LLMArgs, LoraArgs, gguf_file
from lamorel.placement import free_memory, place
from lamorel.quantization import quantization_config, quantization_key

logger = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
HUB_TIMEOUT_S = 5
_AUTO_CLASSES = {"seq2seq": transformers.AutoModelForSeq2SeqLM, "causal": transformers.AutoModelForCausalLM}
_STREAMS = {"model": 0, "heads": 1}
_KEY = f"{LLM_KEY}.model_path"

# What damaged or unknown files end in, inside transformers; plain RuntimeErrors are told by their text.
_BAD_METADATA = (ValueError, TypeError, LookupError, StrictDataclassError, struct.error)
_BAD_WEIGHTS = (EOFError, json.JSONDecodeError, pickle.UnpicklingError, SafetensorError)
_BAD_WEIGHTS_TEXTS = ("PytorchStreamReader", "ignore_mismatched_sizes")


def model_location(model_path: str) -> str:
    """The model that a `model_path` means: an absolute path, `~` expanded, of a folder or GGUF file, or else a hub id.

    Paths are absolute: an adapter's checkpoint names its model, and is to be loaded from any working folder.
    """
    path = os.path.expanduser(model_path)
    return os.path.abspath(path) if os.path.isdir(path) or path.endswith(".gguf") else model_path


def pretrained_source(model_path: str) -> tuple[str, dict[str, Any]]:
    """What Hugging Face's `from_pretrained` takes for a `model_path`: folder or hub id, and options.

    Raises:
        LamorelConfigError: the model is a GGUF file, and the package gguf is not installed.
    """
    location = model_location(model_path)
    file = gguf_file(location)
    if file is None:
        return location, {}
    if not (is_gguf_available() and hasattr(transformers, "GgufConfig")):
        raise LamorelConfigError(
            f"{_KEY} {model_path}: to read {file.name}, the package gguf is needed: pip install gguf, or convert the "
            f"file where it is installed: from_pretrained(folder, gguf_file={file.name!r}) and save_pretrained, of "
            f"model and tokenizer"
        )
    return str(file.parent), {"gguf_file": str(file)}


def read_config(args: LLMArgs) -> Any:
    """The model's Hugging Face configuration; for an adapter, that of the model it was made for.

    Raises:
        LamorelConfigError: there is no such model, or it is not of `model_type`.
    """
    config = read_any_config(args)
    found = model_type_of(config)
    if args.model_type != found:
        raise LamorelConfigError(
            f"{LLM_KEY}.model_type is {args.model_type}, but {args.model_path} ({config.model_type}) is "
            f"{'an' if config.is_encoder_decoder else 'not an'} encoder-decoder: set it to {found}, or choose another "
            f"model_path"
        )
    return config


def model_type_of(config: Any) -> str:
    """`llm_args.model_type` of a Hugging Face configuration: seq2seq | causal."""
    return "seq2seq" if config.is_encoder_decoder else "causal"


def read_any_config(args: LLMArgs) -> Any:
    """The same as `read_config` for a model of either type: `model_type` is not looked at."""
    assert args.model_path is not None
    _check_hub_id(args.model_path)
    location = model_location(args.model_path)
    remedy = "give the folder, GGUF file or hub id of a model that this version of transformers knows"
    with quiet(), _reading(args.model_path, "configuration", remedy):
        base = base_of_adapter(location)
        config = _config_as_written(args, location if base is None else base)
    if base is not None and args.lora is not None:
        raise LamorelConfigError(
            f"{LLM_KEY}.lora asks for new adapters, but {args.model_path} is an adapter, which is trained further: "
            f"leave lora out, or give the model that the adapter was made for ({base})"
        )
    return config


def _config_as_written(args: LLMArgs, model_path: str) -> Any:
    """The configuration of a model that is no adapter, with the head that its file asks for."""
    source, options = pretrained_source(model_path)
    if options:
        written, _ = transformers.PreTrainedConfig.get_config_dict(source, **options)  # slow: reads all of the metadata
        config = transformers.AutoConfig.for_model(**written)
    else:
        config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=args.trust_remote_code)
        written, _ = transformers.PreTrainedConfig.get_config_dict(source)
    output_head.ask_as_written(config, written)
    return config


def load_tokenizer(args: LLMArgs) -> Any:
    """The tokenizer beside the model, or in its GGUF file."""
    assert args.model_path is not None
    with quiet(), _reading(args.model_path, "tokenizer", "save the model's tokenizer into its folder again"):
        source, options = pretrained_source(args.model_path)
        return transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=args.trust_remote_code, **options)


def load_model(args: LLMArgs, config: Any, device: torch.device) -> Any:
    """The model in eval mode on `device` (or spread from there on), with its adapter, compiled: all as asked for.

    Args:
        config: what `read_config` gives.
    """
    assert args.model_path is not None
    if args.compile:
        check_compiler(device)
    adapter = model_location(args.model_path)
    base = base_of_adapter(adapter) if args.pretrained else None
    with quiet(), seeded(args.seed, "model"):
        with _reading(args.model_path, "weights", "copy or download the model again"), _building(args, config):
            if args.lora is not None and args.pretrained:
                _check_targets(args, args.lora, config)
            location = adapter if base is None else base
            if args.pretrained:
                model = _from_pretrained(args, location, device)
                output_head.separate_head(model, config)
            else:
                model = _from_config(args, config)
        used = model.config._attn_implementation
        if used != args.attention:
            logger.info("%s has no %s attention: %s is used", type(model).__name__, args.attention, used)
        if quantization_key(args) is None:
            model = place(model, args, device)
        if args.lora is not None:
            model = add_lora(model, args.lora, args.model_type)
        if base is not None:
            with _reading(args.model_path, "weights", "copy or download the adapter again"):
                model = load_adapter(model, adapter)
    if args.compile:
        compile_layers(model)
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
    """No progress bars without a terminal, as they fill log files; no misleading warnings of transformers and peft."""
    was_enabled = transformers_logging.is_progress_bar_enabled()
    of_models = logging.getLogger("transformers.modeling_utils")
    of_models.addFilter(_is_no_advice_to_untie)
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            warnings.filterwarnings("ignore", r"Could not find a config file in .*\.gguf", UserWarning)
            yield
    finally:
        of_models.removeFilter(_is_no_advice_to_untie)
        if was_enabled:
            transformers_logging.enable_progress_bar()


def _is_no_advice_to_untie(record: logging.LogRecord) -> bool:
    """Transformers advises it for every T5 1.1, although its config.json has it (see `output_head`)."""
    return "specifies to tie shared.weight to lm_head.weight" not in record.getMessage()


@contextmanager
def _reading(model_path: str, part: str, remedy: str) -> Iterator[None]:
    """Turns what Hugging Face says of a model that it cannot find or read into one line that names the key."""
    try:
        yield
    except LamorelConfigError:
        raise
    except OSError as error:
        raise _cannot_load(model_path, error) from error
    except Exception as error:
        if part == "weights":
            unreadable = isinstance(error, _BAD_WEIGHTS) or any(text in str(error) for text in _BAD_WEIGHTS_TEXTS)
        else:
            unreadable = isinstance(error, _BAD_METADATA)
        if not unreadable:
            raise
        raise LamorelConfigError(
            f"{_KEY} {model_path}: its {part} cannot be read: {remedy} ({_reason(error)})"
        ) from error


@contextmanager
def _building(args: LLMArgs, config: Any) -> Iterator[None]:
    """Says so where no model can be built from `config`, at all or with `attention`; other errors pass."""
    try:
        yield
    except (ImportError, ValueError) as error:
        if _can_build(args, config, _attention(args)):
            raise
        message = (
            f"{_KEY} {args.model_path}: no {args.model_type} model can be built from its config.json: choose another"
        )
        if _can_build(args, config, "eager"):
            message = f"{LLM_KEY}.attention {args.attention} is not available for {args.model_path}: choose sdpa"
        raise LamorelConfigError(f"{message} ({_reason(error)})") from error


def _attention(args: LLMArgs) -> str | None:
    """What transformers takes for it: None is sdpa where the model has it, else eager."""
    return None if args.attention == "sdpa" else args.attention


def _can_build(args: LLMArgs, config: Any, attention: str | None) -> bool:
    """Whether the model can be built with an attention; no weights are read or made."""
    try:
        with torch.device("meta"):
            _AUTO_CLASSES[args.model_type].from_config(
                config, attn_implementation=attention, trust_remote_code=args.trust_remote_code
            )
    except (ImportError, ValueError):
        return False
    return True


def _check_targets(args: LLMArgs, lora: LoraArgs, config: Any) -> None:
    """Finds out that adapters do not fit before gigabytes of weights are read; makes none."""
    with seeded(args.seed, "model"), warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")  # they come again with the model itself
        add_lora(_from_config(args, config), lora, args.model_type)


def _check_hub_id(model_path: str) -> None:
    """Finds out in seconds, not after a minute of transformers' retries, that the hub does not have a model."""
    if Path(model_location(model_path)).exists() or huggingface_hub.constants.HF_HUB_OFFLINE:
        return
    if isinstance(huggingface_hub.try_to_load_from_cache(model_path, "config.json"), str):
        return
    try:
        huggingface_hub.model_info(model_path, timeout=HUB_TIMEOUT_S)
    except Exception as error:  # the HTTP library, and with it the type, depends on huggingface_hub's version
        raise _cannot_load(model_path, error) from error


def _cannot_load(model_path: str, error: Exception) -> LamorelConfigError:
    return LamorelConfigError(
        f"{_KEY} {model_path} cannot be loaded: give an existing model folder, or a hub id that this machine can "
        f"reach ({_reason(error)})"
    )


def _reason(error: Exception) -> str:
    """The first line of an error, or its type."""
    return textwrap.shorten((str(error).splitlines() or [""])[0], 240) or type(error).__name__


def _from_pretrained(args: LLMArgs, model_path: str, device: torch.device) -> Any:
    source, options = pretrained_source(model_path)
    key = quantization_key(args)
    if options:
        if key is not None:
            raise LamorelConfigError(
                f"{LLM_KEY}.{key} cannot be combined with the GGUF file {options['gguf_file']}: leave it out, or save "
                f"the model as a Hugging Face one first, without it"
            )
        # else its weights stay in blocks where the package kernels is installed, and cannot be trained
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    elif key is not None:
        options["quantization_config"] = quantization_config(args, DTYPES[args.dtype])
        spread = args.parallelism.model_parallelism_size
        options["device_map"] = {"": device} if spread == 1 else "auto"
        if spread > 1:
            options["max_memory"] = free_memory(spread)
    model = _AUTO_CLASSES[args.model_type].from_pretrained(
        source,
        dtype=DTYPES[args.dtype],
        attn_implementation=_attention(args),
        trust_remote_code=args.trust_remote_code,
        **options,
    )
    if "gguf_file" in options:
        model.name_or_path = options["gguf_file"]  # not its folder, which may hold others: adapters name their model
    return model


def _from_config(args: LLMArgs, config: Any) -> Any:
    return output_head.from_config(
        _AUTO_CLASSES[args.model_type],
        config,
        dtype=DTYPES[args.dtype],
        attn_implementation=_attention(args),
        trust_remote_code=args.trust_remote_code,
    )
