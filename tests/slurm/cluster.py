"""SLURM on this machine: a controller and two "nodes" of eight GPUs that are empty files.

It has its own munge, folders and ports, so that it neither needs nor disturbs a SLURM that runs here already.
"""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
NODES = ("n1", "n2")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue")
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool_%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd_%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd_%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_min_interval=0
MpiDefault=none
SwitchType=switch/none
GresTypes=gpu
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
SlurmdTimeout=10
MessageTimeout=5
{nodes}
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=cpu Nodes=ALL MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=128 RealMemory=1000000 Gres=gpu:8"


def find_program(name: str) -> str | None:
    """The path of a program; daemons lie where only root looks."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin:/sbin")


def missing_programs() -> list[str]:
    """What a cluster needs and this machine has not."""
    return [name for name in PROGRAMS if find_program(name) is None]


class Cluster:
    """A running cluster, `stop` ends it.

    Attributes:
        folder: its configuration, logs and state; short, as a socket lies in it.
        environment: of a user of the cluster, who works with this checkout and the python of the tests.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        configuration = folder / "slurm.conf"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH", "SRUN"))},
            "SLURM_CONF": str(configuration),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'babyai-text'}",
            "OMP_NUM_THREADS": "1",
        }
        ports = _free_ports(1 + len(NODES))
        host = socket.gethostname()
        nodes = [NODE.format(name=name, host=host, port=port) for name, port in zip(NODES, ports[1:], strict=True)]
        configuration.write_text(
            CONFIGURATION.format(
                host=host, folder=folder, user=getpass.getuser(), controller_port=ports[0], nodes="\n".join(nodes)
            )
        )
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
        gpus = {name: [folder / f"gpu_{name}_{i}" for i in range(8)] for name in NODES}
        for name in NODES:
            (folder / f"spool_{name}").mkdir()
            for file in gpus[name]:
                file.touch()
        lines = [f"NodeName={name} Name=gpu File={folder}/gpu_{name}_[0-7]" for name in NODES]
        (folder / "gres.conf").write_text("\n".join(lines) + "\n")
        (folder / "state").mkdir()
        key = folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))

    def start(self) -> None:
        """Starts everything and waits until both nodes are idle."""
        of_munge = {"socket": "socket", "key-file": "key", "log-file": "log", "pid-file": "pid", "seed-file": "seed"}
        options = [f"--{option}={self.folder}/munge.{end}" for option, end in of_munge.items()]
        self._start("munged", "--foreground", "--force", *options)
        socket_file = str(self.folder / "munge.socket")
        wait_until(lambda: subprocess.run(["munge", "-n", "-S", socket_file], capture_output=True).returncode == 0, 10)
        self._start("slurmctld", "-D")
        for node in NODES:
            self.start_node(node)

    def start_node(self, node: str) -> None:
        self._start("slurmd", "-D", "-N", node, name=node)
        wait_until(lambda: self.node_state(node) == "idle", 30)

    def _start(self, program: str, *arguments: str, name: str | None = None) -> None:
        path = find_program(program)
        assert path is not None
        with (self.folder / f"{name or program}.out").open("ab") as output:
            self._daemons[name or program] = subprocess.Popen(
                [path, *arguments],
                env={**self.environment, "GLAM_TEST_NODE": name or ""},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def run(self, *command: str, check: bool = True, timeout: float = 60, **variables: str) -> str:
        """What a command prints, run from the root of the repository."""
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return (done.stdout + done.stderr).strip()

    def node_state(self, node: str) -> str:
        return self.run("sinfo", "-h", "-N", "-p", "gpu", "-n", node, "-o", "%T", check=False)

    def submit(self, *arguments: str, **variables: str) -> str:
        """The id of the job that `sbatch ARGUMENTS` makes."""
        return self.run("sbatch", "--parsable", *arguments, **variables)

    def job(self, job: str) -> dict[str, str]:
        """What the controller knows of a job, or one element of an array (12_1)."""
        lines = self.run("scontrol", "show", "job", "-o", job).splitlines()
        return dict(item.split("=", 1) for item in lines[0].split(" ") if "=" in item)

    def state(self, job: str) -> str:
        return self.job(job)["JobState"]

    def wait_for_state(self, job: str, *states: str, timeout: float = 60) -> str:
        """Until a job is in one of the states; which one."""
        return wait_until(lambda: (s := self.state(job)) in states and s, timeout, lambda: str(self.job(job)))

    def processes(self, node: str | None = None) -> list[int]:
        """The processes of all jobs, or of those on a node."""
        return [pid for pid in self._marked() if self._node_of(pid) in (NODES if node is None else (node,))]

    def kill_node(self, node: str) -> None:
        """What a power cut does: the daemon, its steps and all they have started are gone."""
        daemon = self._daemons.pop(node)
        daemon.kill()
        daemon.wait()
        deadline = time.monotonic() + 10
        while (left := self.processes(node)) and time.monotonic() < deadline:
            for pid in left:
                _kill(pid)

    def stop(self) -> None:
        """Ends the daemons and every process of every job."""
        self.run("scancel", "--quiet", f"--user={getpass.getuser()}", check=False)
        for name in [*NODES, "slurmctld", "munged"]:
            if name in self._daemons:
                self._daemons[name].terminate()
        for daemon in self._daemons.values():
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        deadline = time.monotonic() + 10
        while (left := self._marked()) and time.monotonic() < deadline:
            for pid in left:
                _kill(pid)
            time.sleep(0.1)
        assert not left, f"processes {left} do not end"
        shutil.rmtree(self.folder)

    def _marked(self) -> list[int]:
        """Processes that were started under this cluster, but the tests themselves."""
        mark = f"SLURM_CONF={self.folder}/".encode()
        return [pid for pid in _processes() if pid != os.getpid() and mark in _environment(pid)]

    def _node_of(self, pid: int) -> str | None:
        variables = dict(item.partition("=")[::2] for item in _environment(pid).decode(errors="replace").split("\0"))
        return variables.get("SLURMD_NODENAME") or variables.get("GLAM_TEST_NODE")


def wait_until(condition: Callable[[], object], timeout: float, explain: Callable[[], str] = str) -> str:
    """Until the condition holds; returns its value, or raises with what `explain` says."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value  # type: ignore[return-value]
        time.sleep(0.1)
    raise AssertionError(f"nothing within {timeout:g} s: {explain()}")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # ended meanwhile, or another user's
        return b""


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
