"""Confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Z_95 = 1.959964  # quantile 0.975 of the normal distribution
Z_PUBLISHED = 2.576  # quantile 0.995, as the paper rounds it


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


def bootstrap_over_seeds(
    seeds: Sequence[np.ndarray], *, level: float = 0.99, draws: int = 10_000, seed: int = 0
) -> Estimate:
    """The mean of the seeds' means, with a bootstrap interval over the episodes within the seeds.

    PAPER-DIFF(16): the paper gives the other one, `published_interval`, alone.

    Every draw resamples the episodes inside each seed and takes the mean of the seeds' means: every seed has the same
    weight, however many episodes it has. The interval is about these seeds; how much another seed would differ is in
    `published_interval`. Values that are all equal give width 0, also a rate of 0 or 1 (`wilson` does not).

    Args:
        seeds: one (n_s,) array of episode values per seed.
        seed: of the resampling, so that a table is the same every time.
    """
    generator = np.random.default_rng(seed)
    total = np.zeros(draws)
    for episodes in seeds:
        # how often each distinct value is drawn when n episodes are drawn from n: the same as drawing them one by one
        values, counts = np.unique(episodes, return_counts=True)
        total += generator.multinomial(len(episodes), counts / len(episodes), size=draws) @ values / len(episodes)
    low, high = np.quantile(total / len(seeds), [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(np.mean([episodes.mean() for episodes in seeds])), float(low), float(high))


def published_interval(seed_means: Sequence[float]) -> float | None:
    """Half the width of the paper's 99% interval, 2.576 * std / sqrt(seeds); None where there is one seed only.

    std is the sample standard deviation (n - 1), which the paper does not say.
    """
    if len(seed_means) < 2:
        return None
    return Z_PUBLISHED * float(np.std(seed_means, ddof=1)) / math.sqrt(len(seed_means))


def change_percent(value: float, reference: float) -> float | None:
    """Change against a reference in percent; None where the reference is 0."""
    return None if reference == 0 else 100 * (value - reference) / reference
