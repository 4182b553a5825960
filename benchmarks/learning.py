"""What the benchmarks of baselines that learn share: options, keys, tests beside the random policy, table, curve."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import report
from hydra import compose, initialize_config_dir

from experiments.configuration import Config, parse_config
from experiments.errors import UserError
from experiments.experiment_paths import ExperimentPaths, test_file_stem
from experiments.hydra_script import CONFIG_DIR
from experiments.post_training_tests import run_tests
from experiments.results.intervals import Estimate, wilson
from experiments.results.runs import log_rows
from experiments.substitutions import NO_MODIFICATION
from experiments.test_results import main as make_report

LEVEL = "BabyAI-GoToRedBallNoDists-v0"
MOST_MINUTES = 20


class Learned(NamedTuple):
    """A trained agent and the random policy on the same test episodes."""

    agent: Estimate  # success
    random: Estimate
    log: pd.DataFrame  # log.csv of the training

    @property
    def frames(self) -> int:
        return int(self.log.frames.iloc[-1])

    @property
    def minutes(self) -> float:
        return self.log.duration.iloc[-1] / 60


def arguments(description: str, *, frames: int, output: str) -> argparse.Namespace:
    """The command line; `frames` and `output` are defaults."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--frames", type=int, default=frames, help="of training")
    parser.add_argument("--episodes", type=int, default=500, help="of the test")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--output", type=Path, default=Path(output))
    parser.add_argument("overrides", nargs="*", help="further keys of configs/base.yaml, as key=value")
    return parser.parse_args()


def configure(args: argparse.Namespace, name: str, keys: Mapping[str, Any], *, overlay: str | None = None) -> Config:
    """What the scripts would read.

    Args:
        name: of the model, in the experiment's id.
        keys: of `rl_script_args`, beside those that follow from the command line.
        overlay: of configs/experiment, which then chooses the level.
    """
    rl = {
        "seed": args.seed,
        "torch_threads": args.threads,
        "saving_path_logs": args.output / "logs",
        "saving_path_model": args.output / "models",
        "name_model": name,
        **({} if overlay else {"name_environment": LEVEL}),
        "num_steps": args.frames,
        "number_episodes": args.episodes,
        "tensorboard": "false",
        **keys,
    }
    overrides = [
        *([f"experiment={overlay}"] if overlay else []),
        "lamorel_args.distributed_setup_args.n_llm_processes=0",
        *(f"rl_script_args.{key}={value}" for key, value in rl.items()),
        *args.overrides,
    ]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return parse_config(compose("base", overrides=overrides))


def tested(agent: Config, random: Config) -> Learned:
    """Test both."""
    for config in (random, agent):
        run_tests(config)
    return Learned(success(agent), success(random), training_log(agent))


def training_log(config: Config) -> pd.DataFrame:
    """The rows of the training's log.csv. Raises UserError for a spoilt one, whose numbers prove nothing."""
    faults: list[str] = []
    log = log_rows(ExperimentPaths.of(config).logs / "log.csv", faults)
    if log is None or faults:
        raise UserError("; ".join(faults))
    return log


def success(config: Config) -> Estimate:
    """Success in the configured agent's test."""
    folder = ExperimentPaths.of(config).test_folder(config.rl.name_environment) / "episodes"
    episodes = pd.read_csv(folder / f"{test_file_stem(config, NO_MODIFICATION)}.csv")
    return wilson(int(episodes.success.sum()), len(episodes))


def write_report(
    args: argparse.Namespace,
    agent: Config,
    learned: Learned,
    rows: Sequence[Sequence[str]],
    *,
    most_minutes: int = MOST_MINUTES,
) -> None:
    """Print the table, and save it and the learning curve below --output; `rows` are the agent's own."""
    further = [
        [f"training, minutes (≤ {most_minutes})", f"{learned.minutes:.1f}"],
        ["training, frames/s", f"{learned.frames / learned.minutes / 60:.0f}"],
    ]
    table = report.table([agent.rl.name_environment, ""], [["random: success", str(learned.random)], *rows, *further])
    text = (
        f"{table}\n\n{report.machine('cpu', args.threads)}. {args.episodes} test episodes, the same for both, 95% "
        f"Wilson intervals; seed {args.seed}{'; ' + ' '.join(args.overrides) if args.overrides else ''}."
    )
    print(text)
    (args.output / "table.md").write_text(text + "\n", encoding="utf-8")
    paths = ExperimentPaths.of(agent)
    options = ["--tables", "--figures", "learning_curve", "--output", str(args.output)]
    make_report(["--logs", str(paths.logs.parent), "--runs", paths.id, *options])
