"""The results that README and docs show: small files in `results/`, and the tables generated from them.

    python experiments/test_results.py --logs storage/x/logs --output storage/x/results --publish results/x.csv
    python -m experiments.results.published

The first adds a row per test and seed of the runs, in place of an older one, and the learning curve as x.png. The
second regenerates the tables, wherever README or a page of docs has the lines `<!-- results/x.csv -->` and
`<!-- end -->`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.atomic_files import make_folder, write_atomically
from experiments.errors import UserError
from experiments.provenance import command_line
from experiments.results.intervals import wilson
from experiments.results.loading import LEARNING, PlayedTest
from experiments.results.runs import log_rows
from experiments.results.tables import AGENT_ORDER
from experiments.results.writing import to_markdown

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ("README.md", "docs/*.md")
MARKED = re.compile(r"<!-- (results/[\w.-]+\.csv)(?: (?P<levels>[^>]+?))? -->\n.*?<!-- end -->", re.DOTALL)
KEY = ["agent", "model", "level", "test", "seed"]
# frames, hours: of the training; 0 where there is none
COLUMNS = [*KEY, "episodes", "successes", "frames", "hours", "commit", "machine", "command"]


def rows_of(tests: Sequence[PlayedTest]) -> pd.DataFrame:
    """A row per test and seed, with `COLUMNS`.

    Raises:
        UserError: there is no test, one does not tell what it was made with, or two have the same `KEY`.
    """
    if not tests:
        raise UserError("--publish: there are no results of tests in these runs")
    rows = []
    seen: dict[tuple, Path] = {}
    for test in tests:
        facts = json.loads(test.path.with_name(f"{test.path.name}.json").read_text(encoding="utf-8"))
        if "provenance" not in facts:
            raise UserError(f"{test.path}.json was made before commit and machine were recorded: rerun the test")
        frames, hours = _training(test, facts)
        made_with = facts["provenance"]
        row = {
            "agent": test.agent,
            "model": test.name.partition("/")[2],
            "level": test.level,
            "test": _test_name(test),
            "seed": test.seed,
            "episodes": len(test.episodes),
            "successes": int(test.episodes.success.sum()),
            "frames": frames,
            "hours": hours,
            "commit": made_with["commit"],
            "machine": made_with["machine"],
            "command": command_line(made_with["command"]),
        }
        key = tuple(row[name] for name in KEY)
        if (other := seen.setdefault(key, test.path)) != test.path:
            raise UserError(
                f"--publish: {other} and {test.path} have the same {', '.join(KEY)}: choose one by --logs or --runs, "
                "or test under another rl_script_args.name_model"
            )
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def _test_name(test: PlayedTest) -> str:
    """The test, its language and its action names, where they are not the usual ones."""
    language = "" if test.language == "english" else f" {test.language}"
    return test.test + language + (f" [{', '.join(test.actions)}]" if test.actions else "")


def _training(test: PlayedTest, facts: dict[str, Any]) -> tuple[int, float]:
    """Frames and hours of training up to the checkpoint that was tested; training may have gone on since."""
    if test.agent not in LEARNING:
        return 0, 0.0
    missing: list[str] = []
    log = log_rows(test.folder / "log.csv", missing)
    update = facts["checkpoint_update"]
    if log is None or missing or update not in set(log["update"]):
        raise UserError(f"{test.folder / 'log.csv'}: {'; '.join(missing) or f'no row of update {update}'}")
    tested = log[log["update"] == update].iloc[0]
    return int(tested["frames"]), round(float(tested["duration"]) / 3600, 3)


def publish(path: Path, tests: Sequence[PlayedTest]) -> None:
    """Add the rows of these tests to a file of results; those of the same test and seed are replaced."""
    rows = rows_of(tests)
    if path.exists():
        rows = pd.concat([read(path), rows]).drop_duplicates(KEY, keep="last")
    rank = rows.agent.map(lambda agent: AGENT_ORDER.index(agent) if agent in AGENT_ORDER else len(AGENT_ORDER))
    rows = rows.assign(rank=rank).sort_values(["level", "rank", "model", "test", "seed"], kind="stable")
    make_folder(path.parent)
    write_atomically(path, rows[COLUMNS].to_csv(index=False, lineterminator="\n"))


def read(path: Path) -> pd.DataFrame:
    rows = pd.read_csv(path, keep_default_na=False)
    if absent := [name for name in COLUMNS if name not in rows]:
        raise UserError(f"{path} has no column {', '.join(absent)}: put back a copy")
    return rows


def table(rows: pd.DataFrame) -> str:
    """The rows as a markdown table: a line per level, test and agent, its seeds together."""
    lines = []
    for (level, test, agent, model), group in rows.groupby(["level", "test", "agent", "model"], sort=False):
        successes, episodes = int(group.successes.sum()), int(group.episodes.sum())
        each = [f"{s / n:.2f}" for s, n in zip(group.successes, group.episodes, strict=True)]
        trained = group.frames.max() > 0
        lines.append(
            {
                "level": level,
                "test": test.replace("_test", "", 1).replace("_", " "),
                "agent": agent,
                "model": model,
                "seeds": ", ".join(map(str, group.seed)),
                "success [95% interval]": str(wilson(successes, episodes)),
                "per seed": ", ".join(each),
                "episodes": f"{episodes:,}",
                "frames": f"{group.frames.max():,}" if trained else "–",
                "hours per seed": f"{group.hours.mean():.2f}" if trained else "–",
            }
        )
    shown = pd.DataFrame(lines)
    constant = [name for name in ("level", "test", "model") if shown[name].nunique() == 1]
    text = to_markdown(shown.drop(columns=constant))
    said = [f"{name} {shown[name][0]}" for name in constant if name != "model"]
    commits = ", ".join(f"`{c[:12]}`" + " with changes" * c.endswith("-dirty") for c in rows.commit.unique())
    said += [f"commit {commits}", *rows.machine.unique()]
    return f"{text}\n{'; '.join(said)}."


def with_tables(text: str, root: Path = ROOT) -> str:
    """A document with its tables regenerated.

    A marker may name the levels to show behind the file, separated by spaces.

    Raises:
        UserError: a file of results, or a level in it, does not exist.
    """

    def replaced(match: re.Match[str]) -> str:
        path, levels = root / match[1], (match["levels"] or "").split()
        if not path.exists():
            raise UserError(f"{path}: no such file of results")
        rows = read(path)
        if absent := {*levels} - {*rows.level}:
            raise UserError(f"{path}: no result of {', '.join(sorted(absent))}")
        marker = match[0].partition("\n")[0]
        return f"{marker}\n{table(rows[rows.level.isin(levels)] if levels else rows)}\n<!-- end -->"

    return MARKED.sub(replaced, text)


def update_documents(*, check: bool, root: Path = ROOT) -> list[str]:
    """Regenerate the tables of all documents.

    Args:
        check: change nothing.

    Returns:
        the documents that are, or were, not up to date.
    """
    stale = []
    for path in sorted(path for pattern in DOCUMENTS for path in root.glob(pattern)):
        text = path.read_text(encoding="utf-8")
        if (new := with_tables(text, root)) != text:
            stale.append(str(path.relative_to(root)))
            if not check:
                write_atomically(path, new)
    return stale


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Regenerate the tables of README and docs from results/.")
    parser.add_argument("--check", action="store_true", help="change nothing; status 1 where a table is not up to date")
    options: Any = parser.parse_args(arguments)
    try:
        stale = update_documents(check=options.check)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name in stale:
        print(f"{name}: {'not up to date' if options.check else 'written'}")
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
