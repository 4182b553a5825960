#!/usr/bin/env python3
"""Starts a script over all nodes of a SLURM job, by lamorel_launcher; srun runs it once on every node.

    srun slurm/launch_lamorel.py experiments/train_language_agent.py experiment=q1_mixed [overrides]

It finds out how many LLM processes the job has GPUs for, where they meet, and which node this is. What is given as an
override wins. README.md in this folder says more.
"""

from __future__ import annotations

import os
import shlex
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from allocation import LaunchError, Step, check_port, first_address, read_step

ROOT = Path(__file__).resolve().parents[1]
SETUP_KEY = "lamorel_args.distributed_setup_args"
ARGS_KEY = "lamorel_args.accelerate_args"
N_LLM_KEY = f"{SETUP_KEY}.n_llm_processes"


@dataclass(frozen=True)
class Wanted:
    """What the composed configuration says of the LLM.

    Attributes:
        given: n_llm_processes is among the overrides of the command line.
        address, port: to meet at; None leaves the choice to this script.
    """

    n_llm_processes: int
    given: bool
    use_gpu: bool
    model_parallelism_size: int
    address: str | None = None
    port: int | None = None


def machine_overrides(step: Step, overrides: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """The group of configs/machine to use: what is given, else GLAM_MACHINE, else by whether the job has GPUs."""
    if any(override.startswith("machine=") for override in overrides):
        return []
    return [f"machine={environment.get('GLAM_MACHINE') or ('slurm' if step.gpus_on_node else 'cpu')}"]


def count_llm_processes(step: Step, wanted: Wanted) -> int:
    """LLM processes of the whole run: one per `model_parallelism_size` GPUs, or one per node without GPUs.

    Raises:
        LaunchError: the step cannot have them.
    """
    if max(step.tasks_per_node) > 1:
        raise LaunchError(
            f"{max(step.tasks_per_node)} tasks on a node: one launcher per node starts all processes of the node, ask "
            "for --ntasks-per-node=1"
        )
    if wanted.n_llm_processes == 0:
        if step.nodes > 1:
            raise LaunchError(f"{step.nodes} nodes, but {N_LLM_KEY}=0 has work for one: ask for --nodes=1")
        return 0
    if wanted.use_gpu and step.gpus_on_node == 0:
        raise LaunchError(
            "the configuration wants GPUs and the job has none: ask for --gres=gpu:N, or set GLAM_MACHINE=cpu"
        )
    if wanted.given:
        return wanted.n_llm_processes
    if not wanted.use_gpu:
        return step.nodes
    each, rest = divmod(step.gpus_on_node, wanted.model_parallelism_size)
    if rest or not each:
        raise LaunchError(
            f"{step.gpus_on_node} GPUs per node cannot be divided among LLM processes of "
            f"{wanted.model_parallelism_size} GPUs (model_parallelism_size): ask for a multiple of "
            f"{wanted.model_parallelism_size} per node, or give {N_LLM_KEY}"
        )
    return each * step.nodes


def launch_command(
    step: Step, script: str, overrides: Sequence[str], *, n_llm_processes: int, meeting: tuple[str, int] | None
) -> list[str]:
    """The command of this node. Overrides that were given come last, so that they win.

    Args:
        meeting: address and port on the first node; None on one node, where the launcher finds a free port by itself.
    """
    found = [f"rl_script_args.path={script}", f"{N_LLM_KEY}={n_llm_processes}"]
    if meeting is not None:
        found += [
            f"{ARGS_KEY}.num_machines={step.nodes}",
            f"{ARGS_KEY}.machine_rank={step.node}",
            f"{ARGS_KEY}.main_process_ip={meeting[0]}",
            f"{ARGS_KEY}.main_process_port={meeting[1]}",
        ]
    launcher = [sys.executable, "-m", "lamorel_launcher.launch", "--config-path", str(ROOT / "configs")]
    return [*launcher, "--config-name", "base", *found, *overrides]


def read_wanted(script: str, overrides: Sequence[str]) -> Wanted:
    """Composes the configuration.

    Raises:
        LaunchError: a key, a file or a value is wrong.
    """
    from experiments.hydra_script import explain_override
    from lamorel.config import LamorelConfigError
    from lamorel_launcher import settings

    base = ["--config-path", str(ROOT / "configs"), "--config-name", "base"]
    try:
        lamorel = settings.read_settings([*base, f"rl_script_args.path={script}", *overrides]).lamorel
    except (settings.LaunchError, LamorelConfigError) as error:
        cause = error.__cause__
        if isinstance(cause, HydraException | OmegaConfBaseException):
            raise LaunchError(explain_override(cause)) from error
        raise LaunchError(str(error)) from error
    return Wanted(
        n_llm_processes=lamorel.distributed_setup_args.n_llm_processes,
        given=any(override.lstrip("+").startswith(f"{N_LLM_KEY}=") for override in overrides),
        use_gpu=lamorel.llm_args.parallelism.use_gpu,
        model_parallelism_size=lamorel.llm_args.parallelism.model_parallelism_size,
        address=lamorel.accelerate_args.main_process_ip,
        port=lamorel.accelerate_args.main_process_port,
    )


def describe(step: Step, wanted: Wanted, n_llm_processes: int, meeting: tuple[str, int] | None) -> str:
    """What is started, in one line."""
    size = wanted.model_parallelism_size
    devices = f"{size} GPU(s) each, {step.gpus_on_node} per node" if wanted.use_gpu else "CPUs"
    meet = f", they meet at {meeting[0]}:{meeting[1]}" if meeting else ""
    return f"job {step.name} on {step.node_list}: 1 RL process, {n_llm_processes} LLM process(es) on {devices}{meet}"


def check_gpus(step: Step) -> None:
    """Raises LaunchError where torch does not see the GPUs that this node was given."""
    import torch

    if torch.cuda.device_count() < step.gpus_on_node:
        raise LaunchError(
            f"{socket.gethostname()}: SLURM gave {step.gpus_on_node} GPU(s) and torch sees {torch.cuda.device_count()} "
            f"(CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')}): install torch for this CUDA "
            "driver, or set GLAM_MACHINE=cpu to run on the CPUs",
            everywhere=False,
        )


def prepare(arguments: Sequence[str]) -> list[str]:
    """Checks everything and returns the command of this node."""
    if not arguments or "=" in arguments[0]:
        raise LaunchError("launch_lamorel.py SCRIPT [overrides]: the script is missing")
    script, given = arguments[0], arguments[1:]
    step = read_step(os.environ)
    overrides = [*machine_overrides(step, given, os.environ), *given]
    wanted = read_wanted(script, overrides)
    n_llm_processes = count_llm_processes(step, wanted)
    if wanted.use_gpu:
        check_gpus(step)
    meeting = None
    if step.nodes > 1:
        meeting = wanted.address or first_address(step.node_list), wanted.port or step.port
        if step.node == 0:
            check_port(meeting[1], f"give {ARGS_KEY}.main_process_port")
    command = launch_command(step, script, overrides, n_llm_processes=n_llm_processes, meeting=meeting)
    if step.node == 0:
        print(describe(step, wanted, n_llm_processes, meeting), shlex.join(command), sep="\n", flush=True)
    return command


def main() -> None:
    try:
        command = prepare(sys.argv[1:])
    except LaunchError as error:
        if not error.everywhere or os.environ.get("SLURM_NODEID", "0") == "0":
            print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
