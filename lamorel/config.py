"""The `lamorel_args` tree: every key with its default, checked without torch, before a model is read.

`parse_config` turns an omegaconf node (or a plain dict) into frozen dataclasses. Whatever is wrong is a
`LamorelConfigError` that names the full key, the value found and what was expected.
"""

import dataclasses
import difflib
import os
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LLM_KEY = "lamorel_args.llm_args"  # in error texts, which name full keys
_PLAIN_MODEL = ("*.safetensors", "pytorch_model*.bin", "adapter_config.json")  # in a folder, before a GGUF file


class LamorelConfigError(ValueError):
    """A key of `lamorel_args` is unknown, missing, of the wrong type or out of range."""


def _one_of(default: str, *choices: str) -> Any:
    return field(default=default, metadata={"choices": choices})


def _at_least(minimum: float, default: Any) -> Any:
    return field(default=default, metadata={"minimum": minimum})


def _between(minimum: float, maximum: float, default: Any) -> Any:
    return field(default=default, metadata={"minimum": minimum, "maximum": maximum})


@dataclass(frozen=True)
class SetupArgs:
    n_rl_processes: int = _at_least(1, 1)
    n_llm_processes: int = _at_least(0, 1)  # 0: no LLM is wanted, and no Caller can be made
    stop_grace: int = _at_least(0, 600)  # seconds RL processes have to end after SIGTERM, SIGINT or SIGHUP


@dataclass(frozen=True)
class AccelerateArgs:
    """Arguments of the launcher. `flags` holds every further accelerate-launch flag, by name."""

    config_file: str | None = None  # relative to the working folder, else to that of the configuration; may be missing
    machine_rank: int = _at_least(0, 0)
    num_machines: int = _at_least(1, 1)
    main_process_ip: str | None = None
    main_process_port: int | None = _between(0, 65535, None)  # None: a free port
    flags: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LoraArgs:
    """Low-rank adapters (Hu et al. 2021): W + alpha / r * B A."""

    r: int = _at_least(1, 8)
    alpha: int = _at_least(1, 16)
    dropout: float = _between(0, 1, 0.0)  # never active here: models run in eval mode; it is written to the adapter
    target_modules: str | tuple[str, ...] | None = None  # None: peft's choice for this architecture
    # Adapters in fp32 over bf16, fp16 or quantised weights: in bf16 an Adam step of 1e-5 is lost to rounding.
    fp32: bool = True


@dataclass(frozen=True)
class ParallelismArgs:
    use_gpu: bool = False
    model_parallelism_size: int = _at_least(1, 1)  # GPUs one model is spread over
    synchronize_gpus_after_scoring: bool = False
    empty_cuda_cache_after_scoring: bool = False


@dataclass(frozen=True)
class LLMArgs:
    model_type: str = _one_of("seq2seq", "seq2seq", "causal")
    model_path: str | None = None  # folder, GGUF file or hub id; required where an LLM is loaded
    pretrained: bool = True  # False: random weights of the model's architecture, drawn from `seed`
    minibatch_size: int = _at_least(1, 16)  # rows (context, or context with candidate) of any one forward
    # Tokens of one forward and backward of an update; None: 2048 on a CPU, on a GPU what its memory is taken to hold.
    tokens_per_chunk: int | None = _at_least(1, None)
    pre_encode_inputs: bool = True  # what module functions see of a decoder-only model: from the last context token on
    load_in_4bit: bool = False
    load_in_8bit: bool = False
    seed: int = _at_least(0, 0)  # heads, and random weights
    dtype: str = _one_of("fp32", "auto", "fp32", "bf16", "fp16")  # auto: placement.choose_dtype
    attention: str = _one_of(
        "sdpa", "sdpa", "eager", "flash_attention_2", "flex_attention"
    )  # sdpa: eager where it is missing
    compile: bool = False  # torch.compile of the model's layers: minutes at the start, then faster
    lora: LoraArgs | None = None
    gradient_checkpointing: bool = False  # recompute each forward in the backward pass: less memory, a third more time
    add_bos: bool = False  # the tokenizer's beginning-of-sequence token, where it has one, before each context
    candidate_prefix: str = _one_of("none", "none", "space", "auto")
    # lamorel.ways; fast: the fastest that is exact for the model
    scoring: str = _one_of("fast", "fast", "cached", "pairs", "equal", "reference")
    trust_remote_code: bool = False
    parallelism: ParallelismArgs = field(default_factory=ParallelismArgs)


@dataclass(frozen=True)
class LamorelConfig:
    log_level: str = _one_of("info", "debug", "info", "warning", "error", "critical")
    allow_subgraph_use_whith_gradient: bool = True  # upstream's spelling; DDP's find_unused_parameters
    gloo_timeout: int = _at_least(1, 1800)  # seconds
    updater_args: dict[str, Any] | None = None  # a key of old configurations; updaters are instances
    distributed_setup_args: SetupArgs = field(default_factory=SetupArgs)
    accelerate_args: AccelerateArgs = field(default_factory=AccelerateArgs)
    llm_args: LLMArgs = field(default_factory=LLMArgs)


def parse_config(config: Any) -> LamorelConfig:
    """Checks `lamorel_args` and fills in the defaults.

    Args:
        config: omegaconf DictConfig, mapping, or a LamorelConfig (returned as it is).

    Raises:
        LamorelConfigError: naming the key and what was expected.
    """
    if isinstance(config, LamorelConfig):
        return config
    parsed = _build(LamorelConfig, plain_args(config), "lamorel_args")
    if parsed.distributed_setup_args.n_llm_processes > 0:
        _check_model_path(parsed.llm_args.model_path)
    if parsed.llm_args.load_in_4bit and parsed.llm_args.load_in_8bit:
        raise LamorelConfigError(f"{LLM_KEY}.load_in_4bit and {LLM_KEY}.load_in_8bit are both true: choose one")
    return parsed


def plain_args(config: Any) -> Any:
    """Resolved plain containers of an omegaconf node; anything else unchanged.

    Raises:
        LamorelConfigError: a value is missing (`???`) or cannot be resolved.
    """
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not isinstance(config, DictConfig):
        return config
    try:
        # num_processes is n_rl_processes + n_llm_processes, whatever is given.
        missing = {key.removeprefix("lamorel_args.") for key in OmegaConf.missing_keys(config)}
        missing.discard("accelerate_args.num_processes")
        if missing:
            key = f"lamorel_args.{min(missing)}"
            unless = ", or n_llm_processes=0 where none is used" if key == f"{LLM_KEY}.model_path" else ""
            raise LamorelConfigError(f"{key} is required: give it{unless}")
        return OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise LamorelConfigError(f"lamorel_args: {' '.join(str(error).split())}") from error


def _build(cls: type, given: Any, path: str) -> Any:
    """An instance of dataclass `cls` from the mapping `given`, whose place in the tree is `path`."""
    if not isinstance(given, Mapping):
        raise LamorelConfigError(f"{path}: expected a mapping of keys, got {given!r}")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    given = dict(given)
    if cls is AccelerateArgs and "flags" not in given:
        given["flags"] = {key: given.pop(key) for key in list(given) if key not in fields}
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in given.items():
        if key not in fields:
            raise LamorelConfigError(_unknown_key(path, str(key), list(fields)))
        values[key] = _check(value, hints[key], f"{path}.{key}")
        _check_range(values[key], fields[key].metadata, f"{path}.{key}")
    return cls(**values)


def _unknown_key(path: str, key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known keys: {', '.join(known)}"
    if key == "lamorel_args":
        hint = "pass config.lamorel_args, not the whole configuration"
    return f"{path}.{key} is not a key of Lamorel; {hint}"


def _check(value: Any, hint: Any, path: str) -> Any:
    """`value` as type `hint` (bool, int, float, str, dict, tuple[str, ...], a dataclass, or a union of these)."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and types.NoneType in options:
        return None
    for option in options:
        if dataclasses.is_dataclass(option):
            assert isinstance(option, type)
            return _build(option, value, path)
        if option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if typing.get_origin(option) is tuple:
            if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
                return tuple(value)
        elif typing.get_origin(option) is dict:
            if isinstance(value, Mapping):
                return dict(value)
        elif isinstance(value, option) and (option is bool or not isinstance(value, bool)):
            return value
    names = " or ".join(_type_name(option) for option in options)
    raise LamorelConfigError(f"{path}: expected {names}, got {value!r} ({type(value).__name__})")


def _type_name(option: Any) -> str:
    if option is types.NoneType:
        return "null"
    return "list of str" if typing.get_origin(option) is tuple else option.__name__


def _check_range(value: Any, metadata: Mapping[str, Any], path: str) -> None:
    if "choices" in metadata and value not in metadata["choices"]:
        raise LamorelConfigError(f"{path}: expected one of {', '.join(metadata['choices'])}, got {value!r}")
    if "minimum" in metadata and value is not None and not value >= metadata["minimum"]:  # nor is NaN
        raise LamorelConfigError(f"{path}: expected a number of at least {metadata['minimum']}, got {value!r}")
    if "maximum" in metadata and value is not None and not value <= metadata["maximum"]:
        raise LamorelConfigError(f"{path}: expected a number of at most {metadata['maximum']}, got {value!r}")


def gguf_file(model_path: str) -> Path | None:
    """The GGUF file that a `model_path` is, or that a folder without a plain model holds; None for other models.

    Raises:
        LamorelConfigError: the folder holds several, or the file is a part of a model.
    """
    key = f"{LLM_KEY}.model_path"
    path = Path(os.path.expanduser(model_path))  # leaves the ~ of an unknown user, where Path.expanduser fails
    found = [path] if path.is_file() and path.suffix.lower() == ".gguf" else []
    if path.is_dir() and not any(next(path.glob(pattern), None) for pattern in _PLAIN_MODEL):
        found = sorted(path.glob("*.gguf"))
    if not found:
        return None
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise LamorelConfigError(f"{key}: {path} holds several GGUF files ({names}): give the path of one")
    if re.search(r"-\d{5}-of-(?!00001)\d{5}\.gguf$", found[0].name):
        raise LamorelConfigError(
            f"{key}: {found[0]} is a part of a model, and transformers reads whole GGUF files: join the parts with "
            f"llama.cpp's llama-gguf-split --merge"
        )
    return found[0]


def _check_model_path(model_path: str | None) -> None:
    """`model_path` is a model folder or GGUF file that exists, or may be the id of a model on the hub."""
    key = f"{LLM_KEY}.model_path"
    if model_path is None:
        raise LamorelConfigError(f"{key} is required: a folder with a Hugging Face model, a GGUF file, or a hub id")
    if gguf_file(model_path) is not None:
        return
    folder = Path(os.path.expanduser(model_path))
    if folder.is_dir():
        if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
            raise LamorelConfigError(f"{key}: {folder} holds no config.json, so it is not a Hugging Face model folder")
        return
    if folder.is_file():
        raise LamorelConfigError(f"{key}: {folder} is a file, but no GGUF file: give the folder of a model")
    looks_like_hub_id = re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", model_path) is not None
    parent_exists = len(folder.parts) > 1 and folder.parent.is_dir()
    is_gguf = folder.suffix == ".gguf"
    if not looks_like_hub_id or parent_exists or is_gguf:
        raise LamorelConfigError(
            f"{key}: {'GGUF file' if is_gguf else 'model folder'} {folder} does not exist (working folder: "
            f"{Path.cwd()}); give the folder of a model, or a hub id such as google/flan-t5-small"
        )
