"""Counting episodes and sampling actions: what training and tests share. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from experiments.nonfinite import check_rewards


class Episode(NamedTuple):
    """A finished episode."""

    episode_return: float  # sum of raw environment rewards
    frames: int  # decisions taken
    success: bool  # it terminated and its last reward was positive


@dataclass
class EpisodeCounter:
    """Keeps the running sums of every environment's present episode; they outlive an update."""

    returns: list[float]
    frames: list[int]

    @classmethod
    def empty(cls, count: int) -> EpisodeCounter:
        return cls([0.0] * count, [0] * count)

    def step(self, rewards: np.ndarray, terminated: np.ndarray, truncated: np.ndarray) -> dict[int, Episode]:
        """Add one step of all environments; returns the episodes that it ended, by environment.

        Raises:
            NonFiniteError: a reward is no finite number.
        """
        check_rewards(rewards, self.frames)
        finished = {}
        for i, reward in enumerate(rewards):
            self.returns[i] += float(reward)
            self.frames[i] += 1
            if terminated[i] or truncated[i]:
                finished[i] = Episode(self.returns[i], self.frames[i], bool(terminated[i]) and float(reward) > 0)
                self.returns[i], self.frames[i] = 0.0, 0
        return finished


def sample_actions(log_probs: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """Sample one action per row by inverting the cumulative distribution.

    Args:
        log_probs: (N, A), -inf where there is no candidate, or one that is never chosen.
        uniforms: (N,) in [0, 1).

    Returns:
        (N,) indices of actions of positive probability.
    """
    cumulative = np.cumsum(np.exp(log_probs.astype(np.float64)), axis=1)
    chosen = (cumulative <= (uniforms * cumulative[:, -1])[:, None]).sum(axis=1)
    last_possible = log_probs.shape[1] - 1 - np.argmax(np.isfinite(log_probs)[:, ::-1], axis=1)
    return np.minimum(chosen, last_possible)
