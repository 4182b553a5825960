"""What SLURM says to a task of a job step: its place, and the address of the first node. Standard library only."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

FIRST_PORT, PORTS = 15000, 15000  # below the ports that Linux gives out by itself


class LaunchError(ValueError):
    """The job cannot run what was asked; the text says what to change.

    Args:
        everywhere: every task of the step finds the same, so that one of them has to say it.
    """

    def __init__(self, text: str, *, everywhere: bool = True) -> None:
        super().__init__(text)
        self.everywhere = everywhere


@dataclass(frozen=True)
class Step:
    """One task's view of its job step.

    Attributes:
        job: number of the job, in an array of the element.
        rank: of this task in the step; local_rank on its node.
        node: index of this node in the step.
        tasks_per_node: one entry per node.
        node_list: as SLURM writes it (n[1-2]).
        gpus_on_node: allocated on this node.
        name: for people, with array and element.
    """

    job: int
    name: str
    rank: int
    local_rank: int
    node: int
    tasks_per_node: tuple[int, ...]
    node_list: str
    gpus_on_node: int

    @property
    def nodes(self) -> int:
        return len(self.tasks_per_node)

    @property
    def tasks(self) -> int:
        return sum(self.tasks_per_node)

    @property
    def port(self) -> int:
        """Of its own for each of 15,000 successive jobs: two may share a node."""
        return FIRST_PORT + self.job % PORTS


def read_step(environment: Mapping[str, str]) -> Step:
    """The step that this process is a task of.

    Raises:
        LaunchError: it is none, or its nodes have different numbers of GPUs.
    """
    if "SLURM_JOB_ID" not in environment:
        raise LaunchError("not in a SLURM job: submit a script of campaign/, or start without this launcher")
    if "SLURM_STEP_ID" not in environment:
        raise LaunchError("in a SLURM job, but not started by srun: put srun in front")
    job, array = environment["SLURM_JOB_ID"], environment.get("SLURM_ARRAY_JOB_ID")
    step = Step(
        job=int(job),
        name=f"{array}_{environment['SLURM_ARRAY_TASK_ID']} ({job})" if array else job,
        rank=int(environment["SLURM_PROCID"]),
        local_rank=int(environment["SLURM_LOCALID"]),
        node=int(environment["SLURM_NODEID"]),
        tasks_per_node=expand_counts(environment["SLURM_STEP_TASKS_PER_NODE"]),
        node_list=environment["SLURM_STEP_NODELIST"],
        gpus_on_node=int(environment.get("SLURM_GPUS_ON_NODE") or 0),
    )
    # SLURM_GPUS is what --gpus asked for in total, maybe with a type (a100:8); SLURM may spread them unevenly
    total = environment.get("SLURM_GPUS", "").rpartition(":")[2]
    if total.isdigit() and int(total) != step.gpus_on_node * step.nodes:
        raise LaunchError(
            f"{total} GPUs on {step.nodes} nodes, {step.gpus_on_node} of them on node {step.node}: ask for the same "
            "number on every node, with --gpus-per-node or --gres in place of --gpus"
        )
    return step


def expand_counts(counts: str) -> tuple[int, ...]:
    """SLURM's short form, one number per node: `2(x3),1` is 2, 2, 2, 1."""
    found: list[int] = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", counts):
        found += [int(count)] * int(times or 1)
    return tuple(found)


def first_address(node_list: str) -> str:
    """The address by which SLURM itself reaches the first of the nodes; a node's name need not be one."""
    host = _scontrol("hostnames", node_list).split()[0]
    found = re.search(r"\bNodeAddr=(\S+)", _scontrol("node", host))
    return found[1] if found else host


def check_port(port: int, remedy: str) -> None:
    """Raises LaunchError where another process of this node listens on the port."""
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # of a run that has just ended
            probe.bind(("", port))  # without listening: other tasks of the step may be knocking already
    except OSError as error:
        raise LaunchError(
            f"port {port} of {socket.gethostname()} cannot be used ({error.strerror}): {remedy}", everywhere=False
        ) from error


def _scontrol(*words: str) -> str:
    done = subprocess.run(["scontrol", "show", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise LaunchError(f"scontrol show {' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
