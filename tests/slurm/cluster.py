"""SLURM on this machine: a controller and two "nodes" of eight GPUs that are empty files.

It has its own munge, folders and ports, so that it neither needs nor disturbs a SLURM that runs here already.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.experiments.conftest import free_port

REPOSITORY = Path(__file__).resolve().parents[2]
ROOMS = ("babyai-text", "campaign", "configs", "experiments", "lamorel", "lamorel_launcher", "slurm")
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
FirstJobId={first_job}
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
SlurmdTimeout=15
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
        checkout: a copy of the project, in which its users work: jobs write their logs there.
        environment: of a user, who has the python of the tests.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkout = folder / "checkout"
        for room in ROOMS:
            ignored = shutil.ignore_patterns("site.sh", "*.log", "*.events", "*.submitted")
            shutil.copytree(REPOSITORY / room, self.checkout / room, ignore=ignored)
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        configuration = folder / "slurm.conf"
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH", "SRUN", "GLAM_"))},
            "SLURM_CONF": str(configuration),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{self.checkout}:{self.checkout / 'babyai-text'}",
            "OMP_NUM_THREADS": "1",
        }
        ports = _free_ports(1 + len(NODES))
        host = socket.gethostname()
        nodes = [NODE.format(name=name, host=host, port=port) for name, port in zip(NODES, ports[1:], strict=True)]
        configuration.write_text(
            CONFIGURATION.format(
                host=host,
                folder=folder,
                user=getpass.getuser(),
                controller_port=ports[0],
                first_job=ports[0],  # jobs' ports follow from their ids: others' tests may run here
                nodes="\n".join(nodes),
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
        wait_until(lambda: subprocess.run(["munge", "-n", "-S", socket_file], capture_output=True).returncode == 0, 60)
        self._start("slurmctld", "-D")
        for node in NODES:
            self.start_node(node)

    def start_node(self, node: str) -> None:
        self._start("slurmd", "-D", "-N", node, name=node)
        # with a star the controller has not heard of it yet
        wait_until(
            lambda: re.fullmatch(r"idle|mixed|completing", self.node_state(node)), 120, lambda: self.node_state(node)
        )

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
        """What a command prints, run from the root of the checkout."""
        done = subprocess.run(
            command,
            cwd=self.checkout,
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

    def wait_for_state(self, job: str, *states: str, timeout: float = 180) -> str:
        """Until a job is in one of the states; which one."""
        return wait_until(lambda: (s := self.state(job)) in states and s, timeout, lambda: str(self.job(job)))

    def begin_now(self, job: str) -> None:
        """Begin a requeued job, which by itself SLURM leaves for two minutes.

        Only when SLURM says so, as before that a node may still have something to say of the job's last start; and not
        within the second of that, as nodes refuse a start that is not later than the requeue ("credential revoked").
        """
        wait_until(lambda: self.job(job)["Reason"] == "BeginTime", 120, lambda: str(self.job(job)))
        time.sleep(2)
        self.run("scontrol", "update", f"JobId={job}", "StartTime=now")

    def processes(self, job: str) -> list[int]:
        """The processes of the steps of an array's element (12_1), on all nodes."""
        array, task = job.split("_")
        wanted = {"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": task}.items()
        return [pid for pid, found in self._marked().items() if "SLURM_STEP_ID" in found and wanted <= found.items()]

    def controller_log(self) -> str:
        """Its last lines, for messages."""
        return "\n".join((self.folder / "slurmctld.log").read_text().splitlines()[-30:])

    def kill_node(self, node: str) -> None:
        """What a power cut does: the daemon, its steps and all they have started are gone."""
        daemon = self._daemons.pop(node)
        daemon.kill()
        daemon.wait()
        names = ("SLURMD_NODENAME", "GLAM_TEST_NODE")  # of what SLURM starts, and of its own daemons
        _kill_all(lambda: [pid for pid, found in self._marked().items() if node in map(found.get, names)])

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
        _kill_all(self._marked)
        shutil.rmtree(self.folder)

    def _marked(self) -> dict[int, dict[str, str]]:
        """The environments of the processes that were started under this cluster, but the tests themselves."""
        conf = str(self.folder / "slurm.conf")
        found = {pid: _environment(pid) for pid in _processes() if pid != os.getpid()}
        return {pid: variables for pid, variables in found.items() if variables.get("SLURM_CONF") == conf}


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
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return list(ports)


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _environment(pid: int) -> dict[str, str]:
    """What a process was started with, empty where it cannot be read."""
    try:
        text = Path(f"/proc/{pid}/environ").read_text(errors="replace")
    except OSError:  # ended meanwhile, or another user's
        return {}
    return {name: value for name, _, value in (entry.partition("=") for entry in text.split("\0"))}


def _kill_all(find: Callable[[], Iterable[int]]) -> None:
    """Until none is found: what is killed may have started another meanwhile."""
    deadline = time.monotonic() + 60
    while left := list(find()):
        assert time.monotonic() < deadline, f"processes {left} do not end"
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
