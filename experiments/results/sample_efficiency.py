"""The sample-efficiency index of training runs, and success at the paper's numbers of frames."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import numpy as np
import pandas as pd

from experiments.errors import UserError
from experiments.results import paper
from experiments.results.comparisons import COMPARISONS, families
from experiments.results.intervals import change_percent, published_interval
from experiments.results.labels import level_name
from experiments.results.training import Group, smoothed


def index(log: pd.DataFrame, window: int) -> float:
    """The sample-efficiency index of a curve: the mean over its updates of the rolling success rate (paper, SE).

    Updates before the first episode has ended have no success rate and are not counted.
    """
    return float(smoothed(log, "success_rate", window).mean())


def group_index(group: Group, window: int) -> float:
    """The mean of the seeds' indices."""
    return float(np.mean([index(log, window) for log in group.logs.values()]))


def index_table(groups: Sequence[Group], window: int) -> pd.DataFrame:
    """One row per group: the mean index over seeds, the published interval's half-width (NaN with one seed), and its
    seeds' own."""
    rows = []
    for group in groups:
        of_seeds = {seed: index(log, window) for seed, log in sorted(group.logs.items())}
        rows.append(
            {
                "run": group.label,
                "level": group.level,
                "seeds": " ".join(map(str, of_seeds)),
                "frames": " ".join(map(str, dict.fromkeys(_frames(group)))),
                "sample efficiency": float(np.mean(list(of_seeds.values()))),
                "published_99": published_interval(list(of_seeds.values())),
                "of each seed": " ".join(f"{value:.4f}" for value in of_seeds.values()),
            }
        )
    return pd.DataFrame(rows)


def change_table(
    groups: Sequence[Group], compare: Sequence[Sequence[str]], window: int, missing: list[str]
) -> pd.DataFrame:
    """How the index changes from one group to another, in percent, beside the paper's for 4 and 16 distractors.

    Args:
        compare: pairs of globs of labels or ids; beside them, groups that differ only in the number of distractors are
            compared, the fewest with the most.
        missing: pairs whose curves have different lengths are added, as their indices cannot be compared.

    Raises:
        UserError: a glob does not match exactly one group.
    """
    pairs: list[tuple[Group, Group, int | None]] = [
        (_one_group(groups, a), _one_group(groups, b), None) for a, b in compare
    ]
    value = COMPARISONS["distractors"].value
    for family in families(groups, "distractors"):
        change = None
        ends = (value(family[0]), value(family[-1]))
        if ends == paper.DISTRACTORS and family[0].level.startswith(paper.DISTRACTORS_LEVEL):
            change = paper.DISTRACTORS_CHANGE.get(family[0].agent)
        pairs.append((family[0], family[-1], change))
    rows = []
    for old, new, published in pairs:
        before, after = group_index(old, window), group_index(new, window)
        if len({*_frames(old), *_frames(new)}) > 1:
            missing.append(
                f"sample efficiency: the curves of {old.label} and {new.label} end at different frames "
                f"({', '.join(map(str, sorted({*_frames(old), *_frames(new)})))}), cut them with --frames"
            )
        rows.append(
            {
                "from": old.label,
                "to": new.label,
                "index from": before,
                "index to": after,
                "change_percent": change_percent(after, before),
                "paper_change_percent": published,
            }
        )
    return pd.DataFrame(rows)


def _one_group(groups: Sequence[Group], glob: str) -> Group:
    found = [group for group in groups if glob == group.label]
    found = found or [group for group in groups if fnmatchcase(group.label, glob) or fnmatchcase(group.name, glob)]
    if len(found) != 1:
        labels = "; ".join(group.label for group in (found or groups))
        raise UserError(f"--compare {glob} matches {len(found)} groups of runs, choose one of: {labels}")
    return found[0]


def _frames(group: Group) -> list[int]:
    return [int(log.frames.iloc[-1]) for log in group.logs.values()]


def training_table(groups: Sequence[Group], window: int) -> pd.DataFrame:
    """Success in training (rolling mean, mean over seeds) at the end and at the frames that the paper names.

    Returns:
        columns run, level, seeds (those that got there), frames, success, paper.
    """
    rows = []
    for group in groups:
        published = paper.TRAINING.get(group.agent, {}) if group.level == level_name(paper.LEVEL) else {}
        end = min(_frames(group))
        marks = [frames for frames in published if frames <= end]
        # the last update is completed, so a run ends a little after the frames that it was asked for
        for mark in marks if marks and end < 1.01 * marks[-1] else [*marks, end]:
            reached = [smoothed(log[log.frames <= mark], "success_rate", window) for log in group.logs.values()]
            rows.append(
                {
                    "run": group.label,
                    "level": group.level,
                    "seeds": " ".join(map(str, sorted(group.logs))),
                    "frames": mark,
                    "success": float(np.mean([curve.iloc[-1] if len(curve) else np.nan for curve in reached])),
                    "paper": published.get(mark, ""),
                }
            )
    return pd.DataFrame(rows)


def shown(numbers: pd.DataFrame) -> pd.DataFrame:
    """A table of this module as it is read."""
    texts = numbers.copy()
    for column in texts.columns:
        if column.endswith("change_percent"):
            texts[column] = ["" if pd.isna(v) else f"{v:+.0f}%" for v in numbers[column]]
        elif column == "published_99":
            texts[column] = ["one seed" if pd.isna(v) else f"± {v:.3f}" for v in numbers[column]]
        elif pd.api.types.is_float_dtype(numbers[column]):
            texts[column] = ["none" if pd.isna(v) else f"{v:.3f}" for v in numbers[column]]
    names = {"change_percent": "change", "paper_change_percent": "paper's change", "published_99": "99% over seeds"}
    return texts.rename(columns=names)
