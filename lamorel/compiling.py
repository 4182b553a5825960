"""torch.compile for the repeated layers of a model (`llm_args.compile`)."""

from typing import Any

import torch

from lamorel.config import LLM_KEY, LamorelConfigError

# Layers of one class share their code. Every layer has its number, and forwards come with and without gradient,
# cache and mask: the default of 8 variants would be used up, and the rest would silently run uncompiled.
_VARIANTS = 256


def check_compiler(device: torch.device) -> None:
    """Compiles one addition, past all caches, and raises LamorelConfigError where that fails."""
    try:
        with torch._inductor.config.patch(force_disable_caches=True):
            torch.compile(_one_more, dynamic=True)(torch.zeros(2, device=device))
    except Exception as error:  # torch's own types for this are private, and differ between versions
        needed = "Triton and a C compiler" if device.type == "cuda" else "a C++ compiler (g++)"
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:240]
        raise LamorelConfigError(
            f"{LLM_KEY}.compile: torch.compile does not work here: install {needed}, or set it to false ({reason})"
        ) from error


def compile_layers(model: Any) -> None:
    """Compiles each repeated layer in place; parameter names, and so checkpoints, stay what they are.

    A layer is compiled when it is first called, for sequences of any length. What does not call layers as modules runs
    as before.
    """
    torch._dynamo.config.recompile_limit = max(_VARIANTS, torch._dynamo.config.recompile_limit)
    torch._dynamo.config.accumulated_recompile_limit = max(
        4 * _VARIANTS, torch._dynamo.config.accumulated_recompile_limit
    )
    for layer in repeated_layers(model):
        layer.compile(dynamic=True)


def repeated_layers(model: Any) -> list[torch.nn.Module]:
    """The outermost layers that stand in a list: encoder and decoder layers, not the modules within them."""
    found: list[torch.nn.Module] = []
    for child in model.children():
        found += list(child) if isinstance(child, torch.nn.ModuleList) else repeated_layers(child)
    return found


def _one_more(x: torch.Tensor) -> torch.Tensor:
    return x + 1
