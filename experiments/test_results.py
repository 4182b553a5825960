"""Tables and figures of finished runs, beside the paper's numbers.

    python experiments/test_results.py --logs storage/demo/logs --runs '*_seed_1' --output storage/demo/results
    python experiments/test_results.py --logs storage/logs storage/logs_synonym_actions_2 --seeds 1 2 \\
        --tables generalisation tasks --figures generalisation distractors --label LLM=GFlan-T5 \\
        --output storage/results --strict

Without --tables and --figures everything is made that the runs have something for. What is missing (globs and seeds
without a run, runs without curve or tests, cells without a result) or spoilt (truncated files, repeated rows, numbers
that are not finite) is named on stderr and in missing.md. SIGTERM and SIGUSR1 end it with status 75, Ctrl-C with 130;
every file is then whole, old or new.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from experiments.stopping import listen_for_stop, stop_behind, stop_listening

TABLES = "results returns generalisation tasks sample_efficiency training"
FIGURES = "generalisation learning_curve actions distractors model_size prompt_length variants score_rule probabilities"


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--logs", type=Path, nargs="+", required=True, help="the runs' saving_path_logs, one or several")
    add("--runs", nargs="+", default=["*"], metavar="GLOB", help="globs of experiment ids (default: all)")
    add("--seeds", type=int, nargs="+", default=[], help="only these, and absent ones are missing (default: all)")
    add("--output", type=Path, required=True, help="folder of the tables and figures")
    add("--tables", nargs="*", choices=TABLES.split(), help="which ones (default: all; none: give no name)")
    add("--figures", nargs="*", choices=FIGURES.split(), help="which ones (default: all; none: give no name)")
    add("--within", type=positive, default=16, help="steps of the second success column (default: 16)")
    add("--window", type=positive, default=10, help="updates of the rolling mean of curves (default: 10, the paper's)")
    add("--frames", type=positive, help="cut curves at this many frames (default: use all)")
    add(
        "--training-level", help="the level whose plain test is 'no change' (default: the one the runs were trained in)"
    )
    add(
        "--compare", nargs=2, action="append", default=[], metavar=("FROM", "TO"),
        help="change of the sample efficiency between two groups of runs: globs of their labels or ids",
    )  # fmt: skip
    add("--label", nargs="+", default=[], metavar="OLD=NEW", help="other names for agents in tables and figures")
    add("--publish", type=Path, metavar="FILE.csv", help="add the runs to a file of results/, and the curve beside it")
    add("--strict", action="store_true", help="exit with status 1 if anything is missing")
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    from experiments.errors import UserError
    from experiments.results.report import Selection, make_report

    try:
        selection = Selection(
            logs=options.logs,
            runs=options.runs,
            seeds=options.seeds,
            output=options.output,
            tables=options.tables,
            figures=options.figures,
            within=options.within,
            window=options.window,
            frames=options.frames,
            training_level=options.training_level,
            compare=options.compare,
            labels=parse_labels(options.label),
            publish=options.publish,
        )
        missing = make_report(selection)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if missing:
        print(
            f"\nmissing ({options.output / 'missing.md'}):",
            *(f"- {line}" for line in missing),
            sep="\n",
            file=sys.stderr,
        )
    return 1 if missing and options.strict else 0


def parse_labels(texts: list[str]) -> dict[str, str]:
    """OLD=NEW pairs. Raises UserError for a text without an equals sign."""
    from experiments.errors import UserError

    for text in texts:
        if "=" not in text:
            raise UserError(f"--label {text}: give OLD=NEW, such as LLM=GFlan-T5")
    # the new name holds no =, the old one may (nbr_obs=1)
    return {old: new for old, _, new in (text.rpartition("=") for text in texts)}


def script() -> None:
    """`main`, which signals end in one line."""
    try:
        listen_for_stop()
        sys.exit(main())
    except BaseException as error:
        stopped = stop_behind(error)
        if stopped is None:
            raise
        print(stopped, file=sys.stderr)
        sys.exit(stopped.status)
    finally:
        stop_listening()


if __name__ == "__main__":
    script()
