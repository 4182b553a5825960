"""Where a model runs: the device that the configuration asks for, and the way there."""

from typing import Any

import torch

from lamorel.config import LLM_KEY, LamorelConfigError, LLMArgs
from lamorel.quantization import check_quantization


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


def place(model: Any, args: LLMArgs, device: torch.device) -> Any:
    """The model on its device, or spread over `model_parallelism_size` GPUs."""
    spread = args.parallelism.model_parallelism_size
    if spread > 1:
        from accelerate import dispatch_model, infer_auto_device_map
        from accelerate.utils import get_balanced_memory

        whole = list(getattr(model, "_no_split_modules", None) or [])
        memory = get_balanced_memory(model, max_memory=free_memory(spread), no_split_module_classes=whole)
        return dispatch_model(model, infer_auto_device_map(model, max_memory=memory, no_split_module_classes=whole))
    model = model.to(device)
    # Weights read from a safetensors file lie at any address of the mapped file, and kernels may round otherwise
    # there than on memory that torch has aligned: a resumed run would differ in the last bit.
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
    return model


def free_memory(gpus: int) -> dict[int, int]:
    """Free bytes of the first GPUs; the others are not to be used."""
    return {i: torch.cuda.mem_get_info(i)[0] for i in range(gpus)}
