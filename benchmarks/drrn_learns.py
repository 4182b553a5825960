"""DRRN learns: one small level from random weights on a CPU, beside the random policy on the same episodes.

    python benchmarks/drrn_learns.py [--seed 1] [--frames 30000] [--output storage/benchmarks/drrn_learns]

The network and its loss are the published ones of configs/base.yaml; the published rates are for millions of frames.
Here the learning rate is 1e-3 in place of 1e-4, a gradient step follows 16 frames in place of 128, the prompt holds one
observation, and training episodes end after 16 steps; tests have the level's own limit. Prints the table, and saves it
(table.md) and the learning curve (learning_curve.png) below --output. A run that was interrupted goes on. Exit status 1
when DRRN's 95% interval is not above that of the random policy, or training took more than 20 minutes.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd
import report
from hydra import compose, initialize_config_dir

from experiments.configuration import Config, parse_config
from experiments.experiment_paths import ExperimentPaths
from experiments.hydra_script import CONFIG_DIR, set_up_logging
from experiments.make_sentencepiece import make_sentencepiece
from experiments.post_training_tests import run_tests
from experiments.results.intervals import Estimate, wilson
from experiments.test_results import main as make_report
from experiments.train_language_agent import train

LEVEL = "BabyAI-GoToRedBallNoDists-v0"
MOST_MINUTES = 20
QUICK = {  # what is not published
    "number_envs": 8,
    "nbr_obs": 1,
    "frames_per_proc": 64,
    "checkpoint_every": 10,
    "drrn.lr": 1e-3,
    "drrn.update_every": 2,
}
TRAINING = ["rl_script_args.max_episode_steps=16"]


def main() -> int:
    args = _arguments()
    set_up_logging()
    make_sentencepiece(_config(args, "drrn"))
    train(_config(args, "drrn", *TRAINING))
    drrn, random = _config(args, "drrn"), _config(args, "random", "rl_script_args.random_agent=true")
    found = {}
    for config in (random, drrn):
        run_tests(config)
        found[config.agent] = _success(config)
    paths = ExperimentPaths.of(drrn)
    log = pd.read_csv(paths.logs / "log.csv")
    minutes = log.duration.iloc[-1] / 60
    text = _text(found, log, minutes, args)
    print(text)
    (args.output / "table.md").write_text(text + "\n", encoding="utf-8")
    options = ["--tables", "--figures", "learning_curve", "--output", str(args.output)]
    make_report(["--logs", str(paths.logs.parent), "--runs", paths.id, *options])
    return 0 if found["drrn"].low > found["random"].high and minutes <= MOST_MINUTES else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--frames", type=int, default=30_000, help="of training")
    parser.add_argument("--episodes", type=int, default=500, help="of the test")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--output", type=Path, default=Path("storage/benchmarks/drrn_learns"))
    parser.add_argument("overrides", nargs="*", help="further keys of configs/base.yaml, as key=value")
    return parser.parse_args()


def _config(args: argparse.Namespace, name: str, *more: str) -> Config:
    """What the scripts would read."""
    rl = {
        "seed": args.seed,
        "torch_threads": args.threads,
        "saving_path_logs": args.output / "logs",
        "saving_path_model": args.output / "models",
        "spm_path": args.output / f"sentencepiece_seed_{args.seed}.model",
        "name_experiment": "drrn_learns",
        "name_model": name,
        "name_environment": LEVEL,
        "num_steps": args.frames,
        "number_episodes": args.episodes,
        "tensorboard": "false",
        "template_test": 2,
        **QUICK,
    }
    overrides = [
        "lamorel_args.distributed_setup_args.n_llm_processes=0",
        *(f"rl_script_args.{key}={value}" for key, value in rl.items()),
        *args.overrides,
        *more,
    ]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return parse_config(compose("base", overrides=overrides))


def _success(config: Config) -> Estimate:
    folder = ExperimentPaths.of(config).test_folder(LEVEL) / "episodes"
    episodes = pd.read_csv(folder / "no_modification_test.csv")
    return wilson(int(episodes.success.sum()), len(episodes))


def _text(found: dict[str, Estimate], log: pd.DataFrame, minutes: float, args: argparse.Namespace) -> str:
    frames = int(log.frames.iloc[-1])
    training = f"{log.success_rate[:10].mean():.3f} → {log.success_rate[-10:].mean():.3f}"
    rows = [
        ["random: success", str(found["random"])],
        [f"DRRN: success after {frames:,} frames (interval above random's)", str(found["drrn"])],
        ["DRRN: success of training episodes (16 steps), first → last 10 updates", training],
        [f"training, minutes (≤ {MOST_MINUTES})", f"{minutes:.1f}"],
        ["training, frames/s", f"{frames / minutes / 60:.0f}"],
    ]
    note = (
        f"{report.machine('cpu', args.threads)}. {args.episodes} test episodes, the same for both, 95% Wilson "
        f"intervals; seed {args.seed}{'; ' + ' '.join(args.overrides) if args.overrides else ''}."
    )
    return report.table([LEVEL, ""], rows) + f"\n\n{note}"


if __name__ == "__main__":
    sys.exit(main())
