"""Tables as CSV, Markdown and LaTeX, figures as PNG and PDF: the same bytes for the same input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from experiments.atomic_files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_table(folder: Path, stem: str, shown: pd.DataFrame, numbers: pd.DataFrame | None = None) -> str:
    """Write STEM.csv, STEM.md and STEM.tex.

    Args:
        shown: the table as it is read: texts.
        numbers: what the csv holds, if not `shown`: full precision, a row per cell.

    Returns:
        the Markdown.
    """
    text = to_markdown(shown)
    write_atomically(folder / f"{stem}.csv", (shown if numbers is None else numbers).to_csv(index=False))
    write_atomically(folder / f"{stem}.md", text)
    write_atomically(folder / f"{stem}.tex", shown.to_latex(index=False, escape=True))
    return text


def to_markdown(table: pd.DataFrame) -> str:
    """A Markdown table, its columns padded so that it also reads well as plain text."""
    texts = [list(table.columns), *table.itertuples(index=False)]
    cells = [[str(value).replace("|", r"\|") for value in row] for row in texts]  # a bar would end the cell
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]) + "\n"


def write_figure(folder: Path, stem: str, figure: Figure, formats: Sequence[str] = ("png", "pdf")) -> list[Path]:
    """Write STEM.png and STEM.pdf, or other formats, and close the figure; returns the paths."""
    import matplotlib.pyplot as plt

    paths = [folder / f"{stem}.{name}" for name in formats]
    for path in paths:
        temporary = path.with_name(f".{path.name}.new")
        # a PDF would carry the time it was made
        metadata = {"CreationDate": None} if path.suffix == ".pdf" else None
        figure.savefig(temporary, format=path.suffix[1:], dpi=120, metadata=metadata)
        temporary.replace(path)
    plt.close(figure)
    return paths


def write_missing(folder: Path, missing: Sequence[str]) -> None:
    """Write missing.md: what was asked for and is not there."""
    lines = [f"- {line}" for line in missing] or ["Nothing is missing."]
    write_atomically(folder / "missing.md", "# Missing results\n\n" + "\n".join(lines) + "\n")
