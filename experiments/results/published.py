"""The results that README and docs show: small files in `results/`, and the tables and numbers generated from them.

    python experiments/test_results.py --logs storage/x/logs --output storage/x/results --publish results/x.csv
    python -m experiments.results.published

The first adds a row per run and seed of training, and one per test and seed, in place of older ones, and the learning
curve as x.png. The second regenerates what stands between `<!-- results/x.csv WORDS -->` and `<!-- end -->` in README
and in the pages of docs: a table where the marker is a line of its own, a number where it is inside a line.

WORDS choose rows: each is a value of one of the columns in `KEY`; the rows of training are those of the test
`training`, and are chosen by that word alone. In a line, the words in `FORMATS` choose what is shown.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.atomic_files import make_folder, write_atomically
from experiments.errors import UserError
from experiments.provenance import command_line
from experiments.results.intervals import wilson
from experiments.results.labels import agent_kind
from experiments.results.loading import LEARNING, PlayedTest
from experiments.results.runs import log_rows
from experiments.results.tables import AGENT_ORDER
from experiments.results.training import Group, smoothed
from experiments.results.writing import to_markdown

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ("README.md", "docs/*.md")
MARKED = re.compile(r"<!-- (results/[\w.-]+\.csv)(?: (?P<words>[^>]+?))? -->(?P<block>\n)?.*?<!-- end -->", re.DOTALL)
GROUP = ["experiment", "level", "test", "agent", "model"]  # of which a table shows the seeds together
KEY = [*GROUP, "seed"]
TRAINING = "training"  # the test's name in rows of training
# success, sample_efficiency: of training, over a rolling window of updates; frames, hours: of training, too
NUMBERS = [
    "episodes", "successes", "return_mean", "return_std", "steps_mean", "steps_std", "success", "sample_efficiency",
    "frames", "hours",
]  # fmt: skip
COLUMNS = [*KEY, *NUMBERS, "commit", "machine", "command"]


def rows_of(tests: Sequence[PlayedTest], groups: Sequence[Group] = (), window: int = 10) -> pd.DataFrame:
    """A row per run of training and per test and seed, with `COLUMNS`; what does not apply is missing.

    Args:
        window: updates of the rolling mean of success in training.

    Raises:
        UserError: there is no run, one does not tell what it was made with, or two have the same `KEY`.
    """
    if not tests and not groups:
        raise UserError("--publish: there are no results in these runs")
    rows = []
    seen: dict[tuple, Path] = {}
    for path, row in [*map(_test_row, tests), *_training_rows(groups, window)]:
        key = tuple(row[name] for name in KEY)
        if (other := seen.setdefault(key, path)) != path:
            raise UserError(
                f"--publish: {other} and {path} have the same {', '.join(KEY)}: choose one by --logs or --runs, or "
                "give one of them another rl_script_args.name_model"
            )
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def _test_row(test: PlayedTest) -> tuple[Path, dict[str, Any]]:
    facts = json.loads(test.path.with_name(f"{test.path.name}.json").read_text(encoding="utf-8"))
    if "provenance" not in facts:
        raise UserError(f"{test.path}.json was made before commit and machine were recorded: rerun the test")
    frames, hours = _training(test, facts)
    experiment, _, model = test.name.partition("/")
    played = test.episodes
    returns = played["discounted_return" if "discounted_return" in played else "episode_return"]
    steps = played["primitive_steps" if "primitive_steps" in played else "frames"]
    return test.path, {
        "experiment": experiment,
        "agent": test.agent,
        "model": model,
        "level": test.level,
        "test": _test_name(test),
        "seed": test.seed,
        "episodes": len(played),
        "successes": int(played.success.sum()),
        "return_mean": round(returns.mean(), 4),
        "return_std": round(returns.std(ddof=0), 4),
        "steps_mean": round(steps.mean(), 2),
        "steps_std": round(steps.std(ddof=0), 2),
        "frames": frames,
        "hours": hours,
        **_made_with(facts["provenance"]),
    }


def _training_rows(groups: Sequence[Group], window: int) -> Iterator[tuple[Path, dict[str, Any]]]:
    for group in groups:
        for seed, log in group.logs.items():
            run = group.runs[seed]
            path = run.folder / "provenance.json"
            if run.config is None or not path.exists():
                raise UserError(f"{run.folder} has no config.yaml or provenance.json to tell what it was made with")
            kind = agent_kind(run.config)
            success = smoothed(log, "success_rate", window)
            yield (
                run.folder,
                {
                    "experiment": group.rl["name_experiment"],
                    "agent": "trained" if kind == "llm" else kind,
                    "model": group.rl["name_model"],
                    "level": group.rl["name_environment"],
                    "test": TRAINING,
                    "seed": seed,
                    "success": round(success.iloc[-1], 4),
                    "sample_efficiency": round(success.mean(), 4),
                    "frames": int(log.frames.iloc[-1]),
                    "hours": round(log.duration.iloc[-1] / 3600, 3),
                    **_made_with(json.loads(path.read_text(encoding="utf-8"))),
                },
            )


def _made_with(provenance: dict[str, Any]) -> dict[str, str]:
    command = command_line(provenance["command"])
    return {"commit": provenance["commit"], "machine": provenance["machine"], "command": command}


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


def publish(path: Path, tests: Sequence[PlayedTest], groups: Sequence[Group] = (), window: int = 10) -> None:
    """Add the rows of these runs to a file of results; those with the same `KEY` are replaced."""
    rows = rows_of(tests, groups, window)
    if path.exists():
        rows = pd.concat([read(path), rows]).drop_duplicates(KEY, keep="last")
    rank = rows.agent.map(lambda agent: AGENT_ORDER.index(agent) if agent in AGENT_ORDER else len(AGENT_ORDER))
    rows = rows.assign(rank=rank).sort_values(["level", "experiment", "rank", "model", "test", "seed"], kind="stable")
    whole = dict.fromkeys(("episodes", "successes", "frames"), "Int64")
    make_folder(path.parent)
    write_atomically(path, rows[COLUMNS].astype(whole).to_csv(index=False, lineterminator="\n"))


def read(path: Path) -> pd.DataFrame:
    rows = pd.read_csv(path, keep_default_na=False, na_values={name: [""] for name in NUMBERS})
    if absent := [name for name in COLUMNS if name not in rows]:
        raise UserError(f"{path} has no column {', '.join(absent)}: put back a copy")
    return rows


def table(rows: pd.DataFrame) -> str:
    """The rows as a markdown table: a line per experiment, level, test and agent, its seeds together."""
    lines = []
    for (experiment, level, test, agent, model), group in rows.groupby(GROUP, sort=False):
        trained = group.frames.max() > 0
        line = {
            "experiment": experiment,
            "level": level,
            "test": test.replace("_test", "", 1).replace("_", " "),
            "agent": agent,
            "model": model,
            "seeds": ", ".join(map(str, group.seed)),
        }
        if test == TRAINING:
            line |= {"success at the end": _each(group.success), "sample efficiency": _each(group.sample_efficiency)}
        else:
            line |= {
                "success [95% interval]": _success(group),
                "per seed": ", ".join(f"{s / n:.2f}" for s, n in zip(group.successes, group.episodes, strict=True)),
                "episodes": f"{int(group.episodes.sum()):,}",
            }
        line["frames"] = f"{int(group.frames.max()):,}" if trained else "–"
        line["hours per seed"] = f"{group.hours.mean():.2f}" if trained else "–"
        lines.append(line)
    shown = pd.DataFrame(lines)
    constant = [name for name in GROUP if name != "agent" and shown[name].nunique() == 1]
    text = to_markdown(shown.drop(columns=constant))
    said = [f"{name} {shown[name][0]}" for name in ("level", "test") if name in constant]
    commits = ", ".join(f"`{c[:12]}`" + " with changes" * c.endswith("-dirty") for c in rows.commit.unique())
    said += [f"commit {commits}", *rows.machine.unique()]
    return f"{text}\n{'; '.join(said)}."


def _success(group: pd.DataFrame) -> str:
    return str(wilson(int(group.successes.sum()), int(group.episodes.sum())))


def _each(values: pd.Series) -> str:
    """The mean over seeds, and the seeds' own."""
    return f"{values.mean():.3f}" + f" ({', '.join(f'{value:.3f}' for value in values)})" * (len(values) > 1)


def _spread(group: pd.DataFrame, name: str, digits: int) -> str:
    """Mean and standard deviation over the episodes of all seeds."""
    counts, means, deviations = group.episodes, group[f"{name}_mean"], group[f"{name}_std"]
    mean = (counts * means).sum() / counts.sum()
    variance = (counts * (deviations**2 + means**2)).sum() / counts.sum() - mean**2
    return f"{mean:.{digits}f} ± {max(variance, 0.0) ** 0.5:.{digits}f}".replace("-", "−")


FORMATS: dict[str, Callable[[pd.DataFrame], str]] = {
    "success": _success,
    "return": lambda group: _spread(group, "return", 3),
    "steps": lambda group: _spread(group, "steps", 1),
    "sample-efficiency": lambda group: _each(group.sample_efficiency),
    "success-at-the-end": lambda group: _each(group.success),
}


def _chosen(path: Path, words: Sequence[str]) -> pd.DataFrame:
    rows = read(path)
    rows = rows[(rows.test == TRAINING) == (TRAINING in words)]
    for column in KEY:
        if values := {*words} & {*map(str, rows[column])}:
            rows = rows[rows[column].map(str).isin(values)]
            words = [word for word in words if word not in values]
    if words or rows.empty:
        raise UserError(f"{path}: no result of {', '.join(words) or 'a test'}")
    return rows


def with_tables(text: str, root: Path = ROOT) -> str:
    """A document with its tables and numbers regenerated.

    Raises:
        UserError: a file of results, or what a marker asks for, does not exist, or a number is of several results.
    """

    def replaced(match: re.Match[str]) -> str:
        path, words = root / match[1], (match["words"] or "").split()
        if not path.exists():
            raise UserError(f"{path}: no such file of results")
        marker = match[0].partition("-->")[0] + "-->"
        if match["block"]:
            return f"{marker}\n{table(_chosen(path, words))}\n<!-- end -->"
        rows = _chosen(path, [word for word in words if word not in FORMATS])
        if len(rows.groupby(GROUP)) > 1:
            raise UserError(f"{path}: {' '.join(words)} is more than one result: add what tells them apart")
        shown = [FORMATS[word](rows) for word in words if word in FORMATS] or [_success(rows)]
        return f"{marker}{'; '.join(shown)}<!-- end -->"

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
