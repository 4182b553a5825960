"""Tables and figures of finished runs.

    python experiments/test_results.py --logs storage/demo/logs --runs '*_seed_1' --output storage/demo/results

Prints the table of all tests found; writes it (results.md, results.csv) and the learning curve (learning_curve.png).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", type=Path, required=True, help="the runs' saving_path_logs")
    parser.add_argument("--runs", nargs="+", default=["*"], help="globs of experiment ids (default: all)")
    parser.add_argument("--output", type=Path, required=True, help="folder of the tables and figures")
    parser.add_argument("--within", type=int, default=16, help="steps of the second success column (default: 16)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    folders = sorted({folder for glob in options.runs for folder in options.logs.glob(glob) if folder.is_dir()})
    if not folders:
        globs = ", ".join(options.runs)
        print(f"error: --runs {globs} matches no folder of {options.logs}: give other globs or --logs", file=sys.stderr)
        return 2
    from experiments.results.figures import learning_curve
    from experiments.results.tables import load_tests, results_table, shorten_runs, to_markdown

    options.output.mkdir(parents=True, exist_ok=True)
    episodes = load_tests(folders)
    if len(episodes):
        table = results_table(episodes, within=options.within)
        text = to_markdown(shorten_runs(table, dict(zip(episodes.run, episodes.name, strict=True))))
        print(f"95% intervals in brackets\n{text}")
        (options.output / "results.md").write_text(text, encoding="utf-8")
        table.to_csv(options.output / "results.csv", index=False)
    else:
        print(f"no test results below {options.logs} yet: run post-training_tests.py", file=sys.stderr)
    if learning_curve(folders, options.output / "learning_curve.png"):
        print(f"learning curve: {options.output / 'learning_curve.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
