"""Vector PPO (the baseline of arXiv 2401.14151): its network, and how it decides in acting, updating and tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from experiments.agents.ppo.network_file import load_network, save_network

UNITS = 64  # of each of two hidden layers


class VectorView(NamedTuple):
    """All that a decision depends on."""

    vector: np.ndarray  # (D,) numbers, as the environment gives them
    action_ids: tuple[int, ...]  # that are offered


class VectorNetwork(nn.Module):
    """Two MLPs with tanh that share nothing: the actor, one logit per action id, and the critic.

    Weights are orthogonal, of gain sqrt(2) in hidden layers, 0.01 for the logits and 1 for the value, biases 0, as in
    CleanRL's PPO, whose skeleton TWOSOME's code has.

    Args:
        size: D, numbers of an observation.
        actions: A, ids of the environment.
    """

    def __init__(self, size: int, actions: int) -> None:
        super().__init__()
        self.actor = _mlp(size, actions, gain=0.01)
        self.critic = _mlp(size, 1, gain=1.0)

    def forward(self, vectors: Tensor, offered: Tensor) -> tuple[Tensor, Tensor]:
        """(B, A) log-probabilities, -inf for what is not offered, and (B,) values.

        Args:
            vectors: (B, D) float.
            offered: (B, A) bool.
        """
        logits = self.actor(vectors).masked_fill(~offered, float("-inf"))
        return torch.log_softmax(logits, dim=-1), self.critic(vectors)[:, 0]


class VectorPolicy:
    """The network with its device; what it is given and returns lies on the CPU but for the outputs of `evaluate`."""

    def __init__(self, size: int, actions: int, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.actions = actions
        self.network = VectorNetwork(size, actions).to(self.device)

    def evaluate(self, views: Sequence[VectorView]) -> tuple[Tensor, Tensor]:
        """(B, A) log-probabilities and (B,) values of B views."""
        vectors = torch.from_numpy(np.stack([view.vector for view in views]).astype(np.float32))
        offered = np.zeros((len(views), self.actions), dtype=bool)
        for row, view in zip(offered, views, strict=True):
            row[list(view.action_ids)] = True
        return self.network(vectors.to(self.device), torch.from_numpy(offered).to(self.device))

    def save(self, folder: Path) -> None:
        save_network(self.network, folder)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote. Raises UserError where it is of another network."""
        load_network(self.network, folder, "test it in an environment with as many observed numbers and actions")


def _mlp(inputs: int, outputs: int, *, gain: float) -> nn.Sequential:
    layers = [nn.Linear(inputs, UNITS), nn.Linear(UNITS, UNITS), nn.Linear(UNITS, outputs)]
    for layer, of_layer in zip(layers, (math.sqrt(2), math.sqrt(2), gain), strict=True):
        nn.init.orthogonal_(layer.weight, of_layer)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])
