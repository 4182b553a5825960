"""Low-rank adapters by peft: made, loaded to be trained further, and merged into plain weights."""

import copy
import json
import re
import textwrap
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.utils import find_adapter_config_file

from lamorel.config import LLM_KEY, LamorelConfigError, LoraArgs

_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


def has_adapter(model: Any) -> bool:
    """Whether this is a peft model."""
    return hasattr(model, "peft_config")


def base_of_adapter(location: str) -> str | None:
    """The model that an adapter folder (or hub id) was made for; None for a folder without an adapter, or a file."""
    found = None if Path(location).is_file() else find_adapter_config_file(location)
    if found is None:
        return None
    return json.loads(Path(found).read_text(encoding="utf-8"))["base_model_name_or_path"]


def load_adapter(model: Any, location: str) -> Any:
    """The model with the adapter of a folder (or hub id), which is trained further while the model's own weights are
    frozen.

    Raises:
        LamorelConfigError: it is of another model, or of a kind that peft does not know.
        OSError: a folder has no weights.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from peft.utils import load_peft_weights

    if Path(location).is_dir() and not any(Path(location, name).is_file() for name in _WEIGHTS):
        raise FileNotFoundError(f"it has no {_WEIGHTS[0]}")
    saved, name = set(load_peft_weights(location, device="cpu")), type(model).__name__
    try:
        adapted = PeftModel.from_pretrained(model, location, is_trainable=True)
    except (KeyError, RuntimeError, ValueError) as error:  # kind, shapes, names of modules
        reason = textwrap.shorten(str(error), 240)
        raise LamorelConfigError(
            f"{LLM_KEY}.model_path {location}: the adapter does not fit {name}, or its adapter_config.json is not that "
            f"of its weights: give another, or the model that it was made for ({reason})"
        ) from error
    # peft warns of these alone, and goes on with adapters as they were drawn
    live = set(get_peft_model_state_dict(adapted))
    lost = sorted((live - saved) | {name for name in saved - live if "lora_" in name})
    if lost:
        raise LamorelConfigError(
            f"{LLM_KEY}.model_path {location}: the adapter is of another model than {name}: {len(lost)} of its "
            f"tensors, such as {lost[0]}, have no counterpart"
        )
    return adapted


def add_lora(model: Any, lora: LoraArgs, model_type: str) -> Any:
    """The model with new adapters, which alone are trained.

    Raises:
        LamorelConfigError: `target_modules` does not fit the model; the message lists what does.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    targets = list(lora.target_modules) if isinstance(lora.target_modules, tuple) else lora.target_modules
    config = LoraConfig(
        task_type=TaskType.SEQ_2_SEQ_LM if model_type == "seq2seq" else TaskType.CAUSAL_LM,
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
    )
    try:
        return get_peft_model(model, config, autocast_adapter_dtype=lora.fp32)
    except (ValueError, re.error) as error:
        linear = (torch.nn.Linear, transformers.pytorch_utils.Conv1D)
        names = sorted(
            {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, linear)}
        )
        given = f"[{', '.join(targets)}]" if isinstance(targets, list) else targets or "null"
        reason = (str(error).splitlines() or [""])[0][:240]
        raise LamorelConfigError(
            f"{LLM_KEY}.lora.target_modules {given} does not fit {type(model).__name__}: choose among "
            f"{', '.join(names)} ({reason})"
        ) from error


def merged(model: Any) -> Any:
    """A plain Hugging Face model on the CPU, whose weights are the model's with its adapters added.

    The model itself is only read. In bf16 and fp16 the sums are rounded to the model's precision.

    Raises:
        ValueError: there is no adapter, the weights are quantised, or an adapted matrix is used elsewhere as well.
    """
    if not has_adapter(model):
        raise ValueError(f"the model has no adapter to merge: set {LLM_KEY}.lora, or save without merge_adapters")
    if getattr(model, "is_quantized", False):
        raise ValueError(
            "adapters cannot be merged into quantised weights: save without merge_adapters, load that folder as "
            "model_path without quantisation and merge there"
        )
    _check_not_shared(model)
    # A deep copy in which every tensor of the model is already there, on the CPU: no second copy on the GPU.
    on_cpu: dict[int, Any] = {}
    for parameter in model.parameters():
        on_cpu[id(parameter)] = torch.nn.Parameter(parameter.detach().cpu().clone(), parameter.requires_grad)
    for buffer in model.buffers():
        on_cpu[id(buffer)] = buffer.detach().cpu().clone()
    return copy.deepcopy(model, on_cpu).merge_and_unload()


def _check_not_shared(model: Any) -> None:
    """Merging into one of two tied matrices would change the other."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    users: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        users.setdefault(parameter.data_ptr(), []).append(name)
    for name, module in model.named_modules():
        weight = getattr(module.get_base_layer(), "weight", None) if isinstance(module, BaseTunerLayer) else None
        if weight is not None and len(users.get(weight.data_ptr(), [])) > 1:
            others = [user for user in users[weight.data_ptr()] if not user.startswith(f"{name}.")]
            raise ValueError(
                f"the adapter of {name} cannot be merged, because its matrix is also {', '.join(others)}: leave it out "
                f"of {LLM_KEY}.lora.target_modules, or save without merge_adapters"
            )
