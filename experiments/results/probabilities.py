"""How the action probabilities on the fixed probe prompts evolve in training (distrib.csv)."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")  # files only, no display

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from experiments.probe_prompts import PROBES
from experiments.results.curves import COLOURS, STYLES
from experiments.results.runs import Run, read_csv

INDEX = ["update", "frames", "prompt"]


def read_probabilities(run: Run, frames: int | None, missing: list[str]) -> pd.DataFrame | None:
    """The rows of distrib.csv: update, frames, prompt and a column per action; None where there are none."""
    path = run.folder / "distrib.csv"
    table = read_csv(path, ("update", "prompt"), ("frames",), missing)
    if table is None:
        return None
    table = table if frames is None else table[table.frames <= frames]
    if not len(table):
        missing.append(f"{path}: no update in it")
        return None
    return table


def probability_figure(table: pd.DataFrame, title: str) -> Figure:
    """A panel per probe prompt, a line per action."""
    actions = [name for name in table.columns if name not in INDEX]
    prompts = sorted(table.prompt.unique())
    columns = min(4, len(prompts))
    rows = -(-len(prompts) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(max(6.0, 3.2 * columns), 1.0 + 2.4 * rows), squeeze=False, sharex=True, sharey=True,
        layout="constrained",
    )  # fmt: skip
    for axis in axes.flat[len(prompts) :]:
        axis.remove()
    for axis in axes.flat[max(0, len(prompts) - columns) : len(prompts)]:  # the lowest of each column
        axis.tick_params(labelbottom=True)
        axis.set_xlabel("frames")
    for axis, prompt in zip(axes.flat, prompts, strict=False):
        of_prompt = table[table.prompt == prompt]
        for i, action in enumerate(actions):
            style = STYLES[i // len(COLOURS) % len(STYLES)]
            label = action.replace("_", " ") if axis is axes.flat[0] else None
            axis.plot(
                of_prompt.frames, of_prompt[action], color=COLOURS[i % len(COLOURS)], linestyle=style, label=label
            )
        kind = PROBES[prompt].task_kind if prompt < len(PROBES) else "unknown"
        axis.set_title(f"prompt {prompt}: {kind}", fontsize="small")
        axis.set_ylim(-0.02, 1.02)
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.grid(alpha=0.3)
    figure.supylabel("probability", fontsize="medium")
    figure.suptitle(title, fontsize="medium")
    figure.legend(loc="outside lower center", ncols=min(6, len(actions)), fontsize="small")
    return figure
