"""DRRN learns: one small level from random weights on a CPU, beside the random policy on the same episodes.

    python benchmarks/drrn_learns.py [--seed 1] [--frames 30000] [--output storage/benchmarks/drrn_learns]

The network and its loss are the published ones of configs/base.yaml; the published rates are for millions of frames.
Here the learning rate is 1e-3 in place of 1e-4, a gradient step follows 16 frames in place of 128, the prompt holds one
observation, and training episodes end after 16 steps; tests have the level's own limit. Prints the table, and saves it
(table.md) and the learning curve (learning_curve.png) below --output. A run that was interrupted goes on. Exit status 1
when DRRN's 95% interval is not above that of the random policy, or training took more than 20 minutes.
"""

import sys

from learning import MOST_MINUTES, arguments, configure, tested, write_report

from experiments.hydra_script import set_up_logging
from experiments.make_sentencepiece import make_sentencepiece
from experiments.train_language_agent import train

QUICK = {  # what is not published
    "number_envs": 8,
    "nbr_obs": 1,
    "frames_per_proc": 64,
    "checkpoint_every": 10,
    "drrn.lr": 1e-3,
    "drrn.update_every": 2,
}


def main() -> int:
    args = arguments(__doc__, frames=30_000, output="storage/benchmarks/drrn_learns")
    set_up_logging()
    spm_path = args.output / f"sentencepiece_seed_{args.seed}.model"
    keys = {"name_experiment": "drrn_learns", "spm_path": spm_path, "template_test": 2, **QUICK}
    drrn, random = configure(args, "drrn", keys), configure(args, "random", {**keys, "random_agent": "true"})
    make_sentencepiece(drrn)
    train(configure(args, "drrn", {**keys, "max_episode_steps": 16}))
    learned = tested(drrn, random)
    rates = learned.log.success_rate
    rows = [
        [f"DRRN: success after {learned.frames:,} frames (interval above random's)", str(learned.agent)],
        [
            "DRRN: success of training episodes (16 steps), first → last 10 updates",
            f"{rates[:10].mean():.3f} → {rates[-10:].mean():.3f}",
        ],
    ]
    write_report(args, drrn, learned, rows)
    return 0 if learned.agent.low > learned.random.high and learned.minutes <= MOST_MINUTES else 1


if __name__ == "__main__":
    sys.exit(main())
