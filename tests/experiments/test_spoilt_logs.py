"""log.csv as copies, kills, spreadsheets and programs leave it: each row counts once, faults are named with rows."""

import logging

import numpy as np
import pytest

from experiments.csv_log import CsvLog, in_words, ranges
from experiments.results.runs import log_rows, read_csv
from experiments.results.sample_efficiency import index
from experiments.run_log import COLUMNS
from tests.experiments.fabricated_runs import configuration, outcomes, write_test, write_training
from tests.experiments.test_results_report import report

UPDATES = 20


@pytest.fixture
def run(tmp_path):
    """A run of 20 updates whose success rises from 0.05 to 1."""
    folder = tmp_path / "logs" / "a_seed_1"
    write_training(folder, configuration(1), np.arange(1, UPDATES + 1) / UPDATES, probabilities=[1 / 6] * 6)
    return folder


def cells(column, text, *rows):
    """A change of lines: `text` in a column of the given rows (the header is row 1)."""

    def change(lines):
        table = [line.split(",") for line in lines]
        for row in rows:
            table[row - 1][COLUMNS.index(column)] = text
        return [",".join(line) for line in table]

    return change


# change of the lines; findings; updates whose rows are lost
FAULTS = {
    "a resumed copy": (
        lambda lines: lines[:19] + lines[14:],
        ["rows 15-19 are left out, later rows have the same update"],
    ),
    "two whole copies": (
        lambda lines: lines + lines,
        ["row 22 is another header", "rows 2-21 are left out, later rows have the same update"],
    ),
    "a copy with other columns": (
        lambda lines: lines[:11] + [",".join([*line.split(",")[::-1], "more"]) for line in [lines[0], *lines[9:]]],
        ["row 12 is another header", "rows 10-11 are left out, later rows have the same update"],
    ),
    "an older copy behind": (
        lambda lines: lines + lines[1:6],
        ["rows 2-6 are left out, later rows have the same update", "rows 22-26 are out of order, sorted by update"],
    ),
    "copies without a line end between": (
        lambda lines: [*lines[:-1], lines[-1] + lines[0], *lines[1:]],
        ["truncated, row 21 is torn", "rows 2-20 are left out, later rows have the same update"],
    ),
    # 1 10 11 ... 19 2 20 3 ... 9
    "sorted as texts": (
        lambda lines: [lines[0], *sorted(lines[1:])],
        ["rows 13, 15-21 are out of order, sorted by update"],
    ),
    "rows before the header": (lambda lines: [*lines[1:4], lines[0], *lines[4:]], []),
    "empty lines, other line ends, a byte order mark": (
        lambda lines: ["\ufeff" + lines[0] + "\r", "", *(line + "\r" for line in lines[1:]), ""],
        [],
    ),
    "whole numbers as floats": (lambda lines: [lines[0], *(line.replace(",", ".0,", 1) for line in lines[1:])], []),
    "nan": (
        cells("success_rate", "nan", 7, 8, 10),
        ["column success_rate has no finite number in rows 7-8, 10 ('nan'), read as empty"],
    ),
    "infinite": (
        cells("return_mean", "-inf", 3),
        ["column return_mean has no finite number in row 3 ('-inf'), read as empty"],
    ),
    "a text": (
        cells("success_rate", "half", 3),
        ["column success_rate has no finite number in row 3 ('half'), read as empty"],
    ),
    "a column without a table": (
        cells("value_loss", "NaN", 2),
        ["column value_loss has no finite number in row 2 ('NaN'), read as empty"],
    ),
    "empty cells": (cells("success_rate", "", 2, 3), []),
    "no frames": (
        cells("frames", "inf", 5),
        ["column frames has no finite number in row 5 ('inf'), left out", "no row of update 4"],
        [4],
    ),
    "no update": (
        cells("update", "", 5, 6),
        ["rows 5-6 are left out, without a whole number as update", "no row of updates 4-5"],
        [4, 5],
    ),
    "a fraction of an update": (
        cells("update", "4.5", 5),
        ["row 5 is left out, without a whole number as update", "no row of update 4"],
        [4],
    ),
    "an update that was never reached": (
        cells("update", "99999999999", 21),
        ["no row of updates 20-99999999998"],
        [20],
    ),
    "rows lost": (lambda lines: lines[:5] + lines[8:], ["no row of updates 5-7"], [5, 6, 7]),
    "frames that go back": (cells("frames", "50", 9), ["column frames does not rise at update 8"]),
    "too many cells": (
        lambda lines: [*lines[:4], lines[4] + ",1", *lines[5:]],
        ["truncated, row 5 is torn", "no row of update 4"],
        [4],
    ),
    "zeros of a crashed disk": (
        lambda lines: [*lines[:4], "\0" * 100, *lines[5:]],
        ["truncated, row 5 is torn", "no row of update 4"],
        [4],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_rows_count_once_and_faults_are_named(run, fault):
    change, expected, lost = (*FAULTS[fault], [])[:3]
    path = run / "log.csv"
    clean = log_rows(path, [])
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n", newline="")
    findings = []
    log = log_rows(path, findings)
    assert findings == [f"{path}: {line}" for line in expected]
    kept = [update for update in range(1, UPDATES + 1) if update not in lost]
    log = log[log["update"] <= UPDATES]
    assert log["update"].tolist() == kept
    if not any("column" in line for line in expected) and fault != "empty cells":
        assert log["success_rate"].tolist() == [update / UPDATES for update in kept]
        assert lost or index(log, 3) == index(clean, 3)


def test_the_later_row_counts(run):
    path = run / "log.csv"
    lines = path.read_text().splitlines()
    resumed = cells("success_rate", "0.25", *range(2, 7))([lines[0], *lines[11:]])
    path.write_text("\n".join(lines[:16] + resumed[1:]) + "\n")
    log = log_rows(path, [])
    assert log["success_rate"].tolist()[9:16] == [0.5, 0.25, 0.25, 0.25, 0.25, 0.25, 0.8]


def test_a_spoilt_cell_is_a_gap(run):
    """A gap, as an empty cell is, in a curve of window 1: the mean of the other updates."""
    path = run / "log.csv"
    path.write_text("\n".join(cells("success_rate", "inf", 2, 3)(path.read_text().splitlines())) + "\n")
    log = log_rows(path, [])
    assert np.isnan(log["success_rate"][:2]).all()
    assert index(log, 1) == pytest.approx((20 * 21 / 2 - 1 - 2) / UPDATES / 18)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "empty"),
        ("update,frames,success_rate\n1,2,3\n", "no column return_mean"),
        ("update;frames;success_rate;return_mean\n1;2;3;4\n", "no column update, frames, success_rate, return_mean"),
    ],
)
def test_files_that_are_no_log(tmp_path, content, expected):
    path = tmp_path / "log.csv"
    path.write_text(content)
    findings = []
    assert log_rows(path, findings) is None
    assert findings == [f"{path}: {expected}"]


def test_faults_are_reported_like_missing_results(run, tmp_path, capsys):
    """On stderr and in missing.md, exit status 1 with --strict only; distrib.csv and tests are read in the same way."""
    path = run / "log.csv"
    path.write_text(path.read_text() + path.read_text())
    distrib = run / "distrib.csv"
    distrib.write_text(distrib.read_text() + "20,2000,1" + ",nan" * 6 + "\n")
    plain = write_test(run, configuration(1), "trained", outcomes(2, 5))
    plain.write_text(plain.read_text() + plain.read_text().splitlines()[1] + "\n")
    options = ["--tables", "results", "sample_efficiency", "--figures", "learning_curve", "probabilities"]
    status, _, missing, _ = report(capsys, [tmp_path / "logs"], tmp_path / "out", *options)
    assert status == 0
    names = configuration(1)["rl_script_args"]["action_space"]
    assert missing == [
        f"{plain}: row 2 is left out, later rows have the same episode",
        f"{plain}: row 7 is out of order, sorted by episode",
        f"{path}: row 22 is another header",
        f"{path}: rows 2-21 are left out, later rows have the same update",
        f"{distrib}: row 41 is left out, later rows have the same update and prompt",
        *(f"{distrib}: column {name} has no finite number in row 42 ('nan'), read as empty" for name in names),
    ]
    assert (tmp_path / "out" / "missing.md").read_text().count("\n- ") == len(missing)
    assert "| 5 " in (tmp_path / "out" / "results.md").read_text()
    assert report(capsys, [tmp_path / "logs"], tmp_path / "out", *options, "--strict")[0] == 1


def test_columns_of_texts_are_not_checked(tmp_path):
    path = tmp_path / "episodes.csv"
    path.write_text('episode,success,task,note\n0,1,"a, b",nan\n1,0,,\n')
    findings = []
    table = read_csv(path, ("episode",), ("success",), findings, numbers=())
    assert findings == []
    assert table["task"].dropna().tolist() == ["a, b"]
    assert table["note"].dropna().tolist() == ["nan"]


@pytest.mark.parametrize("header", [True, False])
def test_a_resumed_run_repairs_its_log(tmp_path, caplog, header):
    """Each update up to the checkpoint keeps its last row; other cells stay as they are, for the tables to name."""
    log = CsvLog(tmp_path / "log.csv", ["update", "loss"])
    lines = ["update,loss"] * header + [
        "1,0.5",
        "2,0.4",
        "3,0.3",
        *["update,loss"] * header,
        "2,nan",
        "3,0.2",
        "4,0.1",
        "5,",
    ]
    log.path.write_text("\n".join(lines))
    with caplog.at_level(logging.WARNING):
        assert log.cut_back(3) == 3
    assert log.path.read_text() == "update,loss\n1,0.5\n2,nan\n3,0.2\n"
    assert "later rows have the same update" in caplog.text
    probes = CsvLog(tmp_path / "distrib.csv", ["update", "prompt", "go"], key=("update", "prompt"))
    probes.path.write_text("update,prompt,go\n1,0,0.1\n1,1,0.2\n2,0,0.3\n1,1,0.4\n")
    probes.cut_back(1)
    assert probes.path.read_text() == "update,prompt,go\n1,0,0.1\n1,1,0.4\n"


def test_ranges_in_words():
    assert in_words(ranges([13])) == "row 13"
    assert in_words(ranges([7, 3, 6, 5, 9])) == "rows 3, 5-7, 9"
    assert in_words([(1, 2)], "update") == "updates 1-2"
