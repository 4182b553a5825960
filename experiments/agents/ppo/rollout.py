"""What one update's worth of acting yields. T steps per environment, N environments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from experiments.agents.ppo.advantages import Advantages
from experiments.episodes import Episode


@dataclass
class Rollout:
    """T x N decisions. Lists are indexed [t][i]; tensors are (T, N)."""

    observations: list[list[Any]]  # what the policy needs to decide again (for an LLM: TextState)
    actions: Tensor  # long, index among the state's candidates
    log_probs: Tensor  # of the taken action, nats
    values: Tensor
    rewards: Tensor  # times reward_scale
    ends: Tensor  # bool, the episode ended on this step
    end_values: Tensor | None  # value of the state in which an episode timed out; None: not bootstrapped
    durations: Tensor  # long, primitive steps that the action took
    last_values: Tensor  # (N,) value of the state after the last step
    episodes: list[Episode] = field(default_factory=list)
    features: Tensor | None = None  # (T, N, hidden), see `Decision`

    @property
    def frames(self) -> int:
        return self.actions.numel()

    def samples(self, advantages: Advantages) -> Samples:
        """The decisions as B = T * N samples in time-major order."""
        return Samples(
            [observation for row in self.observations for observation in row],
            self.actions.flatten(),
            self.log_probs.flatten(),
            self.values.flatten(),
            advantages.advantages.flatten(),
            advantages.returns.flatten(),
            None if self.features is None else self.features.flatten(0, 1),
        )


class Samples(NamedTuple):
    """B decisions, ready for minibatches."""

    observations: list[Any]
    actions: Tensor
    old_log_probs: Tensor
    old_values: Tensor
    advantages: Tensor
    returns: Tensor
    features: Tensor | None = None

    def select(self, indices: np.ndarray) -> Samples:
        """The samples at `indices`, in that order."""
        rows = torch.as_tensor(indices)
        tensors = (tensor[rows] for tensor in self[1:-1])
        chosen = Samples([self.observations[i] for i in indices], *tensors)
        return chosen if self.features is None else chosen._replace(features=self.features[rows])
