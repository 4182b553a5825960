#!/usr/bin/env python3
"""Starts a script that uses accelerate; srun runs it once for every process.

    srun slurm/launch_accelerate.py experiments/clm_behavioral-cloning.py --data_dir ... [options]

One task per GPU, or on CPUs any number of tasks. It hands SLURM's numbers to torch.distributed. README.md in this
folder says more.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from allocation import LaunchError, Step, check_port, first_address, read_step


def process_environment(step: Step, environment: Mapping[str, str], address: str) -> dict[str, str]:
    """What torchrun would put into the environment of this task's process, and torch's threads."""
    found = {
        "RANK": str(step.rank),
        "LOCAL_RANK": str(step.local_rank),
        "WORLD_SIZE": str(step.tasks),
        "LOCAL_WORLD_SIZE": str(step.tasks_per_node[step.node]),
        "GROUP_RANK": str(step.node),
        "MASTER_ADDR": address,
        "MASTER_PORT": str(step.port),
    }
    if not uses_gpus(step, environment):
        found["ACCELERATE_USE_CPU"] = "true"  # without it accelerate leaves CPU processes each in a world of its own
    if "OMP_NUM_THREADS" not in environment:
        found["OMP_NUM_THREADS"] = environment.get("SLURM_CPUS_PER_TASK", "1")
    return found


def uses_gpus(step: Step, environment: Mapping[str, str]) -> bool:
    """Whether the processes are to compute on GPUs: the job has some, and GLAM_MACHINE does not say cpu."""
    return step.gpus_on_node > 0 and environment.get("GLAM_MACHINE") != "cpu"


def check_gpus(step: Step, visible: int) -> None:
    """Every process of a node takes the GPU of its local rank.

    Args:
        visible: GPUs that torch sees in this task.

    Raises:
        LaunchError: there are more or fewer processes than GPUs, or torch does not see them.
    """
    tasks = step.tasks_per_node[step.node]
    if tasks != step.gpus_on_node:
        raise LaunchError(
            f"{tasks} task(s) and {step.gpus_on_node} GPU(s) on a node: ask for one task per GPU, "
            f"--ntasks-per-node={step.gpus_on_node}"
        )
    if visible < tasks:
        raise LaunchError(
            f"task {step.rank} sees {visible} of the {step.gpus_on_node} GPUs of its node "
            f"(CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')}): it has to see all (--gres in "
            "place of --gpus-per-task, no --gpu-bind) with a torch for this CUDA driver; GLAM_MACHINE=cpu is for CPUs",
            everywhere=False,
        )


def prepare(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Checks everything; returns the command of this task and what it adds to the environment."""
    if not arguments or not Path(arguments[0]).is_file():
        raise LaunchError(f"launch_accelerate.py SCRIPT [options]: there is no script {' '.join(arguments[:1])}")
    step = read_step(os.environ)
    if uses_gpus(step, os.environ):
        import torch

        check_gpus(step, torch.cuda.device_count())
    added = process_environment(step, os.environ, first_address(step.node_list))
    if step.rank == 0:
        check_port(step.port, "another job uses it, submit once more")
        devices = f"{step.gpus_on_node} GPU(s) per node" if uses_gpus(step, os.environ) else "CPUs"
        print(
            f"job {step.name} on {step.node_list}: {step.tasks} process(es) on {devices}, they meet at "
            f"{added['MASTER_ADDR']}:{step.port}\n{shlex.join(arguments)}",
            flush=True,
        )
    return [sys.executable, *arguments], added


def main() -> None:
    try:
        command, added = prepare(sys.argv[1:])
    except LaunchError as error:
        if not error.everywhere or os.environ.get("SLURM_PROCID", "0") == "0":
            print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    os.execve(command[0], command, {**os.environ, **added})


if __name__ == "__main__":
    main()
