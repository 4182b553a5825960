"""Learning curves: mean over seeds, their range as a band, rolling mean over updates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files only, no display

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from experiments.results.comparisons import COMPARISONS, families
from experiments.results.training import Group, smoothed

STYLES = ("-", "--", ":", "-.")
COLOURS = plt.get_cmap("tab10").colors  # type: ignore[attr-defined]


def mean_curve(group: Group, column: str, window: int) -> pd.DataFrame:
    """The mean over seeds and its range, at every update that all seeds have reached.

    Returns:
        columns frames, mean, low, high; NaN (a gap) where a seed has no episode to show yet.
    """
    curves = {seed: smoothed(log, column, window).set_axis(log["update"]) for seed, log in group.logs.items()}
    seeds = pd.concat(curves, axis=1, join="inner")
    frames = next(iter(group.logs.values())).set_index("update").frames.reindex(seeds.index)
    low, high = seeds.min(axis=1, skipna=False), seeds.max(axis=1, skipna=False)
    return pd.DataFrame({"frames": frames, "mean": seeds.mean(axis=1, skipna=False), "low": low, "high": high})


def unequal_lengths(group: Group) -> str | None:
    """Says where the curves of a group's seeds end, if not together; the mean is drawn up to the first end."""
    ends = {seed: int(log.frames.iloc[-1]) for seed, log in sorted(group.logs.items())}
    if len(set(ends.values())) == 1:
        return None
    text = ", ".join(f"seed {seed} at {frames}" for seed, frames in ends.items())
    return f"{group.label}: its curves end at different frames ({text}); the mean is drawn up to the first"


def learning_curve(groups: Sequence[Group], window: int) -> Figure:
    """Success rate and mean return against frames, one line per group."""
    labels = [_with_seeds(group, group.label) for group in groups]
    columns = max(1, min(len(labels), 150 // (max(map(len, labels)) + 8)))
    legend_height = 0.22 * -(-len(labels) // columns)
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2 + legend_height), layout="constrained")
    for axis, column, label in zip(axes, ("success_rate", "return_mean"), ("success rate", "mean return"), strict=True):
        draw(axis, groups, labels, column, window)
        axis.set_ylabel(label)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=columns, fontsize="small")
    figure.suptitle(_caption(window), fontsize="small")
    return figure


def comparison_figure(groups: Sequence[Group], name: str, window: int) -> Figure | None:
    """Success rate of the groups that differ only in `name`, a panel per family; None where there is no such family."""
    found = families(groups, name)
    if not found:
        return None
    comparison = COMPARISONS[name]
    columns = min(3, len(found))
    rows = -(-len(found) // columns)
    size = (max(6.5, 4.5 * columns), 0.7 + 3.6 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", sharey=True)
    for axis in axes.flat[len(found) :]:
        axis.remove()
    for axis, family in zip(axes.flat, found, strict=False):
        draw(axis, family, _texts(family, comparison.value, comparison.unit), "success_rate", window)
        axis.set(ylabel="success rate", title="" if comparison.across_agents else family[0].agent)
        axis.legend(fontsize="small")
    figure.suptitle(_caption(window), fontsize="small")
    return figure


def _texts(family: Sequence[Group], value: Callable[[Group], Any], unit: str) -> list[str]:
    texts = [unit.format(value(group)) for group in family]
    # two experiments with the same value keep their full labels
    texts = [t if texts.count(t) == 1 else f"{t}: {g.label}" for t, g in zip(texts, family, strict=True)]
    return [_with_seeds(g, t) for t, g in zip(texts, family, strict=True)]


def draw(axis: Axes, groups: Sequence[Group], labels: Sequence[str], column: str, window: int) -> None:
    """Draw one line per group; a single seed shows its raw values as dots, several show their range."""
    for i, (group, label) in enumerate(zip(groups, labels, strict=True)):
        curve = mean_curve(group, column, window)
        colour, style = COLOURS[i % len(COLOURS)], STYLES[i // len(COLOURS) % len(STYLES)]
        axis.plot(curve.frames, curve["mean"], color=colour, linestyle=style, label=label)
        if len(group.logs) > 1:
            axis.fill_between(curve.frames, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)
        else:
            raw = next(iter(group.logs.values()))
            axis.plot(raw.frames, raw[column], ".", color=colour, alpha=0.3, markersize=3)
    axis.set_xlabel("frames")
    if column == "success_rate":
        axis.set_ylim(-0.02, 1.02)
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.grid(alpha=0.3)


def _with_seeds(group: Group, label: str) -> str:
    return f"{label}, {len(group.logs)} seeds" if len(group.logs) > 1 else f"{label}, one seed"


def _caption(window: int) -> str:
    return f"training, rolling mean over {window} updates\nmean over seeds; band: their range; dots: single updates"
