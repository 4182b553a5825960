"""Confidence intervals."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

Z_95 = 1.959964  # quantile 0.975 of the normal distribution


class Estimate(NamedTuple):
    """A value with its interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def wilson(successes: int, trials: int, z: float = Z_95) -> Estimate:
    """Wilson's score interval of a rate (Wilson 1927), right also near 0 and 1.

    Raises:
        ValueError: no trials.
    """
    if trials <= 0:
        raise ValueError("a rate needs at least one trial")
    rate = successes / trials
    centre = rate + z * z / (2 * trials)
    spread = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return Estimate(rate, (centre - spread) / scale, (centre + spread) / scale)


def bootstrap_mean(values: np.ndarray, *, level: float = 0.95, draws: int = 2000, seed: int = 0) -> Estimate:
    """The mean and its percentile bootstrap interval (Efron 1979).

    Args:
        values: (n,) independent values.
        seed: of the resampling, so that a table is the same every time.
    """
    generator = np.random.default_rng(seed)
    means = np.array([generator.choice(values, size=len(values)).mean() for _ in range(draws)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(values.mean()), float(low), float(high))
