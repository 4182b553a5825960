"""Counting episodes and sampling actions: what training and tests share. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from experiments.nonfinite import check_rewards


class Episode(NamedTuple):
    """A finished episode."""

    episode_return: float  # sum of raw environment rewards
    frames: int  # decisions taken
    success: bool  # it terminated and its last reward was positive
    discounted_return: float  # sum of discount ** (primitive steps before the decision) * raw reward
    primitive_steps: int  # sum of the decisions' durations; frames, where every action takes one step


@dataclass
class EpisodeCounter:
    """Keeps the running sums of every environment's present episode; they outlive an update.

    Attributes:
        discount: of `discounted_returns`, per primitive step.
    """

    discount: float
    returns: list[float]
    frames: list[int]
    discounted_returns: list[float]
    primitive_steps: list[int]

    @classmethod
    def empty(cls, count: int, discount: float) -> EpisodeCounter:
        return cls(discount, [0.0] * count, [0] * count, [0.0] * count, [0] * count)

    def step(
        self, rewards: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, durations: np.ndarray
    ) -> dict[int, Episode]:
        """Add one step of all environments; returns the episodes that it ended, by environment.

        Args:
            durations: primitive steps that each action took (`action_durations`).

        Raises:
            NonFiniteError: a reward is no finite number.
        """
        check_rewards(rewards, self.frames)
        finished = {}
        for i, reward in enumerate(map(float, rewards)):
            self.returns[i] += reward
            self.frames[i] += 1
            # the action began after so many primitive steps; within it the environment discounts
            self.discounted_returns[i] += self.discount ** self.primitive_steps[i] * reward
            self.primitive_steps[i] += int(durations[i])
            if terminated[i] or truncated[i]:
                finished[i] = Episode(
                    self.returns[i],
                    self.frames[i],
                    bool(terminated[i]) and reward > 0,
                    self.discounted_returns[i],
                    self.primitive_steps[i],
                )
                self.returns[i], self.frames[i] = 0.0, 0
                self.discounted_returns[i], self.primitive_steps[i] = 0.0, 0
        return finished

    def get_state(self) -> dict[str, list]:
        """JSON-able, but for `discount`."""
        return {name: list(getattr(self, name)) for name in SUMS}

    def set_state(self, state: dict[str, list]) -> None:
        for name in SUMS:
            setattr(self, name, list(state[name]))


SUMS = ("returns", "frames", "discounted_returns", "primitive_steps")


def action_durations(infos: dict[str, Any], ended: np.ndarray) -> np.ndarray:
    """(N,) int: `info["duration"]` of the step just taken, 1 where an environment does not tell.

    At an episode's end the step's own info is `final_info`; the info beside it belongs to the new episode.
    """
    durations = np.ones(len(ended), dtype=np.int64)
    final = infos.get("final_info", {})
    for i, has_ended in enumerate(ended):
        source = final if has_ended else infos
        if "duration" in source and source.get("_duration", np.ones(len(ended), dtype=bool))[i]:
            durations[i] = int(source["duration"][i])
    return durations


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
