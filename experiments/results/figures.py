"""Learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # files only, no display

import matplotlib.pyplot as plt
import pandas as pd

ROLLING_UPDATES = 10  # the paper's window


def learning_curve(run_folders: Sequence[Path], target: Path) -> bool:
    """Success rate and return against frames, one line per run, rolling mean over 10 updates.

    Returns:
        False where no run has a log.csv with a row (then nothing is written).
    """
    logs = [(folder, folder / "log.csv") for folder in run_folders]
    curves = [(folder.name, pd.read_csv(path)) for folder, path in logs if path.exists()]
    curves = [(name, log) for name, log in curves if len(log)]
    if not curves:
        return False
    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    for axis, column, label in zip(axes, ("success_rate", "return_mean"), ("success rate", "mean return"), strict=True):
        for name, log in curves:
            seed = name.rsplit("_seed_", 1)[-1]
            axis.plot(log.frames, log[column], alpha=0.25, color="tab:blue")
            axis.plot(log.frames, log[column].rolling(ROLLING_UPDATES, min_periods=1).mean(), label=f"seed {seed}")
        axis.set(xlabel="frames", ylabel=label, ylim=(0, 1))
        axis.legend(loc="lower right")
        axis.grid(alpha=0.3)
    figure.suptitle(f"training episodes, rolling mean over {ROLLING_UPDATES} updates")
    figure.tight_layout()
    figure.savefig(target, dpi=120)
    plt.close(figure)
    return True
