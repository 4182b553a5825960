"""Which ranks run on which machine, and what each of them finds in its environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from lamorel.config import LamorelConfig
from lamorel.distributed.gpus import gpus_of_llm_processes
from lamorel.distributed.launched import LAUNCHER_VARIABLE, TIMEOUT_VARIABLE, World
from lamorel.distributed.network import choose_interface


@dataclass(frozen=True)
class Address:
    """Where the store of the run listens."""

    host: str
    port: int


def ranks_of_machine(total: int, machines: int, machine: int) -> range:
    """The ranks of one machine: shares as even as possible, the first machines take one more."""
    each, more = divmod(total, machines)
    first = machine * each + min(machine, more)
    return range(first, first + each + (machine < more))


def environments(config: LamorelConfig, address: Address, further: Mapping[str, str]) -> dict[int, dict[str, str]]:
    """Per rank of this machine its environment.

    Raises:
        LamorelConfigError: the LLM processes of this machine want more GPUs than it has.
    """
    setup, args = config.distributed_setup_args, config.accelerate_args
    total = setup.n_rl_processes + setup.n_llm_processes
    local = ranks_of_machine(total, args.num_machines, args.machine_rank)
    world = World(local.start, setup.n_rl_processes, setup.n_llm_processes)
    llm_ranks = [rank for rank in local if rank in world.llm_ranks]
    gpus = gpus_of_llm_processes(config, len(llm_ranks), {**os.environ, **further})
    choose_interface(address.host)
    shared = {
        **os.environ,
        **further,
        "ACCELERATE_USE_CPU": "true",  # so that a script's Accelerator() sees every process; the LLM does not ask it
        "WORLD_SIZE": str(total),
        "LOCAL_WORLD_SIZE": str(len(local)),
        "GROUP_RANK": str(args.machine_rank),
        "MASTER_ADDR": address.host,
        "MASTER_PORT": str(address.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the launcher holds the store
        LAUNCHER_VARIABLE: str(os.getpid()),
        TIMEOUT_VARIABLE: str(config.gloo_timeout),
    }
    found = {}
    for i, rank in enumerate(local):
        found[rank] = {**shared, "RANK": str(rank), "LOCAL_RANK": str(i)}
        alike = llm_ranks if rank in llm_ranks else [r for r in local if r not in llm_ranks]
        # RL and LLM processes wait for each other: each kind may use all cores.
        found[rank].setdefault("OMP_NUM_THREADS", str(max(1, _cores() // len(alike))))
        # ... and its threads must sleep meanwhile: by default OpenMP's go on spinning, on the cores of the other kind.
        found[rank].setdefault("OMP_WAIT_POLICY", "PASSIVE")
        if rank in llm_ranks and gpus:
            found[rank]["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[llm_ranks.index(rank)])
    return found


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
