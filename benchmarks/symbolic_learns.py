"""Symbolic-PPO learns: one small level from random weights on a CPU, beside the random policy on the same episodes.

    python benchmarks/symbolic_learns.py [--seed 1] [--frames 200000] [--output storage/benchmarks/symbolic_learns]

Every setting is the published one of configs/base.yaml (64 environments x 40 steps, lr 1e-4, ...); only the level and
the number of frames are chosen here. Prints the table, and saves it (table.md) and the learning curve
(learning_curve.png) below --output. A run that was interrupted goes on. Exit status 1 when success is below 0.9, or
training took more than 20 minutes.
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
from experiments.post_training_tests import run_tests
from experiments.results.intervals import Estimate, wilson
from experiments.test_results import main as make_report
from experiments.train_symbolic_ppo import train

LEVEL = "BabyAI-GoToRedBallNoDists-v0"
LEAST_SUCCESS, MOST_MINUTES = 0.9, 20


def main() -> int:
    args = _arguments()
    set_up_logging()
    symbolic = _config(args, "symbolic_ppo", "rl_script_args.symbolic_ppo=true")
    train(symbolic)
    found = {}
    for config in (_config(args, "random", "rl_script_args.random_agent=true"), symbolic):
        run_tests(config)
        found[config.agent] = _success(config)
    paths = ExperimentPaths.of(symbolic)
    log = pd.read_csv(paths.logs / "log.csv")
    minutes = log.duration.iloc[-1] / 60
    text = _text(found, log, minutes, args)
    print(text)
    (args.output / "table.md").write_text(text + "\n", encoding="utf-8")
    options = ["--tables", "--figures", "learning_curve", "--output", str(args.output)]
    make_report(["--logs", str(paths.logs.parent), "--runs", paths.id, *options])
    return 0 if found["symbolic"].value >= LEAST_SUCCESS and minutes <= MOST_MINUTES else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--frames", type=int, default=200_000, help="of training")
    parser.add_argument("--episodes", type=int, default=500, help="of the test")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--output", type=Path, default=Path("storage/benchmarks/symbolic_learns"))
    parser.add_argument("overrides", nargs="*", help="further keys of configs/base.yaml, as key=value")
    return parser.parse_args()


def _config(args: argparse.Namespace, name: str, agent: str) -> Config:
    """What the scripts would read."""
    rl = {
        "seed": args.seed,
        "torch_threads": args.threads,
        "saving_path_logs": args.output / "logs",
        "saving_path_model": args.output / "models",
        "name_experiment": "symbolic_learns",
        "name_model": name,
        "name_environment": LEVEL,
        "num_steps": args.frames,
        "number_episodes": args.episodes,
        "tensorboard": "false",
    }
    overrides = [*(f"rl_script_args.{key}={value}" for key, value in rl.items()), agent, *args.overrides]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return parse_config(compose("base", overrides=overrides))


def _success(config: Config) -> Estimate:
    folder = ExperimentPaths.of(config).test_folder(LEVEL) / "episodes"
    episodes = pd.read_csv(folder / "no_modification_test.csv")
    return wilson(int(episodes.success.sum()), len(episodes))


def _text(found: dict[str, Estimate], log: pd.DataFrame, minutes: float, args: argparse.Namespace) -> str:
    frames = int(log.frames.iloc[-1])
    rows = [
        ["random: success", str(found["random"])],
        [f"Symbolic-PPO: success after {frames:,} frames (≥ {LEAST_SUCCESS})", str(found["symbolic"])],
        ["Symbolic-PPO: success of training episodes, last 10 updates", f"{log.success_rate[-10:].mean():.3f}"],
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
