"""Training runs, grouped: runs that differ only in their seed are one group."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.errors import UserError
from experiments.results.labels import agent_kind, agent_label, distinguish, level_name, training_settings
from experiments.results.runs import Run, read_log, same_id


@dataclass
class Group:
    """The seeds of one training configuration.

    Attributes:
        label: unique among the groups that were loaded together.
        agent: as the paper calls it; `name`: the experiment id without its seed.
        rl: `rl_script_args` of its first run.
        settings: what it was made with (`labels.training_settings`).
        logs: seed -> the rows of log.csv, in their order.
    """

    label: str
    agent: str
    name: str
    rl: dict[str, Any]
    settings: dict[str, str]
    runs: dict[int, Run] = field(default_factory=dict)
    logs: dict[int, pd.DataFrame] = field(default_factory=dict)

    @property
    def follows_probes(self) -> bool:
        """Whether its agent reads GLAM's prompts, so that its runs write distrib.csv."""
        return self.agent not in ("DRRN", "Symbolic-PPO", "Vector-PPO") and self.rl.get("prompter", "glam") == "glam"

    @property
    def level(self) -> str:
        return level_name(str(self.rl.get("name_environment", "")))


def load_groups(
    runs: Sequence[Run], not_trained: Collection[Path], frames: int | None, missing: list[str]
) -> list[Group]:
    """The groups among the given runs, with their curves.

    Args:
        not_trained: folders of agents that do not learn, which need no log.csv.
        frames: use the curves up to this many frames; None for all.
        missing: runs without a curve are added.

    Raises:
        UserError: two folders hold the same seed of one configuration.
    """
    groups: dict[tuple, Group] = {}
    for run in runs:
        if run.folder in not_trained:
            continue
        elsewhere = any((other.folder / "log.csv").exists() for other in same_id(run, runs))
        if elsewhere and not (run.folder / "log.csv").exists():
            continue
        log = read_log(run, frames, missing)
        if log is None:
            continue
        group = _group_of(run, groups)
        if run.seed in group.runs:
            raise UserError(
                f"{group.runs[run.seed].folder} and {run.folder} are the same seed of one configuration: choose one by "
                "--logs or --runs"
            )
        group.runs[run.seed], group.logs[run.seed] = run, log
    _label(list(groups.values()))
    return sorted(groups.values(), key=lambda group: group.label)


def _group_of(run: Run, groups: dict[tuple, Group]) -> Group:
    if run.config is None:  # a bare log.csv: its id is all that is known
        return groups.setdefault((run.name, run.folder.parent), Group("", run.name, run.name, {}, {}))
    settings = training_settings(run.config, run.seed)
    agent = agent_label(agent_kind(run.config), run.config)
    group = Group("", agent, run.name, run.config["rl_script_args"], settings)
    return groups.setdefault((run.name, *settings.items()), group)


def _label(groups: Sequence[Group]) -> None:
    entries: list[tuple[str, dict[str, str]]] = []
    for group in groups:
        names: dict[str, str] = {
            key: str(group.rl[key]) for key in ("name_experiment", "name_model") if key in group.rl
        }
        entries.append((group.agent, {**group.settings, **names, "run": group.name}))
    for group, suffix in zip(groups, distinguish(entries), strict=True):
        group.label = group.agent + suffix


def smoothed(log: pd.DataFrame, column: str, window: int) -> pd.Series:
    """Rolling mean over `window` updates; updates in which no episode ended count for nothing, not as 0.

    NaN until the first episode has ended, and where a whole window has none.
    """
    return log[column].rolling(window, min_periods=1).mean()
