"""The rows of a campaign's status as text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from campaign.rows import Row
from campaign.standing import STATES

HEADER = ("run", "seed", "state", "frames", "success", "fps", "left", "job", "update")
LEFT = ("run", "state")  # columns that are aligned to the left, the others hold numbers
SECTION = re.compile(r"\b(rl_script_args|lamorel_args)\.")  # of a key in the arguments
GAP = "  "
NAME = 24  # characters that the first column has room for, before the last column is left out
NARROWEST = 12


def table(rows: Sequence[Row], width: int) -> str:
    """Header, a line per row and, below, why runs have failed, are lost or have stopped.

    Args:
        width: of a line in characters; long names of runs are cut, and where there is no room the updates left out.
    """
    lines = [HEADER, *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if _room(widths, width) < min(widths[0], NAME):
        widths.pop()
    widths[0] = min(widths[0], max(_room(widths, width), NARROWEST))
    texts = [GAP.join(map(_aligned, HEADER, line, widths)).rstrip() for line in lines]
    notes = [_note(row) for row in rows if row.state in ("failed", "lost", "stopped")]
    return "\n".join([*texts, *([""] if notes else []), *notes])


def _room(widths: Sequence[int], width: int) -> int:
    """For the first column."""
    return width - sum(widths[1:]) - len(GAP) * (len(widths) - 1)


def _aligned(name: str, text: str, width: int) -> str:
    cut = text if len(text) <= width else text[: width - 1] + "…"
    return cut.ljust(width) if name in LEFT else cut.rjust(width)


def summary(rows: Sequence[Row]) -> str:
    """How many runs there are in each state."""
    counts = Counter(row.state for row in rows)
    return f"{len(rows)} runs: " + ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])


def _cells(row: Row) -> tuple[str, ...]:
    reason = row.reason.split(",")[0].split(" until ")[0] if row.state == "waiting" else ""
    return (
        SECTION.sub("", row.title),
        "" if row.seed is None else str(row.seed),
        row.state + (f" ({reason})" if reason else ""),
        _frames(row),
        "" if row.success_rate is None else f"{row.success_rate:.3f}",
        "" if row.frames_per_second is None else f"{row.frames_per_second:.3g}",
        "" if row.seconds_left is None else duration(row.seconds_left),
        row.job or "",
        "" if row.update is None else str(row.update),
    )


def _frames(row: Row) -> str:
    if row.frames is None or not row.num_steps:
        return ""
    # rounded down: 100% is complete
    return f"{short(row.frames)}/{short(row.num_steps)} {min(100 * row.frames // row.num_steps, 100):3d}%"


def _note(row: Row) -> str:
    where = f" ({row.log})" if row.log and row.state != "stopped" else ""
    seed = "" if row.seed is None else f" seed {row.seed}"
    return f"{row.state}: {row.title}{seed}: {row.reason or 'no reason is known'}{where}"


def short(number: int) -> str:
    """Four characters or so: 950, 12.8k, 1.5M."""
    for size, unit in ((10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number // size}{unit}" if number >= 100 * size else f"{number / size:.3g}{unit}"
    return str(number)


def duration(seconds: float) -> str:
    """In at most two units: 1d 4h, 8h 20m, 12m, 40s."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes}m"
    if minutes < 24 * 60:
        return f"{minutes // 60}h {minutes % 60}m"
    hours = round(seconds / 3600)
    return f"{hours // 24}d {hours % 24}h"
