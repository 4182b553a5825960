"""The generalisation table: success of every agent in every test, beside the paper's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from experiments.results import paper
from experiments.results.intervals import bootstrap_over_seeds, change_percent, published_interval
from experiments.results.labels import level_name
from experiments.results.loading import LEARNING, PlayedTest, note, owner_suffixes, shown_note
from experiments.results.rows import NO_CHANGE, PAPER, row_name, row_order
from experiments.results.runs import Run

AGENTS = ("random", "bot", "DRRN", "Symbolic-PPO", "Vector-PPO", "NP", "NPE", "NPA", "NPAE", "AFlan", "LLM", "TWOSOME")
STATES = ("zero-shot", "cloned", "")


def choose_training_level(runs: Sequence[Run], tests: Sequence[PlayedTest], given: str | None) -> str:
    """The level whose plain test is "no change": given, else the one trained in, else the one most tested.

    With several training levels the paper's comes first, then the most frequent.
    """
    if given is not None:
        return given
    trained = Counter(run.config["rl_script_args"]["name_environment"] for run in runs if run.config)
    levels = trained or Counter(test.level for test in tests)
    return paper.LEVEL if paper.LEVEL in levels else max(sorted(levels), key=lambda level: levels[level])


class Columns(NamedTuple):
    """The agents of the table."""

    titles: dict[tuple, str]  # owner -> title, in the order of the columns
    left_out: list[str]  # agents without a "no change": of another training level, or not trained and not tested in it


def choose_columns(tests: Sequence[PlayedTest], training_level: str, missing: list[str]) -> Columns:
    """Title and order of the agents that were trained in the level, or not at all but tested in it."""
    owners = {test.owner: test for test in tests}.values()
    with_reference = {test.owner for test in tests if row_name(test.key, training_level) == NO_CHANGE}
    kept, left_out = [], {}
    for test in owners:
        if test.trained_in not in (None, training_level):
            left_out[f"{test.run} (trained in {level_name(test.trained_in)})"] = True
        elif test.agent not in LEARNING and test.owner not in with_reference:
            left_out[f"{test.run} ({test.label}, not tested in {level_name(training_level)})"] = True
        else:
            kept.append(test)
            if test.trained_in is None and test.agent in LEARNING:
                missing.append(f"{test.folder}: no config.yaml, taken as trained in {training_level}")
    suffixes = owner_suffixes(kept, "label")

    def place(test: PlayedTest) -> tuple[int, int, str]:
        label, _, state = test.label.partition(" ")
        known = AGENTS.index(label) if label in AGENTS else len(AGENTS)
        return known, STATES.index(state), suffixes[test.owner]

    titles = {test.owner: test.label + suffixes[test.owner] for test in sorted(kept, key=place)}
    return Columns(titles, list(left_out))


def generalisation_table(
    tests: Sequence[PlayedTest],
    titles: dict[tuple, str],
    training_level: str,
    seeds: Sequence[int],
    missing: list[str],
) -> pd.DataFrame:
    """One row per test and agent, as numbers.

    Args:
        titles: of `choose_columns`.
        seeds: those every cell should have; empty for all seeds that the agent has in some test.
        missing: cells without a result, and seeds that a cell lacks, are added.

    Returns:
        columns test, agent, seeds, episodes, success (mean over seeds), low_99 and high_99 (bootstrap over the episodes
        within the seeds), published_99 (half-width, NaN with one seed), change_percent against the agent's "no change"
        over the seeds that have both, paper and paper_change_percent (NaN where unknown), note (`loading.note`). A cell
        without result is NaN.
    """
    of_table = [test for test in tests if test.owner in titles]
    keys = {test.key for test in of_table}
    if training_level == paper.LEVEL:  # the paper's rows and agents are asked for, whatever is there
        keys |= set(PAPER)
        labels = {test.label for test in of_table}
        absent = [label for label in paper.GENERALISATION[NO_CHANGE] if label not in labels]
        if absent:
            missing.append(f"generalisation: no test of the paper's agents {', '.join(absent)}")
    cells: dict[tuple, dict[int, np.ndarray]] = {}
    played: dict[tuple, list[pd.DataFrame]] = {}
    for test in of_table:
        success = test.episodes.success.to_numpy(dtype=float)
        cells.setdefault((test.key, test.owner), {})[test.seed] = success
        played.setdefault((test.key, test.owner), []).append(test.episodes)
    notes = {(key, owner): note(key, pd.concat(episodes)) for (key, owner), episodes in played.items()}
    rows = []
    for owner, title in titles.items():
        wanted = sorted(set(seeds) or {test.seed for test in of_table if test.owner == owner})
        reference = next(
            (c for (k, o), c in cells.items() if o == owner and row_name(k, training_level) == NO_CHANGE), {}
        )
        lacking: dict[int, list[str]] = {}  # seed -> tests without a result
        for key in sorted(keys, key=lambda key: row_order(key, training_level)):
            name, cell = row_name(key, training_level), cells.get((key, owner), {})
            for seed in wanted:
                if seed not in cell:
                    lacking.setdefault(seed, []).append(name)
            published = _published(name, owner, training_level)
            numbers = {**_cell(cell, reference), **published, "note": notes.get((key, owner), "")}
            rows.append({"test": name, "agent": title, **numbers})
        missing.extend(_lacking_lines(title, lacking))
    return pd.DataFrame(rows)


def _lacking_lines(title: str, lacking: dict[int, list[str]]) -> list[str]:
    """A line for all seeds of an agent that lack the same tests."""
    seeds: dict[tuple[str, ...], list[str]] = {}
    for seed in sorted(lacking):
        seeds.setdefault(tuple(lacking[seed]), []).append(str(seed))
    return [
        f"generalisation: {title} (seed {', '.join(of)}) has no result in {', '.join(map(repr, names))}"
        for names, of in seeds.items()
    ]


def _cell(cell: dict[int, np.ndarray], reference: dict[int, np.ndarray]) -> dict[str, object]:
    empty = {"seeds": "", "episodes": 0, "success": None, "low_99": None, "high_99": None, "published_99": None}
    if not cell:
        return {**empty, "change_percent": None}
    both = sorted(cell.keys() & reference.keys())
    change = None
    if both and cell is not reference:
        change = change_percent(*(float(np.mean([of[seed].mean() for seed in both])) for of in (cell, reference)))
    estimate = bootstrap_over_seeds([cell[seed] for seed in sorted(cell)])
    return {
        "seeds": " ".join(map(str, sorted(cell))),
        "episodes": sum(len(success) for success in cell.values()),
        "success": estimate.value,
        "low_99": estimate.low,
        "high_99": estimate.high,
        "published_99": published_interval([success.mean() for success in cell.values()]),
        "change_percent": change,
    }


def _published(name: str, owner: tuple, training_level: str) -> dict[str, float | None]:
    """The paper's value, for agents of the paper's training level only."""
    label = owner[1]
    known = training_level == paper.LEVEL
    return {
        "paper": paper.GENERALISATION.get(name, {}).get(label) if known else None,
        "paper_change_percent": paper.GENERALISATION_CHANGE.get(name, {}).get(label) if known else None,
    }


def shown_generalisation(numbers: pd.DataFrame) -> pd.DataFrame:
    """The table as it is read: a test per row; of each agent its success, and the paper's where it has any."""
    wide = {"test": numbers.test[numbers.agent == numbers.agent.iloc[0]].tolist()}
    for agent, column in numbers.groupby("agent", sort=False):
        wide[str(agent)] = [_shown_cell(row) for row in column.itertuples()]
        if column.paper.notna().any():
            wide[f"{agent}, paper"] = [_shown_paper(row) for row in column.itertuples()]
    return pd.DataFrame(wide)


def _shown_cell(row: Any) -> str:
    if pd.isna(row.success):
        return "missing"
    published = "one seed" if pd.isna(row.published_99) else f"± {row.published_99:.3f}"
    interval = f"[{row.low_99:.3f}, {row.high_99:.3f}] {published}"
    return f"{row.success:.3f} {interval}{_shown_change(row.change_percent)}{shown_note(row)}"


def _shown_paper(row: Any) -> str:
    return "" if pd.isna(row.paper) else f"{row.paper:.2f}{_shown_change(row.paper_change_percent)}"


def _shown_change(percent: float | None) -> str:
    return "" if pd.isna(percent) else f" ({percent:+.0f}%)"


def caption(training_level: str, left_out: Sequence[str]) -> str:
    """What stands above the table."""
    text = (
        f"success, 'no change' is {level_name(training_level)}: mean over seeds [99% bootstrap over episodes within "
        "seeds] ± 2.576 std / sqrt(seeds) (change against no change)"
    )
    return text + (f"\nleft out: {'; '.join(left_out)}" if left_out else "")
