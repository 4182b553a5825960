"""Rotary embeddings whose frequencies depend on the length of the sequence (dynamic NTK, LongRoPE).

Past a number of positions, transformers changes the frequencies of a whole batch by its longest row. Sequences on
different sides of it must not run together.
"""

from typing import Any

import torch

from lamorel.forwards import base_model


def longest_with_fixed_frequencies(model: Any) -> int | None:
    """Number of tokens up to which frequencies do not depend on the length; None for no limit."""
    limits = []
    for module in base_model(model).modules():
        for layer_type, rope_type in _rope_types(module).items():
            if "dynamic" in rope_type:
                limits.append(module.original_max_seq_len)
            elif rope_type == "longrope":
                parameters = module.config.rope_parameters
                parameters = parameters if layer_type is None else parameters[layer_type]
                limits.append(parameters["original_max_position_embeddings"])
    return min(limits, default=None)


def make_stateless(model: Any) -> None:
    """Make each forward choose the frequencies for its own length.

    transformers keeps those of the longest sequence so far, so that scores would depend on earlier calls.
    """
    for module in base_model(model).modules():
        dynamic = any("dynamic" in rope_type for rope_type in _rope_types(module).values())
        if dynamic and _forget_length not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_forget_length)


def _rope_types(module: Any) -> dict[str | None, str]:
    """Type of the rotary embedding by layer type, or under None where all layers share one; empty for others."""
    types = getattr(module, "rope_type", None)
    if isinstance(types, str):
        return {None: types}
    return dict(types) if isinstance(types, dict) else {}


def _forget_length(module: Any, _: Any) -> None:
    for layer_type, rope_type in _rope_types(module).items():
        if "dynamic" in rope_type:
            prefix = "" if layer_type is None else f"{layer_type}_"
            inv_freq: torch.Tensor = getattr(module, f"{prefix}inv_freq")
            original: torch.Tensor = getattr(module, f"{prefix}original_inv_freq")
            module.register_buffer(f"{prefix}inv_freq", original.to(inv_freq.device), persistent=False)
            setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)
