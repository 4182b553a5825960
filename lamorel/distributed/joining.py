"""The process group of a launched run, and waiting at its store."""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from lamorel.distributed.failures import WaitTimeoutError, process_lost
from lamorel.distributed.launched import DEFAULT_TIMEOUT_S, TIMEOUT_VARIABLE, is_launched
from lamorel.distributed.network import choose_interface

_POLL_S = 0.02


def lamorel_init() -> None:
    """Joins the process group of the launcher that started this process; does nothing where none did.

    A group that is there already, accelerate's for instance, is used as it is.

    Raises:
        RuntimeError: accelerate was started before, on its own, and does not see the other processes.
        WaitTimeoutError: some processes did not join in time.
        ProcessLostError: what keeps the store has ended.
    """
    if not is_launched():
        return
    _check_accelerate()
    # An Accelerator() that the script builds later sees this group, and on a machine without GPUs as well.
    os.environ.setdefault("ACCELERATE_USE_CPU", "true")
    if dist.is_initialized():
        _check_size()
        return
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    timeout_s = float(os.environ.get(TIMEOUT_VARIABLE, DEFAULT_TIMEOUT_S))
    choose_interface(os.environ.get("MASTER_ADDR", "127.0.0.1"))
    timeout = timedelta(seconds=timeout_s)
    store, _, _ = next(iter(dist.rendezvous("env://", rank, size, timeout=timeout)))
    with while_the_store_lives():
        store.set(f"lamorel/joined/{rank}", "yes")
        awaited = {f"lamorel/joined/{other}": f"rank {other}" for other in range(size)}
        wait_for_keys(store, awaited, timeout_s, "to start")
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timeout)


def world_store() -> Any:
    """The store of the joined group."""
    return dist.distributed_c10d._get_default_store()


@contextmanager
def while_the_store_lives() -> Iterator[None]:
    """Says so where the process that keeps the store ends: the launcher of machine 0, or rank 0 without ours."""
    try:
        yield
    except dist.DistNetworkError as error:
        raise process_lost(f"machine 0 ended while others joined the run ({error})") from error


def wait_for_keys(store: Any, awaited: Mapping[str, str], timeout_s: float, purpose: str) -> None:
    """Waits until others have set their keys; signal handlers run meanwhile.

    Args:
        awaited: key -> the process that sets it.

    Raises:
        WaitTimeoutError: naming the processes that did not.
        ProcessLostError: the store has gone.
    """
    deadline = time.monotonic() + timeout_s
    missing = dict(awaited)
    while True:
        with while_the_store_lives():
            missing = {key: who for key, who in missing.items() if not store.check([key])}
        if not missing:
            return
        if time.monotonic() > deadline:
            raise WaitTimeoutError(timeout_s, ", ".join(missing.values()), purpose)
        time.sleep(_POLL_S)


def _check_accelerate() -> None:
    """Accelerate builds one world per process where it is not told to use CPUs, and says nothing."""
    state = sys.modules.get("accelerate.state")
    known = {} if state is None else state.PartialState._shared_state
    if known.get("num_processes", 1) == 1 and "num_processes" in known:
        raise RuntimeError(
            f"accelerate sees 1 process, but {os.environ['WORLD_SIZE']} were launched: call lamorel_init() before "
            f"Accelerator(), set ACCELERATE_USE_CPU=true, or start the script with python -m lamorel_launcher.launch"
        )


def _check_size() -> None:
    if dist.get_world_size() != int(os.environ["WORLD_SIZE"]):
        raise RuntimeError(
            f"torch.distributed was initialised with {dist.get_world_size()} processes, but "
            f"{os.environ['WORLD_SIZE']} were launched: call lamorel_init() in its place"
        )
