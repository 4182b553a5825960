"""All tables and figures of the selected runs, printed and written; what is missing is collected on the way."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.errors import UserError
from experiments.experiment_paths import make_writable_folder
from experiments.results import generalisation, sample_efficiency
from experiments.results.bars import generalisation_bars
from experiments.results.comparisons import COMPARISONS
from experiments.results.curves import comparison_figure, learning_curve, unequal_lengths
from experiments.results.loading import LEARNING, PlayedTest, load_tests
from experiments.results.probabilities import probability_figure, read_probabilities
from experiments.results.published import publish
from experiments.results.rows import NO_CHANGE
from experiments.results.runs import Run, find_runs
from experiments.results.tables import results_table, returns_table, shown_tasks, task_table, tells_discounted
from experiments.results.training import Group, load_groups
from experiments.results.writing import write_figure, write_missing, write_table

TEST_TABLES = ("results", "returns", "generalisation", "tasks")
CURVE_TABLES = ("sample_efficiency", "training")
CURVE_FIGURES = ("learning_curve", *COMPARISONS)
TABLES = (*TEST_TABLES, *CURVE_TABLES)
FIGURES = ("generalisation", *CURVE_FIGURES, "probabilities")


@dataclass(frozen=True)
class Selection:
    """What to report on (`test_results.py --help`); tables and figures are None for all that have something to show."""

    logs: Sequence[Path]
    runs: Sequence[str]
    seeds: Sequence[int]
    output: Path
    tables: Sequence[str] | None
    figures: Sequence[str] | None
    within: int
    window: int
    frames: int | None
    training_level: str | None
    compare: Sequence[Sequence[str]]
    labels: dict[str, str]
    publish: Path | None = None

    def asks_for(self, tables: Iterable[str] = (), figures: Iterable[str] = ()) -> bool:
        """Whether any of these is asked for by name, or everything is."""
        wanted_tables = TABLES if self.tables is None else self.tables
        wanted_figures = FIGURES if self.figures is None else self.figures
        return bool({*tables} & {*wanted_tables} or {*figures} & {*wanted_figures})


def make_report(selection: Selection) -> list[str]:
    """Print and write the tables and figures of a selection, and missing.md.

    Returns:
        what is missing, a line each.

    Raises:
        UserError: nothing is selected, the output folder cannot be written, or two folders claim the same result.
    """
    make_writable_folder(selection.output, "--output")
    missing: list[str] = []
    runs = find_runs(selection.logs, selection.runs, selection.seeds, missing)
    of_tests: list[str] = []
    tests = load_tests(runs, of_tests)
    missing += of_tests if selection.asks_for(TEST_TABLES, ["generalisation"]) else []
    groups = []
    if selection.publish is not None or selection.asks_for(CURVE_TABLES, [*CURVE_FIGURES, "probabilities"]):
        groups = load_groups(runs, _without_training(runs, tests), selection.frames, missing)
    level, columns = "", generalisation.Columns({}, [])
    if tests:
        level = generalisation.choose_training_level(runs, tests, selection.training_level)
        columns = generalisation.choose_columns(tests, level, missing)
    titles = _rename(selection.labels, columns.titles, groups)
    _test_tables(selection, tests, level, titles, missing)
    _generalisation(selection, tests, level, titles, columns.left_out, missing)
    _curve_tables(selection, groups, missing)
    _curve_figures(selection, groups, missing)
    if selection.publish is not None:
        publish(selection.publish, tests, groups, selection.window)
        if groups:
            figure = learning_curve(groups, selection.window)
            write_figure(selection.publish.parent, selection.publish.stem, figure, ["png"])
    missing = list(dict.fromkeys(missing))
    write_missing(selection.output, missing)
    return missing


def _without_training(runs: Sequence[Run], tests: Sequence[PlayedTest]) -> set[Path]:
    """Folders that hold tests of agents that do not learn, and nothing of a training run."""
    learning = {test.folder for test in tests if test.agent in LEARNING}
    return {test.folder for test in tests} - learning - {run.folder for run in runs if run.config}


def _rename(labels: dict[str, str], titles: dict[tuple, str], groups: Sequence[Group]) -> dict[tuple, str]:
    """The titles of the table's agents with the names that --label gives; groups of runs get theirs in place."""
    known = {*titles.values(), *(group.label for group in groups)}
    for label in labels:
        if label not in known:
            raise UserError(f"--label {label}: there is no such agent, choose of: {'; '.join(sorted(known))}")
    for new in labels.values():
        if new in known or list(labels.values()).count(new) > 1:
            raise UserError(f"--label: two agents would be named {new}, give each a name of its own")
    for group in groups:
        group.label = labels.get(group.label, group.label)
    return {owner: labels.get(title, title) for owner, title in titles.items()}


def _chosen(selection: Selection, kind: str, name: str, has_data: bool, reason: str, missing: list[str]) -> bool:
    """Whether to make a table or figure: it is asked for and there is something to show."""
    asked = selection.tables if kind == "table" else selection.figures
    if asked is not None and name in asked and not has_data:
        missing.append(f"{kind} {name}: {reason}")
    return has_data and (asked is None or name in asked)


def _test_tables(
    selection: Selection, tests: Sequence[PlayedTest], level: str, titles: dict[tuple, str], missing: list[str]
) -> None:
    if selection.asks_for(TEST_TABLES) and not tests:
        missing.append("no test results among the runs: run post-training_tests.py")
    if _chosen(selection, "table", "results", bool(tests), "no test results among the runs", missing):
        table = results_table(tests, within=selection.within)
        print(f"95% intervals in brackets\n{write_table(selection.output, 'results', table.short, table.full)}")
    with_returns = [test for test in tests if tells_discounted(test)]
    # unasked where they are what the environments' own papers compare: where prompts are the environment's
    own_prompts = any(("prompter", "environment") in test.settings for test in with_returns)
    has_data = bool(with_returns) and (own_prompts or selection.tables is not None)
    if _chosen(selection, "table", "returns", has_data, "no test that tells discounted returns", missing):
        table = returns_table(with_returns)
        text = write_table(selection.output, "returns", table.short, table.full)
        print(f"95% intervals in brackets, standard deviations over episodes\n{text}")
    if selection.asks_for(["tasks"]):
        numbers = task_table(tests, level, titles, missing)
        reason = "no test of a Mixed level among the runs"
        if _chosen(selection, "table", "tasks", bool(len(numbers)), reason, missing):
            text = write_table(selection.output, "tasks", shown_tasks(numbers), numbers)
            print(f"success per task: mean over seeds [99% bootstrap over episodes within seeds]\n{text}")


def _generalisation(
    selection: Selection,
    tests: Sequence[PlayedTest],
    level: str,
    titles: dict[tuple, str],
    left_out: Sequence[str],
    missing: list[str],
) -> None:
    if not selection.asks_for(["generalisation"], ["generalisation"]):
        return
    of_table: list[str] = []
    numbers = generalisation.generalisation_table(tests, titles, level, selection.seeds, of_table)
    has_data = bool(len(numbers)) and set(numbers.test) != {NO_CHANGE}
    reason = "no test beyond 'no change' among the runs"
    missing += of_table if has_data else []
    if _chosen(selection, "table", "generalisation", has_data, reason, missing):
        text = write_table(selection.output, "generalisation", generalisation.shown_generalisation(numbers), numbers)
        print(f"{generalisation.caption(level, left_out)}\n{text}")
    if _chosen(selection, "figure", "generalisation", has_data, reason, missing):
        _show("generalisation", write_figure(selection.output, "generalisation", generalisation_bars(numbers)))


def _curve_tables(selection: Selection, groups: Sequence[Group], missing: list[str]) -> None:
    reason = "no run with a learning curve"
    window = selection.window
    if _chosen(selection, "table", "sample_efficiency", bool(groups), reason, missing):
        numbers = sample_efficiency.index_table(groups, window)
        text = write_table(selection.output, "sample_efficiency", sample_efficiency.shown(numbers), numbers)
        print(f"sample efficiency: mean over the curve of success, rolling mean over {window} updates\n{text}")
        changes = sample_efficiency.change_table(groups, selection.compare, window, missing)
        if len(changes):
            shown = sample_efficiency.shown(changes)
            text = write_table(selection.output, "sample_efficiency_change", shown, changes)
            print(f"change of the sample efficiency\n{text}")
    if _chosen(selection, "table", "training", bool(groups), reason, missing):
        numbers = sample_efficiency.training_table(groups, window)
        text = write_table(selection.output, "training", sample_efficiency.shown(numbers), numbers)
        print(f"success in training, rolling mean over {window} updates\n{text}")


def _curve_figures(selection: Selection, groups: Sequence[Group], missing: list[str]) -> None:
    if selection.asks_for(figures=CURVE_FIGURES):
        missing.extend(text for group in groups if (text := unequal_lengths(group)))
    if _chosen(selection, "figure", "learning_curve", bool(groups), "no run with a learning curve", missing):
        _show(
            "learning curve", write_figure(selection.output, "learning_curve", learning_curve(groups, selection.window))
        )
    for name in COMPARISONS:
        figure = comparison_figure(groups, name, selection.window) if selection.asks_for(figures=[name]) else None
        if _chosen(selection, "figure", name, figure is not None, "no runs that differ in nothing else", missing):
            assert figure is not None
            _show(name.replace("_", " "), write_figure(selection.output, name, figure))
    if not selection.asks_for(figures=["probabilities"]):
        return
    found = False
    for group in groups:
        for seed, run in sorted(group.runs.items()) if group.follows_probes else []:
            table = read_probabilities(run, selection.frames, missing)
            if table is not None:
                found = True
                stem = f"probabilities_{re.sub(r'[^A-Za-z0-9]+', '_', group.label).strip('_')}_seed_{seed}"
                figure = probability_figure(table, f"{group.label}, seed {seed}")
                _show(f"probabilities, {group.label}, seed {seed}", write_figure(selection.output, stem, figure))
    _chosen(selection, "figure", "probabilities", found, "no run with a distrib.csv", missing)


def _show(title: str, paths: Sequence[Path]) -> None:
    print(f"{title}: {paths[0]}")
