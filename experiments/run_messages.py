"""What a training run says of its updates, of the time it will take, and of numbers that end it."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from experiments.configuration import Config
from experiments.nonfinite import DivergedError, NonFiniteError

# of what an update reports, in a log line: (label, name, format)
SHOWN = (
    ("entropy", "entropy", ".3f"),
    ("policy", "policy_loss", ".4f"),
    ("value", "value_loss", ".3f"),
    ("loss", "loss", ".4f"),
    ("kl", "approx_kl", ".4f"),
    ("grad", "grad_norm", ".2f"),
)
SPEED_UPDATES = 10  # over which the present speed is taken


class PresentSpeed:
    """Of the last updates, saving and all; those of an earlier start may have had another machine.

    Args:
        frames: that the run has when this start begins.
    """

    def __init__(self, frames: int) -> None:
        self._reached = deque([(time.monotonic(), frames)], maxlen=SPEED_UPDATES + 1)  # seconds, frames

    def note(self, frames: int) -> None:
        """An update is over, and the run now has so many frames."""
        self._reached.append((time.monotonic(), frames))

    def frames_per_second(self) -> float:
        """Once an update is over."""
        (then, frames_then), (now, frames) = self._reached[0], self._reached[-1]
        return (frames - frames_then) / (now - then)

    def seconds_left(self, frames: int) -> float:
        """Until the run has so many frames."""
        return max(frames - self._reached[-1][1], 0) / self.frames_per_second()


def update_line(row: dict[str, Any], stats: dict[str, float], seconds_left: float) -> str:
    """The log line of an update.

    Args:
        row: of log.csv.
        stats: what the agent reported.
    """
    success = f"{row['success_rate']:.2f}" if row["success_rate"] != "" else "   -"
    returned = f"{row['return_mean']:.3f}" if row["return_mean"] != "" else "    -"
    left = f"{seconds_left / 60:.1f} min" if seconds_left < 2 * 3600 else f"{seconds_left / 3600:.1f} h"
    return (
        f"update {row['update']} | frames {row['frames']} | success {success} | return {returned} | "
        + "".join(f"{label} {stats[name]:{form}} | " for label, name, form in SHOWN if name in stats)
        + (f"skipped {skipped:.0f} | " if (skipped := stats["skipped_gradient_steps"]) else "")
        + f"{row['FPS']:.0f} frames/s | {left} left"
    )


def explain(error: NonFiniteError, config: Config, update: int | None, goes_on_from: str) -> str:
    """What is to be said where numbers that are not finite end a run.

    Args:
        update: in which they came.
        goes_on_from: where the same command would go on.
    """
    text = f"update {update} in {config.rl.name_environment}: {error}; the same command goes on from {goes_on_from}"
    if not isinstance(error, DivergedError):
        return text
    rate = {"symbolic": "symbolic.lr", "drrn": "drrn.lr", "twosome": "twosome.actor_lr (or critic_lr)"}
    dtype = config.lamorel.llm_args.dtype
    other = "" if dtype == "fp32" or config.agent != "llm" else f" or lamorel_args.llm_args.dtype=fp32 (was {dtype})"
    return (
        f"{text}; if it ends here again, give a lower rl_script_args.{rate.get(config.section, 'lr')}{other} and "
        "another name_experiment, or a larger rl_script_args.max_skipped_gradient_steps"
    )
