"""campaign/status.py: the state of every run from the queue, campaign/logs and run.json; and the command itself."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from campaign.rows import make_rows
from campaign.slurm_queue import parse_queue
from campaign.standing import STATES
from campaign.status_table import duration, short, summary, table
from campaign.traces import Event, Run, Submitted, array_indices, last_error
from tests.experiments.conftest import ROOT, make_config, script_environment, small, symbolic, tiny_models

__all__ = ["small", "symbolic", "tiny_models"]  # fixtures

NOW = 100_000.0
REPO = "/home/me/glam"
ID = "q1_mixed_nbr_env_32_Flan_T5large_pretrained_True_nbr_actions_6_turn_left_drop_shape_reward_beta_0_seed_1"


def queue(*lines):
    """squeue's answer: of each line the element, the state, its reason and the start."""
    text = ""
    for line in lines:
        job, state, reason, start = (*line.split(), "N/A")[:4]
        number, _, index = job.partition("_")
        text += f"{number}|{index or 'N/A'}|{state}|{reason}|{start}|q1_mixed|{REPO}/campaign/q1_mixed.sh|{REPO}\n"
    return parse_queue(text)


def key_of(job):
    number, _, index = job.partition("_")
    return number, int(index) if index else None


def submitted(job, name="q1_mixed", arguments=(), at=NOW - 9000):
    return Submitted(key_of(job), name, arguments, at)


def event(job, what, at, status=None, restart=0, name="q1_mixed", arguments=()):
    return Event(key_of(job), what, at, restart, status, name, arguments)


def run(job, state, written, *, reason="", frames=300_000, alive=False, folder=ID):
    record = {"state": state, "reason": reason, "update": 7, "frames": frames, "num_steps": 1_500_000}
    record |= {"success_rate": 0.25, "frames_per_second": 40.0, "started": 1.0, "written": written}
    record |= {"pid": 7, "host": "n1"}
    return Run(Path("logs") / folder, record, None if job is None else key_of(job), alive)


def rows(*, queue=(), submitted=(), events=(), runs=()):
    return make_rows(queue, submitted, events, runs, root=REPO, now=NOW)


# name: (what is known, state, part of the reason)
CASES = {
    "waits for resources": ({"queue": queue("5_1 PENDING Resources")}, "waiting", "Resources"),
    "waits for another": ({"queue": queue("5_1 PENDING Dependency")}, "waiting", "Dependency"),
    "will never start": ({"queue": queue("5_1 PENDING DependencyNeverSatisfied")}, "failed", "NeverSatisfied"),
    "held": ({"queue": queue("5_1 PENDING JobHeldUser")}, "waiting", "JobHeldUser"),
    "submitted a moment ago, after squeue was asked": ({"submitted": [submitted("5_1", at=NOW + 1)]}, "waiting", ""),
    "cancelled before it began": ({"submitted": [submitted("5_1")]}, "failed", "before it began"),
    "cancelled, and squeue still knows": (
        {"submitted": [submitted("5_1")], "queue": queue("5_1 CANCELLED DependencyNeverSatisfied")},
        "failed",
        "CANCELLED (DependencyNeverSatisfied) before it began",
    ),
    "starting, no event yet": (
        {"submitted": [submitted("5_1")], "queue": queue("5_1 RUNNING None 1970-01-02T00:00:00")},
        "running",
        "",
    ),
    "runs": (
        {
            "queue": queue("5_1 RUNNING None"),
            "events": [event("5_1", "started", 90_000)],
            "runs": [run("5_1", "running", 99_000)],
        },
        "running",
        "",
    ),
    "runs on where an earlier start of it failed": (
        {
            "queue": queue("5_1 RUNNING None"),
            "events": [event("5_1", "started", 80_000), event("5_1", "started", 90_000, restart=1)],
            "runs": [run("5_1", "failed", 85_000, reason="no space")],
        },
        "running",
        "",
    ),
    "failed, its job still in the queue": (
        {
            "queue": queue("5_1 RUNNING None"),
            "events": [event("5_1", "started", 90_000)],
            "runs": [run("5_1", "failed", 99_000, reason="no space left")],
        },
        "failed",
        "no space left",
    ),
    "requeued and waiting": (
        {
            "queue": queue("5_1 PENDING BeginTime 2026-11-21T23:28:09"),
            "events": [event("5_1", "started", 90_000), event("5_1", "requeued", 95_000, 75)],
            "runs": [run("5_1", "stopped", 94_999, reason="stopped by SIGUSR1 after update 7")],
        },
        "waiting",
        "requeued, BeginTime until 21 Nov 23:28",
    ),
    "requeued, SLURM still ending the first start": (
        {
            "queue": queue("5_1 COMPLETING None"),
            "events": [event("5_1", "started", 90_000), event("5_1", "requeued", 95_000, 75)],
        },
        "waiting",
        "requeued",
    ),
    "runs again after a requeue": (
        {
            "queue": queue("5_1 RUNNING None"),
            "events": [
                event("5_1", "started", 90_000),
                event("5_1", "requeued", 95_000, 75),
                event("5_1", "started", 95_200, restart=1),
            ],
            "runs": [run("5_1", "stopped", 94_999)],
        },
        "running",
        "",
    ),
    "requeued by SLURM as its node failed": (
        {
            "queue": queue("5_1 PENDING BeginTime"),
            "events": [event("5_1", "started", 90_000)],
            "runs": [run("5_1", "running", 94_999)],
        },
        "waiting",
        "requeued, BeginTime",
    ),
    "cancelled after a requeue": (
        {"events": [event("5_1", "started", 90_000), event("5_1", "requeued", 95_000, 75)]},
        "stopped",
        "submit it again",
    ),
    "cancelled after a requeue, and squeue still knows": (
        {
            "queue": queue("5_1 CANCELLED None"),
            "events": [event("5_1", "started", 90_000), event("5_1", "requeued", 95_000, 75)],
        },
        "stopped",
        "submit it again",
    ),
    "stopped, and SLURM killed its script": (
        {
            "queue": queue("5_1 TIMEOUT TimeLimit"),
            "events": [event("5_1", "started", 90_000)],
            "runs": [run("5_1", "stopped", 94_999, reason="stopped by SIGTERM after update 7")],
        },
        "stopped",
        "stopped by SIGTERM after update 7",
    ),
    "stopped at the time limit without a requeue": (
        {
            "events": [event("5_1", "started", 90_000), event("5_1", "ended", 95_000, 75)],
            "runs": [run("5_1", "stopped", 94_999, reason="stopped by SIGTERM after update 7")],
        },
        "stopped",
        "stopped by SIGTERM after update 7",
    ),
    "test job done": (
        {"events": [event("5_1", "started", 90_000), event("5_1", "ended", 95_000, 0)]},
        "done",
        "",
    ),
    "training done, SLURM about to forget it": (
        {
            "queue": queue("5_1 COMPLETED None"),
            "events": [event("5_1", "started", 90_000), event("5_1", "ended", 95_000, 0)],
            "runs": [run("5_1", "done", 94_999, frames=1_500_160)],
        },
        "done",
        "",
    ),
    "training done, its job about to end": (
        {
            "queue": queue("5_1 RUNNING None"),
            "events": [event("5_1", "started", 90_000)],
            "runs": [run("5_1", "done", 94_999, frames=1_500_160)],
        },
        "done",
        "",
    ),
    "ended with 0, no events": (
        {"queue": queue("5_1 COMPLETED None"), "submitted": [submitted("5_1")]},
        "done",
        "",
    ),
    "ended with 0, incomplete": (
        {
            "events": [event("5_1", "started", 90_000), event("5_1", "ended", 95_000, 0)],
            "runs": [run("5_1", "running", 94_000)],
        },
        "failed",
        "ended with status 0 before its run was complete",
    ),
    "ended with an error that run.json tells": (
        {
            "events": [event("5_1", "started", 90_000), event("5_1", "ended", 95_000, 1)],
            "runs": [run("5_1", "failed", 94_000, reason="loss is not finite")],
        },
        "failed",
        "loss is not finite",
    ),
    "ended before its run began": (
        {"events": [event("5_1", "started", 90_000), event("5_1", "ended", 90_001, 2)]},
        "failed",
        "exit status 2",
    ),
    "killed at the time limit": (
        {
            "queue": queue("5_1 TIMEOUT TimeLimit"),
            "events": [event("5_1", "started", 90_000)],
            "runs": [run("5_1", "running", 94_000)],
        },
        "failed",
        "TIMEOUT (TimeLimit)",
    ),
    "its node failed": (
        {"queue": queue("5_1 NODE_FAIL None"), "events": [event("5_1", "started", 90_000)]},
        "failed",
        "NODE_FAIL",
    ),
    "gone from the queue without an end": (
        {"events": [event("5_1", "started", 90_000)], "runs": [run("5_1", "running", 94_000)]},
        "lost",
        "its job is gone",
    ),
    "submitted by hand, gone": ({"runs": [run("5_1", "running", 94_000)]}, "lost", "its job is gone"),
    "no SLURM, alive": ({"queue": None, "runs": [run(None, "running", 94_000, alive=True)]}, "running", ""),
    "no SLURM, killed": ({"queue": None, "runs": [run(None, "running", 94_000)]}, "lost", "process 7 on n1"),
    "no SLURM, stopped": ({"queue": None, "runs": [run(None, "stopped", 94_000, reason="why")]}, "stopped", "why"),
    "squeue fails, begun": ({"queue": None, "events": [event("5_1", "started", 90_000)]}, "running", "last event"),
    "squeue fails, no sign of life": (
        {"queue": None, "events": [event("5_1", "started", 90_000)], "runs": [run("5_1", "running", 94_000)]},
        "lost",
        "no sign of life",
    ),
    "squeue fails, no events, alive": (
        {"queue": None, "submitted": [submitted("5_1")], "runs": [run("5_1", "running", 94_000, alive=True)]},
        "running",
        "",
    ),
    "squeue fails, submitted": ({"queue": None, "submitted": [submitted("5_1")]}, "waiting", "submitted"),
}  # fmt: skip


@pytest.mark.parametrize(("known", "state", "reason"), CASES.values(), ids=CASES)
def test_state(known, state, reason):
    [row] = rows(**known)
    assert row.state == state
    assert reason in row.reason
    assert reason or not row.reason
    assert row.seed == 1


def test_a_running_run_is_shown_with_its_progress():
    """(1,500,000 - 300,000) / 40 = 30,000 s are left."""
    known, _, _ = CASES["runs"]
    [row] = rows(**known)
    assert (row.name, row.seed, row.job) == ("q1_mixed", 1, "5_1")
    assert (row.update, row.frames, row.num_steps, row.success_rate) == (7, 300_000, 1_500_000, 0.25)
    assert row.seconds_left == 30_000
    assert row.log == "campaign/logs/q1_mixed_5_1.log"
    assert row.folder == f"logs/{ID}"


def test_elements_of_an_array_stand_for_themselves():
    """Element 1 was requeued once and runs, 2 waits, 3 has failed; a job of another folder is none of them."""
    text = "".join(
        f"7|{index}|{state}|{reason}|N/A|q1_mixed|{folder}/campaign/q1_mixed.sh experiment=a b|{folder}\n"
        for index, state, reason, folder in [
            (1, "RUNNING", "None", REPO),
            (2, "PENDING", "Priority", REPO),
            (4, "RUNNING", "None", "/elsewhere"),
        ]
    )
    found = rows(
        queue=parse_queue(text),
        events=[
            event("7_1", "started", 1),
            event("7_3", "started", 2),
            event("7_1", "requeued", 3, 75),
            event("7_3", "ended", 4, 1),
            event("7_1", "started", 5, restart=1),
        ],
    )
    assert {(row.seed, row.state, row.restarts) for row in found} == {
        (1, "running", 1), (2, "waiting", 0), (3, "failed", 0),
    }  # fmt: skip
    assert next(row for row in found if row.seed == 2).arguments == ("experiment=a", "b")


def test_what_is_submitted_again_is_one_run():
    """The new job waits with the progress of the old one's run; another seed and other arguments are other runs."""
    known = {
        "submitted": [
            submitted("5_1"),
            submitted("12_1"),
            submitted("12_2"),
            submitted("13_1", "french", ("q1_npae",)),
            submitted("14_1", "french"),
        ],
        "events": [event("5_1", "started", 90_000), event("5_1", "ended", 95_000, 1)],
        "runs": [run("5_1", "failed", 94_999, reason="no space")],
    }
    waiting = queue("12_1 PENDING Resources", "12_2 PENDING Resources", "13_1 PENDING None", "14_1 PENDING None")
    found = rows(queue=waiting, **known)
    assert [(row.title, row.job, row.state, row.frames) for row in found] == [
        ("french", "14_1", "waiting", None),
        ("french q1_npae", "13_1", "waiting", None),
        ("q1_mixed", "12_1", "waiting", 300_000),
        ("q1_mixed", "12_2", "waiting", None),
    ]
    both = rows(queue=[*waiting, *queue("5_1 RUNNING None")], **known)
    assert [row.job for row in both if row.name == "q1_mixed"] == ["5_1", "12_1", "12_2"], "old, but in the queue"


def test_a_job_that_begins_is_not_taken_for_the_one_before_it():
    """It has told of nothing yet, while run.json is the failed job's."""
    known = {
        "submitted": [submitted("5_1"), submitted("12_1")],
        "runs": [run("5_1", "failed", 94_999, reason="no space")],
    }
    [row] = rows(queue=queue("12_1 RUNNING None"), **known)
    assert (row.job, row.state, row.reason) == ("12_1", "running", "")


def test_what_has_ended_and_left_nothing_is_not_shown():
    """Such as an interactive job, which SLURM forgets minutes later."""
    assert rows(queue=queue("5_1 COMPLETED None")) == []
    assert len(rows(queue=queue("5_1 RUNNING None"))) == 1


def test_what_is_not_so_yet_or_no_longer_is_not_shown():
    """A log before the job has begun, and the time that is left to a run that has ended."""
    [waiting] = rows(queue=queue("5_1 PENDING Resources"))
    assert waiting.log is None
    for state in ("failed", "done", "stopped"):
        [row] = rows(queue=None, runs=[run(None, state, 94_000)])
        assert (row.seconds_left is None) == (state != "stopped")


def test_a_run_without_a_job_is_named_by_its_id():
    [row] = rows(queue=None, runs=[run(None, "done", 94_000)])
    assert (row.name, row.seed, row.job) == ("q1_mixed Flan_T5large", 1, None)


def test_squeue_is_read_as_it_writes():
    """Lines of SLURM 22.05; a job that was submitted with --wrap has no command, a command may hold the separator."""
    text = (
        "1|3|RUNNING|None|2026-11-21T23:26:05|q1_mixed|/r/t.sh a 25 0|/r\n"
        "7|N/A|PENDING|BeginTime|2026-11-22T00:26:05|begin|(null)|/r\n"
        "8|1|PENDING|ReqNodeNotAvail, UnavailableNodes:n1|N/A|x|/r/t.sh a|b|/r\n"
        "torn\n"
    )
    array, single, reason = parse_queue(text)
    assert (array.key, array.state, array.arguments) == (("1", 3), "RUNNING", ("a", "25", "0"))
    assert array.start == time.mktime((2026, 11, 21, 23, 26, 5, 0, 0, -1))
    assert (single.key, single.reason, single.arguments, single.folder) == (("7", None), "BeginTime", (), "/r")
    assert (reason.reason, reason.arguments, reason.start) == ("ReqNodeNotAvail, UnavailableNodes:n1", ("a|b",), None)


@pytest.mark.parametrize(
    ("array", "indices"),
    [("1-2", [1, 2]), ("1,3-5%2", [1, 3, 4, 5]), ("0-6:3", [0, 3, 6]), ([1, 2], [1, 2]), (None, [None]), ("", [None])],
)
def test_array_indices(array, indices):
    assert array_indices(array) == indices


def test_table_fits_its_width_and_counts():
    known = {"queue": queue("5_1 RUNNING None", "6_2 PENDING Dependency"), "runs": [run("5_1", "running", 99_000)]}
    failed = event("9_1", "ended", 3, 2, name="generalisation_pickup_seq_pickup", arguments=("experiment=" + "x" * 80,))
    found = rows(**known, events=[failed])
    lines = table(found, 100).splitlines()
    head, first, running, waiting, _, note = lines
    assert all(len(line) <= 100 for line in lines[:4])
    assert head.split() == ["run", "seed", "state", "frames", "success", "fps", "left", "job"]
    assert "…" in first
    assert running.split() == ["q1_mixed", "1", "running", "300k/1.5M", "20%", "0.250", "40", "8h", "20m", "5_1"]
    assert waiting.split() == ["q1_mixed", "2", "waiting", "(Dependency)", "6_2"]
    assert note.startswith("failed: generalisation_pickup_seq_pickup experiment=xxx")
    assert note.endswith("exit status 2 (campaign/logs/generalisation_pickup_seq_pickup_9_1.log)")
    assert summary(found) == "3 runs: 1 running, 1 waiting, 1 failed"


def test_numbers_in_words():
    assert [duration(s) for s in (40, 59.6, 720, 3599, 30_000, 100_000)] == [
        "40s", "1m", "12m", "1h 0m", "8h 20m", "1d 4h",
    ]  # fmt: skip
    assert [short(n) for n in (0, 950, 12_800, 999_999, 1_500_160)] == ["0", "950", "12.8k", "999k", "1.5M"]


# -- the command


@pytest.fixture
def campaign(tmp_path, monkeypatch):
    """A repository of its own with the real modules, no squeue, and a folder of logs."""
    root = tmp_path / "glam"
    (root / "campaign" / "logs").mkdir(parents=True)
    (root / "storage" / "logs").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    for path in (ROOT / "campaign").glob("*.py"):
        (root / "campaign" / path.name).symlink_to(path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("GLAM_STORAGE", raising=False)
    return root


def status(root, *arguments):
    """campaign.status.main on another root, in a process as the command is."""
    code = (
        "import sys, pathlib; from campaign.status import main; sys.exit(main(sys.argv[2:], pathlib.Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", code, str(root), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def stub_squeue(root, script):
    path = root.parent / "bin" / "squeue"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def write_run(folder, **entries):
    folder.mkdir(parents=True)
    record = {"state": "done", "reason": "", "update": 3, "frames": 96, "num_steps": 96, "success_rate": 0.5}
    record |= {"frames_per_second": 10.0, "host": "elsewhere", "pid": 1, "slurm": {}, "started": 1.0, "written": 2.0}
    (folder / "run.json").write_text(json.dumps(record | entries))


def test_command_joins_queue_logs_and_runs(campaign):
    """An array of two: element 1 runs, with a run.json; 2 has failed. Its test waits."""
    logs = campaign / "campaign" / "logs"
    record = {"name": "q1_mixed", "job": "41", "array": "1-2", "arguments": [], "needs": [], "time": 5.0}
    (logs / "q1_mixed_41.submitted").write_text(json.dumps(record))
    (logs / "french_42.submitted").write_text(json.dumps(record | {"name": "french", "job": 42, "array": "1"}))
    for task, events in ((1, ["started"]), (2, ["started", "ended"])):
        facts = {"job": "43", "array_job": "41", "task": str(task), "restart": 0, "status": 1, "host": "n1"}
        lines = [json.dumps({"event": name, "time": 6.0 + i, **facts}) for i, name in enumerate(events)]
        (logs / f"q1_mixed_41_{task}.events").write_text("\n".join(lines) + "\n")
    slurm = {"job_id": "43", "array_job_id": "41", "array_task_id": "1"}
    write_run(campaign / "storage" / "logs" / "a_seed_1", state="running", frames=32, slurm=slurm, written=7.0)
    (logs / "q1_mixed_41_2.log").write_text("update 1\nerror: a is not a known key\nsrun: error: exit code 1\n")
    lines = f"41|1|RUNNING|None|2026-11-21T23:26:05|q1_mixed|{campaign}/q1_mixed.sh|{campaign}\n"
    lines += f"42|1|PENDING|Dependency|N/A|french|{campaign}/french.sh|{campaign}\n"
    answer = campaign.parent / "squeue.txt"
    answer.write_text(lines)
    stub_squeue(
        campaign,
        f'case "$SLURM_TIME_FORMAT $*" in "standard --me --array --noheader --states=all "*) /bin/cat {answer};; esac',
    )
    done = status(campaign)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    _, french, first, second, _, note, _, counts = done.stdout.splitlines()
    assert french.split() == ["french", "1", "waiting", "(Dependency)", "42_1"]
    assert first.split() == ["q1_mixed", "1", "running", "32/96", "33%", "0.500", "10", "6s", "41_1", "3"]
    assert second.split() == ["q1_mixed", "2", "failed", "41_2"]
    assert (
        note == "failed: q1_mixed seed 2: exit status 1, error: a is not a known key (campaign/logs/q1_mixed_41_2.log)"
    )
    assert counts == "3 runs: 1 running, 1 waiting, 1 failed"
    assert status(campaign, "--check").returncode == 1
    assert status(campaign, "--check", "french*").returncode == 0
    (campaign / "link").symlink_to("storage/logs")
    twice = status(campaign, "--logs", str(campaign / "storage" / "logs"), str(campaign / "link"))
    assert twice.stdout == done.stdout, "a folder that has two names"
    failed = json.loads(status(campaign, "--json", "--state", "failed").stdout)
    assert [(row["name"], row["seed"], row["log"]) for row in failed["runs"]] == [
        ("q1_mixed", 2, "campaign/logs/q1_mixed_41_2.log")
    ]
    assert failed["squeue"] is True


@pytest.mark.parametrize(
    ("script", "said"), [("echo no contact >&2; exit 1", "no contact"), ("exit 3", "exit status 3")]
)
def test_command_goes_on_where_squeue_fails(campaign, script, said):
    write_run(campaign / "storage" / "logs" / "a_seed_1")
    stub_squeue(campaign, script)
    done = status(campaign)
    assert done.returncode == 0
    assert said in done.stderr
    assert "1 runs: 1 done" in done.stdout


def test_command_names_what_it_cannot_read_and_shows_the_rest(campaign):
    logs = campaign / "storage" / "logs"
    write_run(logs / "good_seed_1")
    write_run(logs / "wrong_seed_1", frames="many")
    write_run(logs / "odd_seed_1", state="paused")
    for name, text in (("torn", '{"state": "runn'), ("empty", ""), ("list", "[]")):
        (logs / name).mkdir()
        (logs / name / "run.json").write_text(text)
    (campaign / "campaign" / "logs" / "x_1.submitted").write_text("{}")
    (campaign / "campaign" / "logs" / "y_2.events").write_text(
        '{"event": "started", "time": 1, "job": "2", "array_job": null, "task": null}\n'
        '{"event": "started", "time": 1, "job": "2", "restart": 1e999}\n{"event": "en'
    )
    done = status(campaign)
    assert done.returncode == 0
    unreadable = [f"{name}/run.json" for name in ("torn", "empty", "list", "wrong_seed_1", "odd_seed_1")]
    for name in (*unreadable, "x_1.submitted"):
        assert sum(name in line for line in done.stderr.splitlines()) == 1, done.stderr
    assert "y_2.events: line 2" in done.stderr
    assert "y_2.events: line 3" in done.stderr
    assert "frames" in next(line for line in done.stderr.splitlines() if "wrong_seed_1" in line)
    assert "2 runs: 1 running, 1 done" in done.stdout


def test_last_error(tmp_path):
    log = tmp_path / "job.log"
    log.write_text(
        "error: old\n" + "x" * 30_000 + "\nTraceback\n  File\ntorch.OutOfMemoryError: 3 GiB\nsrun: error: 1\n"
    )
    assert last_error(log) == "torch.OutOfMemoryError: 3 GiB"
    log.write_text("error: old\n" + "x" * 30_000)
    assert last_error(log) == ""
    assert last_error(tmp_path / "none.log") == ""


def test_storage_root_comes_from_the_environment_or_the_site_file(campaign, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/bin:/bin")
    monkeypatch.setattr("shutil.which", lambda _: None)
    from campaign.traces import storage_logs

    for name in ("site", "environment"):
        (tmp_path / name / "logs_2").mkdir(parents=True)
    assert storage_logs(campaign, []) == [campaign / "storage" / "logs"]
    (campaign / "slurm").mkdir()
    (campaign / "slurm" / "site.sh").write_text(f"echo hello\nexport GLAM_STORAGE={tmp_path / 'site'}\n")
    assert storage_logs(campaign, []) == [tmp_path / "site" / "logs_2"]
    monkeypatch.setenv("GLAM_STORAGE", str(tmp_path / "environment"))
    assert storage_logs(campaign, []) == [tmp_path / "site" / "logs_2"]  # as in a job, which sources the file, too
    (campaign / "slurm" / "site.sh").write_text(f"export GLAM_STORAGE=${{GLAM_STORAGE:-{tmp_path / 'site'}}}\n")
    assert storage_logs(campaign, []) == [tmp_path / "environment" / "logs_2"]
    (campaign / "slurm" / "site.sh").write_text("no-such-command\n")
    problems = []
    assert storage_logs(campaign, problems) == [tmp_path / "environment" / "logs_2"]
    assert len(problems) == 1
    assert "no-such-command: command not found" in problems[0]


def test_a_process_is_known_by_its_number_and_its_start(campaign):
    """Of one number: the process of this test; one that ended before this process began; one that never was."""
    logs, me = campaign / "storage" / "logs", psutil.Process()
    here = {"state": "running", "host": socket.gethostname(), "num_steps": 1000}
    write_run(logs / "alive_seed_1", **here, pid=me.pid, started=me.create_time() + 1)
    write_run(logs / "reused_seed_1", **here, pid=me.pid, started=me.create_time() - 60)
    write_run(logs / "gone_seed_1", **here, pid=2**22 + 1, started=time.time())
    # elsewhere: 32 frames per update at 0.01 a second are 3,200 s, so that 2 hours of silence are no sign
    elsewhere = {"state": "running", "num_steps": 1000, "written": time.time() - 7200, "frames_per_second": 0.01}
    write_run(logs / "slow_seed_1", **elsewhere)
    write_run(logs / "silent_seed_1", **(elsewhere | {"frames_per_second": 1.0}))
    found = json.loads(status(campaign, "--json").stdout)
    assert {row["name"]: row["state"] for row in found["runs"]} == {
        "alive_seed_1": "running", "reused_seed_1": "lost", "gone_seed_1": "lost",
        "slow_seed_1": "running", "silent_seed_1": "lost",
    }  # fmt: skip


def test_hundreds_of_runs_are_quick_and_need_no_torch(campaign):
    for seed in range(400):
        write_run(campaign / "storage" / "logs" / f"run_seed_{seed}")
    code = (
        "import sys, time, pathlib; start = time.process_time(); from campaign.status import main; "
        "main([], pathlib.Path(sys.argv[1])); assert 'torch' not in sys.modules; assert 'hydra' not in sys.modules; "
        "print(time.process_time() - start)"  # not what others take of the processor
    )
    command = [sys.executable, "-c", code, str(campaign)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    *_, counts, seconds = done.stdout.splitlines()
    assert counts == "400 runs: 400 done"
    assert float(seconds) < 1


def status_script(cwd, logs):
    """The rows of `python campaign/status.py`, called from another folder."""
    command = [sys.executable, str(ROOT / "campaign" / "status.py"), "--json", "--logs", str(logs)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)["runs"]


def test_the_script_reads_a_training(symbolic, tmp_path, monkeypatch):
    """3 updates of 32 frames, the logs of each taking 0.3 s, which its present speed counts and log.csv's does not."""
    from experiments.run_log import RunLog
    from experiments.train_symbolic_ppo import train

    write = RunLog.write
    monkeypatch.setattr(RunLog, "write", lambda *arguments: (time.sleep(0.3), write(*arguments)))
    train(make_config([*symbolic, "rl_script_args.symbolic_ppo=true", "rl_script_args.name_experiment=real"]))
    monkeypatch.setenv("PATH", "/nowhere")
    [row] = status_script(tmp_path, tmp_path / "logs")
    assert (row["name"], row["seed"], row["state"]) == ("real T5small", 1, "done")
    assert (row["update"], row["frames"], row["num_steps"], row["seconds_left"]) == (3, 96, 96, None)
    with (Path(row["folder"]) / "log.csv").open() as file:
        trained = float(list(csv.DictReader(file))[-1]["duration"])
    # beside the logs three checkpoints, two of which lie between updates
    assert 96 / (trained + 20) < row["frames_per_second"] < 96 / (trained + 3 * 0.3)


@pytest.mark.slow
def test_the_script_reads_a_training_that_runs_and_is_killed(small, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    overrides = [*small, "rl_script_args.num_steps=3200000"]
    script = str(ROOT / "experiments" / "train_language_agent.py")
    process = subprocess.Popen([sys.executable, script, *overrides], env=script_environment(), stderr=subprocess.PIPE)

    def shown():
        return status_script(tmp_path, tmp_path / "logs")

    try:
        deadline = time.monotonic() + 240
        while not ((tmp_path / "logs").is_dir() and (found := shown()) and found[0]["update"]):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        [row] = found
        assert (row["state"], row["num_steps"]) == ("running", 3_200_000)
        assert row["frames"] == 32 * row["update"]
        assert row["seconds_left"] == pytest.approx((3_200_000 - row["frames"]) / row["frames_per_second"])
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    [row] = shown()
    assert row["state"] == "lost"


def test_watching_shows_the_newest_until_it_is_interrupted(campaign):
    code = (
        "import sys, pathlib; from campaign.status import main; sys.exit(main(sys.argv[2:], pathlib.Path(sys.argv[1])))"
    )
    command = [sys.executable, "-u", "-c", code, str(campaign), "--watch", "0.1"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "no runs\n"
        write_run(campaign / "storage" / "logs" / "new_seed_1")
        while (line := process.stdout.readline()) == "no runs\n":
            pass
        assert line.startswith("run ")
        process.send_signal(signal.SIGINT)
        process.stdout.read()
    assert process.returncode == 0


def test_states_are_those_of_the_option():
    from campaign.status import STATES as OPTIONS

    assert OPTIONS == STATES
