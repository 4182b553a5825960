"""The generalisation figure: success of every agent in every test, as bars."""

from __future__ import annotations

import textwrap
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files only, no display

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch


def generalisation_bars(numbers: pd.DataFrame) -> Figure:
    """Bars with their 99% bootstrap intervals; the paper's value is a black line where it is known.

    Bars with a note in the table (no prompt changed, the bot gave up) are hatched.

    Args:
        numbers: of `generalisation_table`.
    """
    agents = list(dict.fromkeys(numbers.agent))
    tests = numbers.test[numbers.agent == agents[0]].tolist()
    width = 0.84 / len(agents)
    figure, axis = plt.subplots(figsize=(max(7.0, 1.2 + 1.3 * len(tests)), 4.8), layout="constrained")
    colours = plt.get_cmap("tab10")
    handles: list[Any] = []
    for i, agent in enumerate(agents):
        column = numbers[numbers.agent == agent]
        places = np.arange(len(tests)) + (i - (len(agents) - 1) / 2) * width
        success = column.success.to_numpy(dtype=float)
        below = success - column.low_99.to_numpy(dtype=float)
        above = column.high_99.to_numpy(dtype=float) - success
        hatches = ["//" if note else "" for note in column.note]
        handles.append(axis.bar(places, success, width, color=colours(i % 10), label=agent, hatch=hatches))
        axis.errorbar(places, success, yerr=[below, above], fmt="none", ecolor="0.25", elinewidth=1, capsize=2)
        for place, value, published in zip(places, success, column.paper.to_numpy(dtype=float), strict=True):
            if np.isnan(value):
                bottom = 0.01 if np.isnan(published) or published > 0.12 else published + 0.02
                axis.text(place, bottom, "missing", rotation=90, ha="center", va="bottom", fontsize=7, color="0.4")
            elif value < 0.005:  # too low to be seen
                bottom = 0.005 if np.isnan(published) or published > 0.05 else published + 0.005
                axis.text(place, bottom, "0", ha="center", va="bottom", fontsize=7, color=colours(i % 10))
            if not np.isnan(published):
                axis.plot([place - width / 2, place + width / 2], [published] * 2, color="black", linewidth=1.8)
    if numbers.paper.notna().any():
        handles += axis.plot([], [], color="black", linewidth=1.8, label="paper")
    if numbers.note.any():
        handles.append(Patch(facecolor="white", edgecolor="0.4", hatch="//", label="with a note in the table"))
    axis.set(ylabel="success rate", ylim=(0, 1.04))
    axis.set_xticks(range(len(tests)), [textwrap.fill(test, 18) for test in tests], fontsize="small")
    axis.margins(x=0.01)
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    figure.legend(handles=handles, loc="outside upper center", ncols=min(8, len(handles)), fontsize="small")
    return figure
