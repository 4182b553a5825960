"""TWOSOME learns: `make train-twosome` in one process, timed, beside the uniform random policy and the untrained LLM.

    python benchmarks/twosome_learns.py [--seed 1] [--output storage/benchmarks/twosome_learns] [key=value ...]

Every setting is that of configs/experiment/twosome_demo.yaml. Prints the table, and saves it (table.md) below --output.
Exit status 1 when the lower end of the trained agent's 95% interval is below 0.1, or everything took more than 8
minutes. A folder is used once: minutes of a run that was resumed would say nothing.
"""

import argparse
import sys
import time
from pathlib import Path

import report
import torch
from learning import success, training_log

from experiments.configuration import Config, parse_config
from experiments.hydra_script import compose_experiment, set_up_logging
from experiments.make_tiny_llm import make_tiny_llm
from experiments.post_training_tests import run_tests
from experiments.results.intervals import Estimate
from experiments.train_language_agent import train

LEAST_SUCCESS = 0.1  # of the interval's lower end
MOST_MINUTES = 8


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("storage/benchmarks/twosome_learns"))
    parser.add_argument("overrides", nargs="*", help="further keys of configs/base.yaml, as key=value")
    args = parser.parse_args()
    set_up_logging()
    if args.output.exists():
        parser.error(f"--output: {args.output} exists, remove it or give another folder")
    start = time.perf_counter()
    make_tiny_llm(_configure(args, model_exists=False))
    random = _tested(_configure(args, "rl_script_args.random_agent=true", "rl_script_args.name_model=random"))
    before = _tested(_configure(args, "rl_script_args.zero_shot=true"))
    config = _configure(args, "rl_script_args.zero_shot=false")
    train(config)
    after = _tested(config)
    minutes = (time.perf_counter() - start) / 60
    log = training_log(config)
    rows = [
        ["uniform random policy: success", str(random)],
        ["LLM before PPO: success", str(before)],
        [f"after {int(log.frames.iloc[-1]):,} decisions: success (lower end ≥ {LEAST_SUCCESS})", str(after)],
        [f"everything, minutes (≤ {MOST_MINUTES})", f"{minutes:.1f}"],
        ["training, decisions/s", f"{log.frames.iloc[-1] / log.duration.iloc[-1]:.0f}"],
    ]
    text = (
        f"{report.table([config.rl.name_environment, ''], rows)}\n\n"
        f"{report.machine('cpu', torch.get_num_threads())}. {config.rl.number_episodes} test episodes, the same for "
        f"all, 95% Wilson intervals; {' '.join([f'seed {args.seed}', *args.overrides])}."
    )
    print(text)
    (args.output / "table.md").write_text(text + "\n", encoding="utf-8")
    return 0 if after.low >= LEAST_SUCCESS and minutes <= MOST_MINUTES else 1


def _configure(args: argparse.Namespace, *overrides: str, model_exists: bool = True) -> Config:
    """What the scripts of `make train-twosome` would read, with all that is written below --output."""
    paths = [
        f"rl_script_args.seed={args.seed}",
        f"rl_script_args.saving_path_logs={args.output / 'logs'}",
        f"rl_script_args.saving_path_model={args.output / 'models'}",
        f"lamorel_args.llm_args.model_path={args.output / 'tiny_llm'}",
    ]
    tree = compose_experiment("twosome_demo", [*paths, *args.overrides, *overrides])
    return parse_config(tree, model_exists=model_exists)


def _tested(config: Config) -> Estimate:
    run_tests(config)
    return success(config)


if __name__ == "__main__":
    sys.exit(main())
