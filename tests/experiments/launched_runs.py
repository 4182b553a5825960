"""Launched training runs that tests disturb: every process of them can be found, by its role."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.experiments.conftest import ROOT, free_port, has_handler, script_environment
from tests.experiments.test_training import paths_of

MARK = "TEST_RUN"  # in the environment of every process of a run
GONE_S = 15  # in which no process of a run may be left after one has died
# the same if the run is still starting: it ends once its imports are over, which take long on shared cores
GONE_WHILE_STARTING_S = 90


@dataclass
class LaunchedRun:
    """`train_language_agent.py`, started by one launcher, or as on several machines by several.

    Attributes:
        launchers: by machine.
    """

    overrides: list[str]
    machines: int = 1
    mark: str = field(default_factory=lambda: secrets.token_hex(8))
    launchers: list["subprocess.Popen[str]"] = field(default_factory=list)

    def start(self, script="train_language_agent.py"):
        args = "lamorel_args.accelerate_args"
        place = [f"{args}.num_machines={self.machines}", f"{args}.main_process_ip=127.0.0.1"]
        place += [f"{args}.main_process_port={free_port()}"] if self.machines > 1 else []
        for machine in range(self.machines):
            command = [sys.executable, "-m", "lamorel_launcher.launch", "--config-path", str(ROOT / "configs")]
            command += ["--config-name", "base", f"rl_script_args.path={ROOT / 'experiments' / script}"]
            command += [*self.overrides, *place, f"{args}.machine_rank={machine}"]
            environment = {**script_environment(), MARK: self.mark}
            self.launchers.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
        return self

    def processes(self):
        """Process id -> its environment, of everything that runs; launchers have no RANK."""
        return marked(self.mark)

    def rank(self, rank):
        """The process id of a rank (its children have its environment, and higher ids)."""
        return min(pid for pid, env in self.processes().items() if env.get("RANK") == str(rank))

    def on_machine(self, machine):
        """All process ids of a machine, its launcher first: it must not live to tell what becomes of the others."""
        ranks = [pid for pid, env in self.processes().items() if env.get("GROUP_RANK") == str(machine)]
        return [self.launchers[machine].pid, *ranks]

    def send_to_all(self, number):
        """As SLURM does to a job step."""
        send(self.processes(), number)

    def wait_for_update(self, update):
        """Until an update is over."""
        self._wait(lambda: update_of(self.overrides) >= update)

    def wait_for_handler(self):
        """Until the script of rank 0 handles signals."""
        self._wait(lambda: any(env.get("RANK") == "0" for env in self.processes().values()))
        self._wait(lambda: has_handler(self.rank(0)))

    def _wait(self, condition, seconds=240):
        """Until it holds; fails where the run ends before."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert all(launcher.poll() is None for launcher in self.launchers), self.end()
            assert time.monotonic() < deadline, "it did not come to that"
            time.sleep(0.01)

    def end(self, seconds=120):
        """Exit status and stderr of every launcher, and the seconds until the last process was gone."""
        start = time.monotonic()
        while left := self.processes():
            assert time.monotonic() < start + seconds, left
            if all(launcher.poll() is not None for launcher in self.launchers) and not self.processes():
                break
            time.sleep(0.02)
        took = time.monotonic() - start
        ended = [(launcher.wait(), launcher.stderr.read()) for launcher in self.launchers]
        return [status for status, _ in ended], [errors for _, errors in ended], took

    def kill(self):
        send(self.processes(), signal.SIGKILL)


def send(pids, number):
    for pid in list(pids):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def update_of(overrides):
    """The last update that a run has finished; -1 before it is started."""
    try:
        return json.loads((paths_of(overrides).logs / "run.json").read_text()).get("update", -1)
    except FileNotFoundError:
        return -1


def marked(mark):
    """Process id -> its environment, of everything that was started with this MARK."""
    return {pid: env for pid, env in _environments() if env.get(MARK) == mark}


def _environments():
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if "\nState:\tZ" in (folder / "status").read_text():
                continue
            entries = (folder / "environ").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        yield int(folder.name), dict(entry.decode(errors="replace").split("=", 1) for entry in entries if b"=" in entry)
