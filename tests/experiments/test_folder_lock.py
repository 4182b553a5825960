"""One process at a time in a folder: two real processes, a kill, and file systems without locks."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from experiments import folder_lock
from experiments.checkpoint import CheckpointStore
from experiments.errors import UserError
from experiments.folder_lock import FolderLock
from tests.experiments.conftest import ROOT, run_script, script_environment
from tests.experiments.test_launched import LLM_PROCESSES, launch
from tests.experiments.test_training import paths_of

HOLD = """
import fcntl, sys, time
from pathlib import Path
from experiments import folder_lock
if sys.argv[2] == "lease":
    def none(*_):
        raise OSError(37, "No locks available")
    fcntl.flock = none
    folder_lock.BEAT = 0.1
with folder_lock.FolderLock(Path(sys.argv[1]), "another folder"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def hold():
    """Starts a process that holds a folder's lock until the test is over."""
    processes = []

    def start(folder, kind="flock", **environment):
        command = [sys.executable, "-c", HOLD, str(folder), kind]
        process = subprocess.Popen(
            command, cwd=ROOT, env={**script_environment(), **environment}, stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_a_second_run_refuses_and_names_the_first(small, tmp_path, hold):
    """By the script, which neither loads the model nor writes anything; a holder that was killed does not block."""
    paths = paths_of(small)
    holder = hold(paths.models, SLURM_JOB_ID="4711")
    run = run_script("train_language_agent.py", small, tmp_path)
    assert run.returncode == 2
    [line] = run.stderr.splitlines()
    who = f"process {holder.pid} on {os.uname().nodename}, SLURM job 4711, since {time.strftime('%Y-')}"
    assert line.startswith(f"error: {paths.models} is in use by another run ({who}")
    assert line.endswith("): wait for it or stop it, or give another name_experiment")
    assert list(paths.logs.iterdir()) == []
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with FolderLock(paths.models, ""):
        pass


@pytest.mark.slow
def test_a_second_launched_run_refuses(small, tmp_path, hold):
    holder = hold(paths_of(small).models)
    run = launch("train_language_agent.py", [*small, LLM_PROCESSES], tmp_path)
    assert run.returncode == 2
    assert run.stderr.count(f"is in use by another run (process {holder.pid} on ") == 1
    assert "Traceback" not in run.stderr


@pytest.fixture
def no_locks(monkeypatch):
    """A file system without locks."""

    def none(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    monkeypatch.setattr(folder_lock, "BEAT", 0.1)


def test_a_lease_where_there_are_no_locks(tmp_path, hold, no_locks, monkeypatch, caplog):
    holder = hold(tmp_path, "lease")
    with pytest.raises(UserError, match=rf"in use by another run \(process {holder.pid} on .*since.*\): wait"):
        FolderLock(tmp_path, "another").__enter__()
    assert "its file system has no locks (No locks available)" in caplog.text
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    start = time.monotonic()
    silence = folder_lock.SILENCE
    monkeypatch.setattr(folder_lock, "SILENCE", 1.0)  # nobody is there who might be late
    with FolderLock(tmp_path, "another") as lock:
        assert time.monotonic() - start > 1.0  # it has looked for a sign of life
        monkeypatch.setattr(folder_lock, "SILENCE", silence)
        lock.check()
        with pytest.raises(UserError, match=f"process {os.getpid()} "):
            FolderLock(tmp_path, "another").__enter__()
        (tmp_path / ".lease").write_text("taken by another one that took this one for dead")
        with pytest.raises(OSError, match="Stale file handle"):
            lock.check()
        store = CheckpointStore(tmp_path)
        store.lock, begun = lock, store.next / "begun by the other one"
        begun.mkdir(parents=True)
        with pytest.raises(UserError, match=r"/.next \(Stale file handle"):
            store.save({"update": 1}, {}, lambda folder: None)
        assert begun.exists()
        shutil.rmtree(store.next)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lease", ".lock"]  # the other's stays
    (tmp_path / ".lease").unlink()
    with FolderLock(tmp_path, "another"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_folder_that_was_replaced_is_not_the_locked_one(tmp_path):
    folder = tmp_path / "models"
    with FolderLock(folder, "another") as lock:
        lock.check()
        folder.rename(tmp_path / "away")
        with pytest.raises(FileNotFoundError):
            lock.check()
        with FolderLock(folder, "another"), pytest.raises(OSError, match="Stale file handle"):
            lock.check()


def test_the_lock_of_a_part_is_removed_and_who_has_opened_it_before_takes_the_next(tmp_path, monkeypatch):
    """Between its opening and its locking the holder leaves, and a third one comes."""
    first, third = FolderLock(tmp_path, "another", "part"), FolderLock(tmp_path, "another", "part")
    flock, turns = fcntl.flock, []

    def late(file, operation):
        if not turns:
            turns.append("first leaves, third comes")
            first.__exit__()
            third.__enter__()
        flock(file, operation)

    first.__enter__()
    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(UserError, match=f"part in {tmp_path} is in use by another run"):
        FolderLock(tmp_path, "another", "part").__enter__()
    third.__exit__()
    assert list(tmp_path.iterdir()) == []
