"""csv files that grow by rows as a run goes on, and the rows that copies, kills and editors leave of them."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from experiments.atomic_files import append, write_atomically

logger = logging.getLogger(__name__)


class Row(NamedTuple):
    """A row of a csv file.

    Attributes:
        key: identifies it.
        number: its place in the file, whose header is row 1.
        cells: by column.
    """

    key: tuple[int, ...]
    number: int
    cells: dict[str, str]


def read_rows(
    path: Path,
    key: Sequence[str],
    findings: list[str],
    *,
    columns: Sequence[str] = (),
    header: Sequence[str] | None = None,
) -> list[Row] | None:
    """The rows of a csv file, each key once and in the order of the keys; None if a column is missing.

    Of several rows with the same key the last one counts: a resumed run continues from it.

    Args:
        key: columns of whole numbers that identify a row.
        findings: a line is added for each kind of fault: rows that are torn (another number of cells than the header,
            or no end of line), another header, without a key, repeated or out of order.
        columns: others that must be there.
        header: assumed for a file without one.

    Raises:
        OSError, csv.Error: the file cannot be read.
    """
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    lines = list(csv.reader(io.StringIO(text, newline="")))

    def is_header(line: list[str]) -> bool:  # a row without its end of line may have swallowed one
        return {*key, *columns} <= {*line} and _whole_numbers(line[:1]) is None

    header = next(filter(is_header, lines), header)
    if header is None:
        lacking = [name for name in (*key, *columns) if name not in lines[0]] if lines else []
        findings.append(f"{path}: no column {', '.join(lacking)}" if lines else f"{path}: empty")
        return None
    found: dict[tuple[int, ...], Row] = {}
    faults: dict[str, list[int]] = {"header": [], "torn": [], "keyless": [], "repeated": []}
    for number, line in enumerate(lines, 1):
        if is_header(line):
            header = line
            faults["header"].append(number)
        elif len(line) != len(header) or (number == len(lines) and not text.endswith("\n")):
            faults["torn"] += [number] if line else []  # an empty line is no row
        elif (value := _whole_numbers(line[header.index(name)] for name in key)) is None:
            faults["keyless"].append(number)
        else:
            faults["repeated"] += [found.pop(value).number] if value in found else []
            found[value] = Row(value, number, dict(zip(header, line, strict=True)))
    late = [row.number for row, most in zip(found.values(), accumulate(found, max), strict=True) if row.key < most]
    keys = " and ".join(key)
    for numbers, fault in (
        (faults["torn"], "truncated, {} torn"),
        (faults["header"][1:], "{} another header"),
        (faults["keyless"], f"{{}} left out, without a whole number as {keys}"),
        (faults["repeated"], f"{{}} left out, later rows have the same {keys}"),
        (late, f"{{}} out of order, sorted by {keys}"),
    ):
        if numbers:
            findings.append(
                f"{path}: " + fault.format(f"{in_words(ranges(numbers))} {'is' if len(numbers) == 1 else 'are'}")
            )
    return sorted(found.values())


def ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """(first, last) of each run of consecutive numbers, in ascending order."""
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        joined = bool(found) and number == found[-1][1] + 1
        found.append((found.pop()[0] if joined else number, number))
    return found


def in_words(numbers: Sequence[tuple[int, int]], name: str = "row") -> str:
    """Ranges as in "row 13" or "rows 3, 5-7"."""
    plural = "s" if numbers[0][0] < numbers[-1][1] else ""
    return f"{name}{plural} " + ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in numbers)


def _whole_numbers(texts: Iterable[str]) -> tuple[int, ...] | None:
    try:
        numbers = [float(text) for text in texts]
        return tuple(int(number) for number in numbers) if all(n.is_integer() for n in numbers) else None
    except ValueError:
        return None


class CsvLog:
    """A csv file of a run that is resumed; rows are flushed as they come.

    Args:
        columns: the first one counts the updates.
        key: identifies a row; the first column unless there are several rows of one update.
    """

    def __init__(self, path: Path, columns: Sequence[str], key: Sequence[str] | None = None) -> None:
        self.path = path
        self.columns = list(columns)
        self.key = tuple(key or self.columns[:1])

    def cut_back(self, update: int) -> int:
        """Keep the rows of the updates up to `update`; a row torn by a kill goes too. Returns how many are kept."""
        kept = [self.columns]
        if self.path.exists():
            findings: list[str] = []
            for row in read_rows(self.path, self.key, findings, header=self.columns) or []:
                if row.key[0] <= update:
                    kept.append([row.cells.get(name, "") for name in self.columns])
            for finding in findings:
                logger.warning(finding)
        write_atomically(self.path, "".join(_csv_line(row) for row in kept))
        return len(kept) - 1

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        append(self.path, "".join(_csv_line([row[name] for name in self.columns]) for row in rows))


def _csv_line(values: Sequence[Any]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)
    return buffer.getvalue()
