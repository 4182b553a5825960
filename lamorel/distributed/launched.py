"""Who is who among launched processes, read from the environment. Needs no torch.

Ranks: RL processes 0 .. n_rl-1, then LLM processes.
"""

import os
import time
from dataclasses import dataclass
from typing import Any

from lamorel.config import LamorelConfigError, SetupArgs, parse_config

SETUP_KEY = "lamorel_args.distributed_setup_args"
TIMEOUT_KEY = "lamorel_args.gloo_timeout"

# Set by our launcher, which watches over its processes.
LAUNCHER_VARIABLE = "LAMOREL_LAUNCHER"  # its process id
TIMEOUT_VARIABLE = "LAMOREL_TIMEOUT"  # seconds; lamorel_init() has no configuration
HELD_OUTPUT_VARIABLE = "LAMOREL_HELD_OUTPUT"  # descriptors of the real stdout and stderr: "5,6"

OUTPUT_RELEASED = b"\0released"  # ends what is held back, once the process prints for itself

LOST_STATUS = 112  # exit status of a process that ends because another one did (EHOSTDOWN); nothing else uses it

DEFAULT_TIMEOUT_S = 1800.0
_QUIET_WAIT_S = 10.0


@dataclass(frozen=True)
class World:
    """The launched processes, seen from one of them."""

    rank: int
    n_rl: int
    n_llm: int

    @property
    def is_llm(self) -> bool:
        return self.rank >= self.n_rl

    @property
    def llm_index(self) -> int:
        """This LLM process's number, from 0."""
        return self.rank - self.n_rl

    @property
    def llm_ranks(self) -> list[int]:
        return list(range(self.n_rl, self.n_rl + self.n_llm))

    def name(self, rank: int | None = None) -> str:
        """How a process is called in messages."""
        rank = self.rank if rank is None else rank
        if rank >= self.n_rl:
            return f"rank {rank} (LLM process {rank - self.n_rl})"
        return f"rank {rank} (RL process)"

    def llm_name(self, index: int) -> str:
        return self.name(self.n_rl + index)


def is_launched() -> bool:
    """Whether a launcher started this process as one of several."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def has_our_launcher() -> bool:
    """Whether our own launcher watches: it says which process died first, and ends the others."""
    return LAUNCHER_VARIABLE in os.environ


def launched_world(setup: SetupArgs) -> World | None:
    """The launched processes; None where this process was started by itself.

    Raises:
        LamorelConfigError: on rank 0, where another number of processes was started than the configuration asks for.
        SystemExit: on the other ranks, once rank 0 has had the time to say so.
    """
    if not is_launched():
        return None
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    wanted = setup.n_rl_processes + setup.n_llm_processes
    if wanted != size:
        if rank != 0:
            wait_to_be_ended()
        raise LamorelConfigError(
            f"{SETUP_KEY} asks for n_rl_processes={setup.n_rl_processes} and n_llm_processes={setup.n_llm_processes}, "
            f"together {wanted}, but {size} processes were started: change these keys, or start {wanted}"
        )
    return World(rank, setup.n_rl_processes, setup.n_llm_processes)


def is_llm_process(config: Any) -> bool:
    """Whether a `Caller` with this configuration will serve in this process, and never return.

    Cheap: for scripts that open logs or take locks before they make their Caller.

    Args:
        config: the `lamorel_args` tree.
    """
    setup = parse_config(config).distributed_setup_args
    return is_launched() and int(os.environ["RANK"]) >= setup.n_rl_processes


def wait_to_be_ended() -> None:
    """Leaves the word to the process that knows the reason, and the end to the launcher.

    Raises:
        SystemExit: nobody ended this process.
    """
    time.sleep(_QUIET_WAIT_S)
    raise SystemExit(LOST_STATUS)
