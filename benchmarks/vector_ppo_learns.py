"""Vector PPO learns: TWOSOME's baseline on the tomato salad from random weights, on a CPU.

    python benchmarks/vector_ppo_learns.py [--seed 1] [--frames 200000] [--output storage/benchmarks/vector_ppo_learns]

Every setting is that of configs/experiment/vector_ppo_tomato_salad.yaml, the published one; only seed and frames (of
500,000) are chosen here. Prints success over the last 100 training episodes and in a test, beside the random policy on
the same test episodes, and saves the table (table.md) and the learning curve (learning_curve.png) below --output. A run
that was interrupted goes on. Exit status 1 when success over the last 100 episodes is below 0.95, or training took more
than 10 minutes.
"""

import sys

import pandas as pd
from learning import arguments, configure, tested, write_report

from experiments.hydra_script import set_up_logging
from experiments.train_symbolic_ppo import train

LEAST_SUCCESS = 0.95
MOST_MINUTES = 10
EPISODES = 100
OVERLAY = "vector_ppo_tomato_salad"


def last_success(log: pd.DataFrame) -> tuple[float, int]:
    """Success over the last training episodes, and their number: of as many updates as have `EPISODES` of them."""
    counts = log.episodes.diff().fillna(log.episodes)
    chosen = counts[::-1].cumsum().shift(fill_value=0) < EPISODES
    counts, rates = counts[chosen], log.success_rate.fillna(0)[chosen]
    return float((counts * rates).sum() / counts.sum()), int(counts.sum())


def main() -> int:
    args = arguments(__doc__, frames=200_000, output="storage/benchmarks/vector_ppo_learns")
    set_up_logging()
    keys = {"name_experiment": "vector_ppo_learns", "checkpoint_every": 50}
    vector = configure(args, "vector_ppo", keys, overlay=OVERLAY)
    train(vector)
    random = {**keys, "random_agent": "true", "symbolic_ppo": "false"}
    learned = tested(vector, configure(args, "random", random, overlay=OVERLAY))
    success, episodes = last_success(learned.log)
    rows = [
        [f"Vector PPO: success of the last {episodes} training episodes (≥ {LEAST_SUCCESS})", f"{success:.3f}"],
        [f"Vector PPO: success after {learned.frames:,} decisions", str(learned.agent)],
    ]
    write_report(args, vector, learned, rows, most_minutes=MOST_MINUTES)
    enough = episodes >= EPISODES and success >= LEAST_SUCCESS
    return 0 if enough and learned.minutes <= MOST_MINUTES else 1


if __name__ == "__main__":
    sys.exit(main())
