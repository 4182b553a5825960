"""How the runs of a campaign stand: one line per run, and what failed or is lost.

    python campaign/status.py                          # all runs below the storage root
    python campaign/status.py 'q1_*' --state running waiting
    python campaign/status.py --watch 60
    python campaign/status.py --json | jq '.runs[] | select(.state == "failed") | .log'

It joins SLURM's queue, campaign/logs and the run.json of every training; without SLURM the last alone. Exit status: 0;
with --check 1 where a run has failed or is lost; 2 for bad arguments.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from campaign.rows import Row

ROOT = Path(__file__).resolve().parents[1]
STATES = ("running", "waiting", "done", "stopped", "failed", "lost")
WIDTH = 100  # characters of a line where there is no terminal
CLEAR = "\x1b[H\x1b[2J"  # a terminal: to the top, and empty


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "patterns", nargs="*", metavar="GLOB", help="of scripts (with their arguments) or experiment ids (default: all)"
    )
    add("--state", nargs="+", choices=STATES, default=STATES, help="only these")
    add("--logs", type=Path, nargs="+", help="the runs' saving_path_logs (default: logs* below the storage root)")
    add("--json", action="store_true", help="for programs: campaign/README.md lists the keys")
    add("--watch", type=seconds, metavar="SECONDS", help="again and again, until Ctrl-C")
    add("--check", action="store_true", help="exit with status 1 if a run that the globs select has failed or is lost")
    options = parser.parse_args(arguments)
    if options.json and options.watch:
        parser.error("--json and --watch exclude one another")
    return options


def seconds(text: str) -> float:
    if not float(text) > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return float(text)


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    options = parse_arguments(arguments)
    if not options.watch:
        return show(options, root)
    try:
        while True:
            if sys.stdout.isatty():
                print(CLEAR, end="")
            show(options, root)
            sys.stdout.flush()
            time.sleep(options.watch)
    except KeyboardInterrupt:
        return 0


def show(options: argparse.Namespace, root: Path) -> int:
    """Print how the runs stand once, and return the exit status."""
    from campaign.standing import BAD
    from campaign.status_table import summary, table

    problems: list[str] = []
    asked, rows = collect(options.logs, root, problems)
    if options.patterns:
        rows = [row for row in rows if any(selects(pattern, row) for pattern in options.patterns)]
    shown = [row for row in rows if row.state in options.state]
    if options.json:
        runs = [dataclasses.asdict(row) for row in shown]
        print(json.dumps({"time": time.time(), "squeue": asked, "problems": problems, "runs": runs}, indent=1))
    else:
        width = shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout.isatty() else WIDTH
        print(f"{table(shown, width)}\n\n{summary(rows)}" if shown else summary(rows) if rows else "no runs")
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)
    return 1 if options.check and any(row.state in BAD for row in rows) else 0


def collect(logs: list[Path] | None, root: Path, problems: list[str]) -> tuple[bool, list[Row]]:
    """Whether SLURM answered, and how every run stands.

    Args:
        logs: folders like saving_path_logs; None for those below the storage root.
        problems: what could not be read is added.
    """
    from campaign.rows import make_rows
    from campaign.slurm_queue import ask_squeue
    from campaign.traces import read_events, read_runs, read_submitted, storage_logs

    for folder in logs or ():
        if not folder.is_dir():
            problems.append(f"--logs {folder}: no such folder")
    queue = ask_squeue(problems)  # first: what the files tell is then as new or newer
    now = time.time()
    submitted = read_submitted(root / "campaign" / "logs", problems)
    events = read_events(root / "campaign" / "logs", problems)
    runs = read_runs(logs or storage_logs(root, problems), now, problems)
    rows = make_rows(queue, submitted, events, runs, root=os.path.realpath(root), now=now)
    return queue is not None, [_with_error(row, root) for row in rows]


def _with_error(row: Row, root: Path) -> Row:
    """With the error of the job's log, where no more than an exit status is known."""
    from campaign.traces import last_error

    if not row.log or not row.reason.startswith("exit status"):
        return row
    error = last_error(root / row.log)
    return dataclasses.replace(row, reason=f"{row.reason}, {error}") if error else row


def selects(pattern: str, row: Row) -> bool:
    names = (row.name, row.title, Path(row.folder).name if row.folder else "")
    return any(fnmatch.fnmatchcase(name, pattern) for name in names)


if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # instead of this folder, whose modules are campaign's
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # no traceback where `| head` or a pager ends first
    sys.exit(main())
