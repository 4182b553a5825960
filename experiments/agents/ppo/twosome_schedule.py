"""When TWOSOME's actor and critic learn, from which samples and at which rate (arXiv 2401.14151)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from experiments.configuration import RLScriptArgs


@dataclass(frozen=True)
class TwosomeSchedule:
    """Settings of `rl_script_args.twosome`; see configs/base.yaml for their meaning.

    Attributes:
        warmup_updates: at the start, in which the critic alone learns.
        updates: those that follow.
    """

    actor_lr: float
    critic_lr: float
    linear_lr_decay: bool
    warmup_updates: int
    updates: int
    actor_minibatches: int
    critic_minibatches: int
    gradient_accumulation: int
    normalize_advantages: str

    @classmethod
    def of(cls, rl: RLScriptArgs) -> TwosomeSchedule:
        own, frames = rl.twosome, rl.number_envs * rl.frames_per_proc
        return cls(
            actor_lr=own.actor_lr,
            critic_lr=own.critic_lr,
            linear_lr_decay=own.linear_lr_decay,
            warmup_updates=math.ceil(own.critic_warmup_steps / frames),
            updates=math.ceil(rl.num_steps / frames),
            actor_minibatches=own.actor_minibatches,
            critic_minibatches=own.critic_minibatches,
            gradient_accumulation=own.gradient_accumulation,
            normalize_advantages=own.normalize_advantages,
        )

    def warms_up(self, update: int) -> bool:
        """Whether the critic alone learns in an update, counted from 1."""
        return update <= self.warmup_updates

    def rate(self, update: int) -> float:
        """What both learning rates are multiplied by: from 1, after the warm-up, to 1/`updates` in the last update."""
        if not self.linear_lr_decay or self.warms_up(update):
            return 1.0
        return 1 - (update - self.warmup_updates - 1) / self.updates

    def critic_steps(self, order: np.ndarray) -> list[np.ndarray]:
        """The samples of each gradient step of the critic.

        Args:
            order: (B,) the samples of an update, shuffled. Where B is no multiple, sizes differ by one.
        """
        return np.array_split(order, self.critic_minibatches)

    def actor_steps(self, order: np.ndarray) -> list[list[np.ndarray]]:
        """The minibatches whose gradients each gradient step of the actor accumulates; the last may have fewer."""
        minibatches = np.array_split(order, self.actor_minibatches)
        count = self.gradient_accumulation
        return [minibatches[start : start + count] for start in range(0, len(minibatches), count)]

    def normalized(self, advantages: Tensor, minibatches: list[np.ndarray]) -> Tensor:
        """The advantages of a gradient step of the actor, in the order of its minibatches.

        PAPER-DIFF(17): the released code normalises over each minibatch, four samples; here over all of the update.

        Args:
            advantages: (B,) of all samples of the update.
            minibatches: indices.

        Returns:
            (sum of the minibatches' sizes,)
        """
        if self.normalize_advantages == "minibatch":
            return torch.cat([standardized(advantages[torch.as_tensor(minibatch)]) for minibatch in minibatches])
        everywhere = standardized(advantages) if self.normalize_advantages == "batch" else advantages
        return everywhere[torch.as_tensor(np.concatenate(minibatches))]


def standardized(values: Tensor) -> Tensor:
    """(values - mean) / (unbiased standard deviation + 1e-8), as CleanRL normalises advantages. (B,), B at least 2."""
    return (values - values.mean()) / (values.std(correction=1) + 1e-8)
