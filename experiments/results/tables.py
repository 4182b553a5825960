"""The table of test results: one row per agent and test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from experiments.results.intervals import bootstrap_mean, wilson

AGENT_ORDER = ("random", "bot", "zero-shot", "cloned", "trained")
COLUMN_SUCCESS = "success within the step limit"


def load_tests(run_folders: Sequence[Path]) -> pd.DataFrame:
    """All test episodes of the given logs/ID folders, one row each.

    Beside the columns of the episodes: agent, test, level, run (the experiment id without its seed) and name (of the
    experiment and its model).
    """
    frames = []
    for folder in run_folders:
        for facts_path in sorted(folder.glob("test/*/episodes/*.json")):
            facts = json.loads(facts_path.read_text(encoding="utf-8"))
            episodes = pd.read_csv(facts_path.with_suffix(".csv"))
            level = facts_path.parents[1].name
            run = facts["id"].removesuffix(f"_seed_{facts['seed']}")
            stem = facts_path.stem.removesuffix("_zero_shot").removesuffix("_im")  # these two are told by the agent
            frames.append(episodes.assign(agent=facts["agent"], test=stem, level=level, run=run, name=facts["name"]))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def results_table(episodes: pd.DataFrame, *, within: int) -> pd.DataFrame:
    """One row per level, test, agent and run, its seeds taken together; every number with its 95% interval.

    Args:
        episodes: of `load_tests`.
        within: steps of the second success column.
    """
    rows = []
    for (level, test, agent, run), group in episodes.groupby(["level", "test", "agent", "run"], sort=False):
        quick = int(((group.success == 1) & (group.frames <= within)).sum())
        rows.append(
            {
                "level": level,
                "test": test.replace("_test", "").replace("_", " "),
                "agent": agent,
                "run": run,
                "episodes": len(group),
                COLUMN_SUCCESS: str(wilson(int(group.success.sum()), len(group))),
                f"within {within} steps": str(wilson(quick, len(group))),
                "mean return": str(bootstrap_mean(group.episode_return.to_numpy())),
            }
        )
    table = pd.DataFrame(rows)
    order = table.agent.map({name: i for i, name in enumerate(AGENT_ORDER)})
    return table.assign(order=order).sort_values(["level", "test", "order"], kind="stable").drop(columns="order")


def shorten_runs(table: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """The table with short names in place of experiment ids where they still tell the runs apart.

    Args:
        names: run -> name, of `load_tests`.
    """
    if len(set(names.values())) < len(names):
        return table
    return table.assign(run=table.run.map(names))


def to_markdown(table: pd.DataFrame) -> str:
    """A Markdown table, its columns padded so that it also reads well as plain text."""
    cells = [list(table.columns), *([str(value) for value in row] for row in table.itertuples(index=False))]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]) + "\n"
