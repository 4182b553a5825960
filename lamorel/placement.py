"""Where a model runs: the device that the configuration asks for, and the way there."""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import torch

from lamorel.config import LLM_KEY, LamorelConfigError, LLMArgs
from lamorel.quantization import check_quantization

logger = logging.getLogger(__name__)


def check_device(args: LLMArgs) -> torch.device:
    """The device of the model, after checking that this machine can do what `parallelism` and the quantisation ask.

    Raises:
        LamorelConfigError: no such GPU, or a package is missing; the message says what to change.
    """
    wanted = args.parallelism.model_parallelism_size
    check_quantization(args)
    if not args.parallelism.use_gpu:
        if wanted > 1:
            key = f"{LLM_KEY}.parallelism"
            raise LamorelConfigError(f"{key}.model_parallelism_size needs a GPU: set {key}.use_gpu to true")
        return torch.device("cpu")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found == 0:
        raise LamorelConfigError(
            f"{LLM_KEY}.parallelism.use_gpu is true, but torch finds no CUDA GPU here: set it to false, or run where "
            "there is a GPU with a CUDA build of torch (python -c 'import torch; print(torch.cuda.is_available())')"
        )
    if found < wanted:
        raise LamorelConfigError(
            f"{LLM_KEY}.parallelism.model_parallelism_size is {wanted}, but torch finds {found} GPU(s) here"
        )
    return torch.device("cuda", 0)


def choose_dtype(args: LLMArgs, device: torch.device, *, updates: bool) -> LLMArgs:
    """The arguments with `dtype: auto` replaced by bf16 or fp32, which is logged.

    bf16 where the device computes in it natively and no weight of the model itself is trained: a step of 1e-5 would be
    lost to rounding. Adapters are trained in fp32 over it.

    Args:
        updates: the model is trained, fully or by adapters.
    """
    if args.dtype != "auto":
        return args
    native = torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else _cpu_has_bf16()
    weights_are_trained = updates and (args.lora is None or not args.lora.fp32)
    if not native:
        dtype, reason = "fp32", f"the {device.type} has no bf16 units"
    elif weights_are_trained:
        dtype, reason = "fp32", "all weights are trained"
    else:
        dtype, reason = "bf16", f"the {device.type} computes in it, and no weight of the model itself is trained"
    logger.info("%s.dtype auto: %s, as %s", LLM_KEY, dtype, reason)
    return dataclasses.replace(args, dtype=dtype)


def _cpu_has_bf16() -> bool:
    """Whether this processor multiplies bf16 matrices in hardware; False with a torch that cannot tell."""
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def place(model: Any, args: LLMArgs, device: torch.device) -> Any:
    """The model on its device, or spread over `model_parallelism_size` GPUs."""
    spread = args.parallelism.model_parallelism_size
    if spread > 1:
        return spread_over(model, device_map(model, free_memory(spread)))
    model = model.to(device)
    # Weights read from a safetensors file lie at any address of the mapped file, and kernels may round otherwise
    # there than on memory that torch has aligned: a resumed run would differ in the last bit.
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
    return model


def device_map(model: Any, memory: Mapping[int, int]) -> dict[str, Any]:
    """The GPU of every part of the model, balanced, no layer torn apart.

    Args:
        memory: bytes that may be used, by GPU.

    Raises:
        LamorelConfigError: the model does not fit.
    """
    from accelerate import infer_auto_device_map
    from accelerate.utils import get_balanced_memory

    whole = list(getattr(model, "_no_split_modules", None) or [])
    balanced = get_balanced_memory(model, max_memory=dict(memory), no_split_module_classes=whole)
    found = infer_auto_device_map(model, max_memory=balanced, no_split_module_classes=whole)
    if {"cpu", "disk"} & set(found.values()):
        # Weights that visit the GPU for one forward cannot be trained.
        raise LamorelConfigError(
            f"{LLM_KEY}.parallelism.model_parallelism_size is {len(memory)}, but the model does not fit into so many "
            f"GPUs ({', '.join(f'{size / 1e9:.1f} GB' for size in memory.values())} free): set it higher, or "
            f"{LLM_KEY}.dtype to bf16"
        )
    return dict(found)


def spread_over(model: Any, devices: Mapping[str, Any], **options: Any) -> Any:
    """The model with its parts on `devices`. Hooks move inputs from part to part, and outputs to where the model's
    inputs came from; caches of keys and values stay with their layers."""
    from accelerate import dispatch_model

    skip = getattr(model, "_skip_keys_device_placement", None)
    return dispatch_model(model, dict(devices), skip_keys=skip, **options)


def input_device(model: Any) -> torch.device:
    """Where inputs go and outputs come back: the place of the embedding, also of a model over several GPUs."""
    return model.get_input_embeddings().weight.device


def free_memory(gpus: int) -> dict[int, int]:
    """Free bytes of the first GPUs; the others are not to be used."""
    return {i: torch.cuda.mem_get_info(i)[0] for i in range(gpus)}
