"""The LLM side of a checkpoint: model, tokenizer, heads, optimizer.

    folder/  config.json, model.safetensors, tokenizer files    Hugging Face format, loads with from_pretrained
             adapter_config.json, adapter_model.safetensors     in place of the model, where there is a peft adapter
             heads.safetensors                                  parameters and buffers of the module functions
             optimizer.pt                                       state of the updater's optimizer, or of the updater

With `merge_adapters` the model is written whole, adapters added to its weights, and without optimizer, whose state is
that of the adapters: a folder to use, not to resume from.

Loading reads everything and checks names and shapes first, and then copies into the tensors that are there: optimizers
keep their references, and memory keeps torch's alignment, so that a resumed run repeats the original one bit for bit.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from lamorel.adapters import has_adapter, merged
from lamorel.config import LLM_KEY
from lamorel.llm import LLMModule
from lamorel.loading import quiet
from lamorel.updater import BaseUpdater, restore_updater, updater_state

HEADS_FILE = "heads.safetensors"
OPTIMIZER_FILE = "optimizer.pt"


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, cannot be read, or does not fit the live model; nothing was changed."""


def save(folder: Path, llm: LLMModule, updater: BaseUpdater | None, *, merge_adapters: bool = False) -> None:
    """Writes the files; synchronising them to disk is the caller's part.

    Args:
        merge_adapters: write a whole model with its adapters merged in; the live model is only read.

    Raises:
        CheckpointError: the model cannot be written so; the message says what to do.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model, state = llm._LLM_model, None
    if merge_adapters:
        try:
            model = merged(model)
        except ValueError as error:
            raise CheckpointError(str(error)) from error
    else:
        with quiet():
            _check_adapter_is_all(llm)
        state = updater_state(updater)
    _check_other_kind(folder, adapter=has_adapter(model))
    with quiet():
        model.save_pretrained(folder)
        llm.encoder.tokenizer.save_pretrained(folder)
    heads = {name: tensor.detach().cpu().clone() for name, tensor in llm._module_functions.state_dict().items()}
    save_file(heads, folder / HEADS_FILE)
    if state is not None:
        torch.save(state, folder / OPTIMIZER_FILE)
    else:
        (folder / OPTIMIZER_FILE).unlink(missing_ok=True)


def load(folder: Path, llm: LLMModule, updater: BaseUpdater | None) -> None:
    """Restores the files into the live model, heads and updater.

    Raises:
        CheckpointError: the folder is not a checkpoint, a file of it is damaged, or a name or shape differs; the live
            model is untouched.
    """
    if not (folder / HEADS_FILE).is_file():
        raise CheckpointError(f"{folder} is not a checkpoint of Lamorel: it has no {HEADS_FILE}")
    with _reading(folder, HEADS_FILE):
        live_heads, saved_heads = llm._module_functions.state_dict(), load_file(folder / HEADS_FILE)
    _check_fit(folder, live_heads, saved_heads)
    with _reading(folder, "the model"), quiet():
        live_model, saved_model = _model_tensors(folder, llm._LLM_model)
    _check_fit(folder, live_model, saved_model)
    with _reading(folder, OPTIMIZER_FILE):
        state = _saved_updater_state(folder, updater)
    if state is not None:
        assert updater is not None
        restore_updater(updater, state)  # first: user code may refuse its state
    with torch.no_grad():
        for live, saved in ((live_model, saved_model), (live_heads, saved_heads)):
            for name, tensor in live.items():
                tensor.copy_(saved[name])


@contextmanager
def _reading(folder: Path, part: str) -> Iterator[None]:
    """Whatever a damaged file ends in, inside the libraries that read it, is said in one line."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # safetensors, zip, pickle, JSON, shapes: there is no common type
        reason = (str(error).splitlines() or [""])[0][:240] or type(error).__name__
        raise CheckpointError(
            f"{folder}: {part} cannot be read, it is damaged or incomplete: load another checkpoint ({reason})"
        ) from error


def _check_other_kind(folder: Path, *, adapter: bool) -> None:
    """A whole model and an adapter in one folder would be loaded one on top of the other."""
    if adapter and (folder / "config.json").exists():
        raise CheckpointError(f"{folder} holds a whole model: save the adapter into another folder")
    if not adapter and (folder / "adapter_config.json").exists():
        raise CheckpointError(f"{folder} holds an adapter: save the whole model into another folder")


def _check_adapter_is_all(llm: LLMModule) -> None:
    """With an adapter only the adapter is written, so nothing else of the model may be trained."""
    if not has_adapter(llm._LLM_model):
        return
    from peft import get_peft_model_state_dict

    kept = {tensor.data_ptr() for tensor in get_peft_model_state_dict(llm._LLM_model).values()}
    for name, parameter in llm._LLM_model.named_parameters():
        if parameter.requires_grad and parameter.data_ptr() not in kept:
            raise CheckpointError(
                f"parameter {name} is trained but is no part of the adapter, so it would not be saved: freeze it, or "
                f"name its module in the adapter's modules_to_save"
            )


def _model_tensors(folder: Path, model: Any) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Live and saved tensors of the model, or of its adapter, by the same names."""
    if has_adapter(model):
        from peft import get_peft_model_state_dict
        from peft.utils import load_peft_weights

        if not (folder / "adapter_config.json").is_file():
            raise CheckpointError(f"{folder} holds no adapter, but the live model has one ({LLM_KEY}.lora)")
        return get_peft_model_state_dict(model), load_peft_weights(str(folder), device="cpu")
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} holds no whole model (config.json), but the live model has no adapter")
    if getattr(model, "is_quantized", False):
        raise CheckpointError(
            f"a quantised model is loaded from {LLM_KEY}.model_path; only its adapter can be restored"
        )
    # Through from_pretrained, which knows about shards, tied weights and renamed tensors.
    saved, report = type(model).from_pretrained(folder, dtype=model.dtype, output_loading_info=True)
    # What is missing would be made up, not read.
    for name in sorted(report["missing_keys"]):
        raise CheckpointError(f"{folder} has no tensor {name}, which its config.json asks for")
    return model.state_dict(), saved.state_dict()


def _check_fit(folder: Path, live: Mapping[str, torch.Tensor], saved: Mapping[str, torch.Tensor]) -> None:
    for name in {**live, **saved}:
        if name not in saved:
            raise CheckpointError(f"{folder} has no tensor {name}, which the live model has")
        if name not in live:
            raise CheckpointError(f"{folder} has a tensor {name}, which the live model does not have")
        if saved[name].shape != live[name].shape:
            raise CheckpointError(
                f"{folder}: tensor {name} has shape {tuple(saved[name].shape)}, but {tuple(live[name].shape)} in the "
                f"live model: it was written by a model of another shape"
            )


def _saved_updater_state(folder: Path, updater: BaseUpdater | None) -> dict[str, Any] | None:
    """The state to restore, checked against a live optimizer; None where nothing is to be restored."""
    if updater is None:
        return None
    optimizer = getattr(updater, "optimizer", None)
    path = folder / OPTIMIZER_FILE
    if not path.is_file():
        if optimizer is not None or hasattr(updater, "state_dict"):
            raise CheckpointError(
                f"{folder} has no {OPTIMIZER_FILE}, but {type(updater).__name__} has state to restore"
            )
        return None
    state = torch.load(path, map_location="cpu", weights_only=True)
    named = {"optimizer": state}
    if hasattr(updater, "state_dict"):
        named = state if isinstance(state, dict) else {}
    for name, value in named.items():
        live = getattr(updater, name, None) if isinstance(name, str) else None
        if isinstance(live, torch.optim.Optimizer):
            _check_optimizer(path, name, live, value)
    return state


def _check_optimizer(path: Path, name: str, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Raises CheckpointError where the groups of the saved optimizer, or the shapes of its moments, differ.

    Args:
        name: of the updater's attribute.
    """
    live = [group["params"] for group in optimizer.param_groups]
    saved = [group["params"] for group in state["param_groups"]]
    sizes = [len(group) for group in saved], [len(group) for group in live]
    if sizes[0] != sizes[1]:
        raise CheckpointError(f"{path}: parameters per group are {sizes[0]}, but {sizes[1]} in the live {name}")
    for saved_group, live_group in zip(saved, live, strict=True):
        for index, parameter in zip(saved_group, live_group, strict=True):
            for moment, value in state["state"].get(index, {}).items():
                if isinstance(value, torch.Tensor) and value.dim() > 0 and value.shape != parameter.shape:
                    raise CheckpointError(
                        f"{path}: {moment} of parameter {index} has shape {tuple(value.shape)}, but the parameter has "
                        f"{tuple(parameter.shape)} in the live {name}"
                    )
