"""How many tokens one forward and backward of an update may have on a GPU.

Few make it wait for the launches of its kernels: at 2048, Flan-T5-large computed for a quarter of the time on an H100.
What the graph keeps for the backward pass must fit into memory, beside weights, gradients and the optimizer's moments.
"""

from __future__ import annotations

from typing import Any

import torch

from lamorel.forwards import base_model

LEAST, MOST = 2048, 32768  # tokens

# Bytes kept per token, layer and unit of the model's width, by the bytes of a number; upper ends of what
# `torch.autograd.graph.saved_tensors_hooks` counts for packed forwards of T5, Llama and GPT-2.
_KEPT = {True: {2: 112, 4: 160}, False: {2: 56, 4: 112}}  # by whether it is an encoder-decoder


def tokens_that_fit(model: Any, memory: int) -> int:
    """Tokens whose graph takes half of what the model leaves of `memory` bytes, from `LEAST` to `MOST`.

    The same on every run: what other programs hold of the memory is not looked at. An optimizer is taken to keep two
    numbers for every trained parameter, as Adam does. The other half is for all else, such as the logits.
    """
    config = base_model(model).config
    layers, width = (getattr(config, name, None) for name in ("num_hidden_layers", "hidden_size"))
    if layers is None or width is None:
        return LEAST
    held = sum(p.numel() * p.element_size() * (4 if p.requires_grad else 1) for p in model.parameters())
    number = model.get_input_embeddings().weight.element_size()  # embeddings are never quantised
    per_token = _KEPT[bool(config.is_encoder_decoder)].get(number, 160) * layers * width
    return max(LEAST, min(MOST, (memory - held) // 2 // per_token))


def gpu_memory(model: Any) -> int:
    """Bytes of all GPUs that the model is on."""
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    return sum(torch.cuda.get_device_properties(device).total_memory for device in devices)
