"""The weights of a network of one's own, and its optimiser, on disk."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from experiments.errors import UserError

NETWORK, OPTIMIZER = "network.safetensors", "optimizer.pt"


def save_network(network: nn.Module, folder: Path) -> None:
    save_file(network.state_dict(), folder / NETWORK)


def load_network(network: nn.Module, folder: Path, remedy: str) -> None:
    """Read what `save_network` wrote.

    Args:
        remedy: what the user can do where it does not fit.

    Raises:
        UserError: the network is of another shape.
    """
    stored, own = load_file(folder / NETWORK), network.state_dict()
    for name in sorted(stored.keys() | own.keys()):
        shapes = [tuple(tensors[name].shape) if name in tensors else "absent" for tensors in (stored, own)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"{folder / NETWORK} is of another network ({name}: {shapes[0]} there, {shapes[1]} here): {remedy}"
            )
    network.load_state_dict(stored)


def save_optimizer(optimizer: torch.optim.Optimizer, folder: Path) -> None:
    torch.save(optimizer.state_dict(), folder / OPTIMIZER)


def load_optimizer(optimizer: torch.optim.Optimizer, folder: Path, device: torch.device) -> None:
    """Read what `save_optimizer` wrote; `device` is the network's."""
    optimizer.load_state_dict(torch.load(folder / OPTIMIZER, map_location=device, weights_only=True))
