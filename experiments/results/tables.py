"""The tables of test results: a row per test and agent, and success per kind of task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pandas as pd

from experiments.results.intervals import bootstrap_mean, bootstrap_over_seeds, wilson
from experiments.results.loading import PlayedTest, note, owner_suffixes, shown_note
from experiments.results.rows import RowKey, actions_name, row_name, row_order

AGENT_ORDER = ("random", "bot", "drrn", "symbolic", "zero-shot", "cloned", "trained")
TASKS = ("goto", "pickup", "open", "putnext")  # and sequences after them
COLUMN_SUCCESS = "success within the step limit"


class ResultsTable(NamedTuple):
    """The same table twice."""

    full: pd.DataFrame  # runs under their experiment ids
    short: pd.DataFrame  # under the names of their experiment and model


def results_table(tests: Sequence[PlayedTest], *, within: int) -> ResultsTable:
    """One row per level, test, agent and run, its seeds taken together; every number with its 95% interval.

    Args:
        within: steps of the second success column.
    """

    def numbers(episodes: pd.DataFrame) -> dict[str, str]:
        quick = int(((episodes.success == 1) & (episodes.frames <= within)).sum())
        return {
            COLUMN_SUCCESS: _success(episodes),
            f"within {within} steps": str(wilson(quick, len(episodes))),
            "mean return": str(bootstrap_mean(episodes.episode_return.to_numpy())),
        }

    return _table(tests, numbers)


def returns_table(tests: Sequence[PlayedTest]) -> ResultsTable:
    """The same rows, with what TWOSOME is compared by: discounted return and length, mean ± standard deviation over the
    episodes each.

    Args:
        tests: whose files tell both (`tells_discounted`).
    """

    def numbers(episodes: pd.DataFrame) -> dict[str, str]:
        discounted, length = episodes.discounted_return.to_numpy(), episodes.primitive_steps.to_numpy()
        return {
            COLUMN_SUCCESS: _success(episodes),
            "mean discounted return": str(bootstrap_mean(discounted)),
            "its std": f"{discounted.std():.3f}",
            "primitive steps": f"{length.mean():.1f} ± {length.std():.1f}",
        }

    return _table(tests, numbers)


def tells_discounted(test: PlayedTest) -> bool:
    """Older files do not."""
    return {"discounted_return", "primitive_steps"} <= {*test.episodes.columns}


def _success(episodes: pd.DataFrame) -> str:
    return str(wilson(int(episodes.success.sum()), len(episodes)))


def _table(tests: Sequence[PlayedTest], numbers: Callable[[pd.DataFrame], dict[str, str]]) -> ResultsTable:
    """A row per level, test, agent and run; `numbers` makes its cells of the episodes of all seeds.

    The last column, `note` (`loading.note`), is left out if it is empty in all rows.
    """
    ids, names = owner_suffixes(tests, "run"), owner_suffixes(tests, "name")
    groups: dict[tuple[RowKey, tuple], list[PlayedTest]] = {}
    for test in tests:
        groups.setdefault((test.key, test.owner), []).append(test)
    rows, short_runs = [], []
    for (key, owner), members in groups.items():
        episodes = pd.concat([test.episodes for test in members])
        rows.append(
            {
                "level": key.level,
                "test": _test_name(key),
                "agent": members[0].agent,
                "run": members[0].run + ids[owner],
                "episodes": len(episodes),
                **numbers(episodes),
                "note": note(key, episodes),
            }
        )
        short_runs.append(members[0].name + names[owner])
    full = pd.DataFrame(rows)
    if not full.note.any():
        full = full.drop(columns="note")
    rank = {name: i for i, name in enumerate(AGENT_ORDER)}
    order = full.assign(short=short_runs, rank=full.agent.map(lambda agent: rank.get(agent, len(rank))))
    order = order.sort_values(["level", "test", "rank", "run"], kind="stable")
    return ResultsTable(full.loc[order.index], full.assign(run=short_runs).loc[order.index])


def _test_name(key: RowKey) -> str:
    """Different for tests that differ in more than their level."""
    name = key.test.removesuffix("_test").replace("_", " ")
    name += f", {actions_name(key.actions)}" if key.actions else ""
    # of a level of its own the name says the language
    usual = "french" if "French" in key.level else "english"
    return name + (f", {key.language}" if key.language != usual else "")


def task_table(
    tests: Sequence[PlayedTest], training_level: str, titles: dict[tuple, str], missing: list[str]
) -> pd.DataFrame:
    """Success per kind of task in the Mixed levels, as numbers: a row per test, task and agent.

    Args:
        titles: owner -> the agent's name, of the agents to show.
        missing: tests of a Mixed level whose file does not name the tasks are added.

    Returns:
        columns test, task, agent, seeds, episodes, success, low_99, high_99: the mean over the seeds with its bootstrap
        interval (glam.md calls the kinds goto, pickup, open, putnext, ...), and note (`loading.note`).
    """
    rows = []
    mixed = [test for test in tests if "Mixed" in test.level and test.owner in titles]
    missing.extend(f"{test.path}.csv: no column task, repeat the test" for test in mixed if "task" not in test.episodes)
    mixed = [test for test in mixed if "task" in test.episodes]
    for key in sorted({test.key for test in mixed}, key=lambda key: row_order(key, training_level)):
        of_test = [test for test in mixed if test.key == key]
        tasks = {task for test in of_test for task in test.episodes.task.dropna()}
        for task in sorted(tasks, key=lambda task: (TASKS.index(task) if task in TASKS else len(TASKS), task)):
            for owner, title in titles.items():
                seeds = {t.seed: t.episodes[t.episodes.task == task] for t in of_test if t.owner == owner}
                played = {seed: episodes for seed, episodes in seeds.items() if len(episodes)}
                if not played:
                    continue
                estimate = bootstrap_over_seeds([e.success.to_numpy(dtype=float) for e in played.values()])
                rows.append(
                    {
                        "test": row_name(key, training_level),
                        "task": task,
                        "agent": title,
                        "seeds": " ".join(map(str, sorted(played))),
                        "episodes": sum(map(len, played.values())),
                        "success": estimate.value,
                        "low_99": estimate.low,
                        "high_99": estimate.high,
                        "note": note(key, pd.concat(played.values())),
                    }
                )
    return pd.DataFrame(rows)


def shown_tasks(numbers: pd.DataFrame) -> pd.DataFrame:
    """The table of `task_table` as it is read: an agent per column."""
    texts = [f"{r.success:.3f} [{r.low_99:.3f}, {r.high_99:.3f}]{shown_note(r)}" for r in numbers.itertuples()]
    cells = numbers.assign(cell=texts)
    wide = cells.pivot_table(index=["test", "task"], columns="agent", values="cell", aggfunc="first", sort=False)
    return wide[list(dict.fromkeys(numbers.agent))].fillna("no episode").reset_index().rename_axis(None, axis=1)
