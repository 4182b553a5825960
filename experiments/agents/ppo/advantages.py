"""Generalised advantage estimation (Schulman et al. 2016). T steps per environment, N environments."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Advantages(NamedTuple):
    """Both (T, N)."""

    advantages: Tensor  # not normalised
    returns: Tensor  # value targets: advantages + values


def compute_gae(
    rewards: Tensor,
    values: Tensor,
    ends: Tensor,
    last_values: Tensor,
    *,
    gamma: float,
    lam: float,
    end_values: Tensor | None = None,
    durations: Tensor | None = None,
) -> Advantages:
    """Generalised advantage estimates and value targets.

    Recursion, from t = T-1 down to 0 (Schulman et al. 2016, eq. 16), with d_t = gamma ** duration_t:
        next_t  = end_value_t where the episode ended at t, else V_{t+1}
        delta_t = r_t + d_t * next_t - V_t
        A_t     = delta_t + d_t * lam * (1 - end_t) * A_{t+1}

    Args:
        rewards: (T, N) float, reward received after acting at t (already scaled by `reward_scale`).
        values: (T, N) float, V(s_t) from the policy that collected the data.
        ends: (T, N) bool, True when the episode ended on the step taken at t.
        last_values: (N,) float, V(s_T); not used where ends[T-1] is True.
        gamma: discount per primitive step, in [0, 1].
        lam: GAE's lambda, in [0, 1].
        end_values: (T, N) float, value of the state in which an episode ended, used where `ends` is True: 0 for a
            terminal state, V of the last state to bootstrap a time-out. None: 0 everywhere, so a time-out counts as
            terminal, as published.
        durations: (T, N) primitive steps that the action at t took; None: 1 everywhere.

    Differs from the released code: no known difference.
    """
    ended = ends.to(rewards.dtype)
    discounts = torch.full_like(rewards, gamma) if durations is None else gamma ** durations.to(rewards.dtype)
    following = torch.cat([values[1:], last_values[None]])
    if end_values is None:
        end_values = torch.zeros_like(values)
    next_values = torch.where(ends, end_values, following)
    deltas = rewards + discounts * next_values - values
    advantages = torch.zeros_like(rewards)
    running = torch.zeros_like(last_values)
    for t in reversed(range(len(rewards))):
        running = deltas[t] + discounts[t] * lam * (1 - ended[t]) * running
        advantages[t] = running
    return Advantages(advantages, advantages + values)
