"""Symbolic-PPO learns: one small level from random weights on a CPU, beside the random policy on the same episodes.

    python benchmarks/symbolic_learns.py [--seed 1] [--frames 200000] [--output storage/benchmarks/symbolic_learns]

Every setting is the published one of configs/base.yaml (64 environments x 40 steps, lr 1e-4, ...); only the level and
the number of frames are chosen here. Prints the table, and saves it (table.md) and the learning curve
(learning_curve.png) below --output. A run that was interrupted goes on. Exit status 1 when success is below 0.9, or
training took more than 20 minutes.
"""

import sys

from learning import MOST_MINUTES, arguments, configure, tested, write_report

from experiments.hydra_script import set_up_logging
from experiments.train_symbolic_ppo import train

LEAST_SUCCESS = 0.9


def main() -> int:
    args = arguments(__doc__, frames=200_000, output="storage/benchmarks/symbolic_learns")
    set_up_logging()
    keys = {"name_experiment": "symbolic_learns"}
    symbolic = configure(args, "symbolic_ppo", {**keys, "symbolic_ppo": "true"})
    train(symbolic)
    learned = tested(symbolic, configure(args, "random", {**keys, "random_agent": "true"}))
    last = learned.log.success_rate[-10:].mean()
    rows = [
        [f"Symbolic-PPO: success after {learned.frames:,} frames (≥ {LEAST_SUCCESS})", str(learned.agent)],
        ["Symbolic-PPO: success of training episodes, last 10 updates", f"{last:.3f}"],
    ]
    write_report(args, symbolic, learned, rows)
    return 0 if learned.agent.value >= LEAST_SUCCESS and learned.minutes <= MOST_MINUTES else 1


if __name__ == "__main__":
    sys.exit(main())
