"""slurm/environment.sh: jobs that sleep or end, on a cluster."""

import json
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, wait_until

pytestmark = pytest.mark.slurm
# a script with the usual lines, whose work is a line of bash on each of two nodes
SCRIPT = """#!/bin/bash
#SBATCH --array=1-2 --nodes=2 --ntasks-per-node=1 --cpus-per-task=3 --requeue --open-mode=append
. slurm/environment.sh
srun bash -c {work} "$SLURM_ARRAY_TASK_ID" "$@"
"""
SLEEP = "'trap \"exit 75\" USR1; echo begins; while :; do sleep 0.1; done'"


def write(folder: Path, work: str) -> Path:
    path = folder / "job.sh"
    path.write_text(SCRIPT.replace("{work}", work))
    return path


def submit(cluster: Cluster, script: Path, *options: str, arguments: tuple[str, ...] = ()) -> str:
    """The id of the array."""
    output = script.with_name("%x_%A_%a.log")
    return cluster.submit(f"--job-name={script.parent.name}", f"--output={output}", *options, str(script), *arguments)


def log(script: Path, array: str, task: int = 1) -> str:
    path = script.with_name(f"{script.parent.name}_{array}_{task}.log")
    return path.read_text() if path.exists() else ""


def events(cluster: Cluster, script: Path, array: str, task: int = 1) -> list[dict]:
    path = cluster.checkout / "campaign" / "logs" / f"{script.parent.name}_{array}_{task}.events"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_job_that_ends_well(cluster, tmp_path):
    work = """'echo $0 $1 on $SLURMD_NODENAME with $SLURM_CPUS_PER_TASK cpus, $SITE, $ACTIVE'"""
    script = write(tmp_path, work)
    site = tmp_path / "site.sh"
    site.write_text("export SITE=site\nglam_activate() { export ACTIVE=active; }\n")
    argument = 'a="b c\\d"'
    array = submit(cluster, script, f"--export=ALL,GLAM_SITE={site}", arguments=(argument,))
    for task in (1, 2):
        cluster.wait_for_state(f"{array}_{task}", "COMPLETED")
        for node in ("n1", "n2"):
            assert f"{task} {argument} on {node} with 3 cpus, site, active\n" in log(script, array, task)
        started, ended = events(cluster, script, array, task)
        assert (started["event"], started["status"], started["restart"]) == ("started", None, 0)
        assert (ended["event"], ended["status"]) == ("ended", 0)
        for event in (started, ended):
            assert (event["array_job"], event["task"], event["host"]) == (array, str(task), "n1")
            assert event["arguments"] == [argument]


def test_one_stopped_element_of_an_array_is_requeued(cluster, tmp_path):
    """The last element: its own job id is that of the whole array."""
    script = write(tmp_path, SLEEP)
    array = submit(cluster, script)
    dependent = cluster.submit(f"--dependency=aftercorr:{array}", "--array=1-2", "--output=/dev/null", "--wrap=true")
    both_begin(script, array)
    cluster.run("scancel", "--signal=USR1", f"{array}_2")
    cluster.wait_for_state(f"{array}_2", "PENDING")
    assert cluster.job(f"{array}_2")["Restarts"] == "1"
    assert [event["event"] for event in events(cluster, script, array, 2)] == ["started", "requeued"]
    assert events(cluster, script, array, 2)[-1]["status"] == 75
    assert cluster.state(f"{array}_1") == "RUNNING"
    assert cluster.job(f"{array}_1")["Restarts"] == "0"
    assert cluster.state(f"{dependent}_2") == "PENDING"

    cluster.begin_now(f"{array}_2")
    wait_until(lambda: log(script, array, 2).count("begins") == 4, 120)
    again = events(cluster, script, array, 2)[-1]
    assert (again["event"], again["restart"]) == ("started", 1)
    cluster.run("scancel", array)
    for task in (1, 2):
        cluster.wait_for_state(f"{array}_{task}", "CANCELLED")
    cluster.run("scancel", dependent)


def both_begin(script: Path, array: str) -> None:
    """Until all tasks of both elements listen to signals."""
    wait_until(
        lambda: all(log(script, array, task).count("begins") == 2 for task in (1, 2)), 120, lambda: log(script, array)
    )


@pytest.mark.parametrize("signal", ["USR1", "TERM"])
def test_a_signal_to_the_whole_job_does_not_end_the_shell_first(cluster, tmp_path, signal):
    script = write(tmp_path, SLEEP)
    array = submit(cluster, script)
    both_begin(script, array)
    cluster.run("scancel", "--full", f"--signal={signal}", array)
    for task in (1, 2):
        cluster.wait_for_state(f"{array}_{task}", "PENDING" if signal == "USR1" else "FAILED")
        # srun itself ends the tasks on SIGTERM
        assert events(cluster, script, array, task)[-1]["status"] in ((75,) if signal == "USR1" else (137, 143))
    cluster.run("scancel", array)


def test_scancel_does_not_requeue(cluster, tmp_path):
    script = write(tmp_path, SLEEP.replace("USR1", "TERM"))  # a run that stops by SIGTERM, with 75
    array = submit(cluster, script)
    both_begin(script, array)
    cluster.run("scancel", array)
    for task in (1, 2):
        cluster.wait_for_state(f"{array}_{task}", "CANCELLED")
        wait_until(lambda task=task: events(cluster, script, array, task)[-1]["event"] == "ended", 60)
        assert cluster.job(f"{array}_{task}")["Restarts"] == "0"


def test_the_signal_before_a_time_limit_requeues(cluster, tmp_path):
    script = write(tmp_path, SLEEP)
    # SLURM is late by up to a minute, or early by half of one: the tasks have to listen by then
    array = submit(cluster, script, "--array=1", "--time=2", "--signal=USR1@60")
    wait_until(lambda: cluster.job(f"{array}_1")["Restarts"] == "1", 240)
    assert [event["event"] for event in events(cluster, script, array)] == ["started", "requeued"]
    cluster.run("scancel", array)


@pytest.mark.parametrize(
    ("work", "status"),
    [
        ("'exit $((3 * SLURM_PROCID))'", 3),
        ("'trap \"exit 75\" TERM; if [ $SLURM_PROCID = 1 ]; then exit 2; fi; sleep 3'", 2),  # nobody else is stopped
    ],
)
def test_other_ends_are_failures(cluster, tmp_path, work, status):
    script = write(tmp_path, work)
    array = submit(cluster, script, "--array=1")
    cluster.wait_for_state(f"{array}_1", "FAILED")
    assert cluster.job(f"{array}_1")["ExitCode"] == f"{status}:0"
    assert events(cluster, script, array)[-1]["status"] == status


def test_a_folder_that_is_not_the_repository_fails(cluster, tmp_path):
    script = write(tmp_path, "''")
    script.write_text(script.read_text().replace("bash -c ''", "slurm/launch_lamorel.py"))
    array = submit(cluster, script, "--array=1", "--chdir=/")
    cluster.wait_for_state(f"{array}_1", "FAILED")
    assert "slurm/environment.sh: No such file" in log(script, array)


def test_a_python_without_the_project_is_named(cluster, tmp_path):
    script = write(tmp_path, "'true'")
    site = tmp_path / "site.sh"
    site.write_text("glam_activate() { export PATH=/usr/bin:/bin PYTHONPATH=; }\n")
    array = submit(cluster, script, "--array=1", f"--export=ALL,GLAM_SITE={site}")
    cluster.wait_for_state(f"{array}_1", "FAILED")
    assert "error: python3 (/usr/bin/python3) cannot run the project" in log(script, array)
    assert f"glam_activate of {site}" in log(script, array)


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "there is no such file"), ("if\n", "fails, exit status"), ("export GLAM_STORAGE=''\n", "storage is unset")],
)
def test_the_site_file(cluster, tmp_path, text, message):
    """Absent where GLAM_SITE says, or broken: nothing is written elsewhere. An empty storage root is none."""
    script = write(tmp_path, "'echo storage is ${GLAM_STORAGE-unset}'")
    site = tmp_path / "site.sh"
    if text is not None:
        site.write_text(text)
    array = submit(cluster, script, "--array=1", f"--export=ALL,GLAM_SITE={site}")
    assert cluster.wait_for_state(f"{array}_1", "FAILED", "COMPLETED") == (
        "FAILED" if "unset" not in message else "COMPLETED"
    )
    assert message in log(script, array)


def test_an_array_is_asked_for(cluster, tmp_path):
    script = write(tmp_path, "'true'")
    script.write_text(script.read_text().replace("--array=1-2", ""))
    job = cluster.submit(f"--job-name={tmp_path.name}", f"--output={tmp_path}/log", str(script))
    cluster.wait_for_state(job, "FAILED")
    assert (
        "error: " + tmp_path.name + " runs a seed per array task: submit it with --array=1-2"
        in (tmp_path / "log").read_text()
    )
