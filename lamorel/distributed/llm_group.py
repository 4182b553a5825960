"""LLM processes among themselves: sums and broadcasts, over gloo, or NCCL where the model is on GPUs."""

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from lamorel.distributed.codec import pack, unpack
from lamorel.distributed.failures import PeerFailedError, ProcessLostError, WaitTimeoutError
from lamorel.distributed.joining import wait_for_keys
from lamorel.distributed.launched import World

_BUCKET_BYTES = 25 << 20  # as DistributedDataParallel's
GROUP_ERRORS = (PeerFailedError, ProcessLostError, WaitTimeoutError)  # nothing more can be agreed upon after these


class LLMGroup:
    """The LLM processes; every method is called by all of them, in the same order.

    Attributes:
        index: of this process, from 0.
        size: number of processes.
    """

    def __init__(self, world: World, store: Any, timeout_s: float) -> None:
        self.index, self.size = world.llm_index, world.n_llm
        self._world, self._store, self._timeout_s = world, store, timeout_s
        self._rounds = 0
        store.set(_key(self.index), "0")
        others = {_key(i): world.llm_name(i) for i in range(self.size)}
        wait_for_keys(store, others, timeout_s, "to make its Caller")
        self._control = self._new_group("gloo")
        self._data = self._control

    def use_nccl(self) -> None:
        """For `add` and `broadcast`, whose tensors are then on GPUs."""
        self._data = self._new_group("nccl")

    def name(self, index: int) -> str:
        return self._world.llm_name(index)

    def agree(self, failed: bool = False) -> None:
        """Goes on where every process goes on.

        Raises:
            PeerFailedError: where another one has failed.
        """
        flags = torch.zeros(self.size, dtype=torch.int64)
        flags[self.index] = failed
        self.add_flags(flags)
        if not failed:
            self.refuse_failed(flags)

    def refuse_failed(self, flags: torch.Tensor) -> None:
        """Raises PeerFailedError where the entry of any process is not 0."""
        failed = [self.name(i) for i in flags.nonzero().flatten().tolist()]
        if failed:
            raise PeerFailedError(f"{', '.join(failed)} failed")

    def add_flags(self, flags: torch.Tensor) -> None:
        """The sum over processes of a small CPU tensor, in place: what begins every exchange."""
        self._rounds += 1
        self._store.set(_key(self.index), str(self._rounds))  # so that others can say who is late
        self._run(lambda: dist.all_reduce(flags, group=self._control))

    def add(self, tensor: torch.Tensor) -> None:
        """The sum over processes, in place."""
        self._run(lambda: dist.all_reduce(tensor, group=self._data))

    def broadcast(self, tensors: Iterable[torch.Tensor], source: int) -> None:
        """Values of process `source`, in place."""
        for some in buckets(tensors):
            flat = torch.cat([tensor.detach().reshape(-1) for tensor in some])
            raw = flat.view(torch.uint8)  # any type, gloo's or not
            self._run(partial(dist.broadcast, raw, self._world.llm_ranks[source], group=self._data))
            if self.index != source:
                for tensor, piece in zip(some, flat.split([t.numel() for t in some]), strict=True):
                    tensor.detach().copy_(piece.view_as(tensor))

    def broadcast_object(self, value: Any, source: int) -> Any:
        """Plain data and CPU tensors of process `source`."""
        parts: list[torch.Tensor] = []
        if self.index == source:
            skeleton, buffers = pack(value)
            parts = [_as_tensor(part) for part in (memoryview(skeleton), *buffers)]
        count = torch.tensor([len(parts)])
        self._broadcast_cpu(count, source)
        sizes = torch.tensor([len(part) for part in parts]) if parts else torch.zeros(int(count), dtype=torch.int64)
        self._broadcast_cpu(sizes, source)
        if self.index != source:
            parts = [torch.empty(size, dtype=torch.uint8) for size in sizes.tolist()]
        for part in parts:
            if len(part):
                self._broadcast_cpu(part, source)
        return value if self.index == source else unpack(parts[0].numpy().tobytes(), parts[1:])

    def close(self) -> None:
        for group in dict.fromkeys((self._data, self._control)):
            dist.destroy_process_group(group)

    def _broadcast_cpu(self, tensor: torch.Tensor, source: int) -> None:
        self._run(lambda: dist.broadcast(tensor, self._world.llm_ranks[source], group=self._control))

    def _new_group(self, backend: str) -> Any:
        return self._run(
            lambda: dist.new_group(
                self._world.llm_ranks,
                timeout=timedelta(seconds=self._timeout_s),
                backend=backend,
                use_local_synchronization=True,  # RL processes take no part
            )
        )

    def _run(self, operation: Callable[[], Any]) -> Any:
        """Says in one line what the long messages of gloo and NCCL come down to."""
        start = time.monotonic()
        try:
            return operation()
        except RuntimeError as error:
            waited = time.monotonic() - start
            late = ", ".join(self._world.llm_name(i) for i in late_processes(self._store, self.size))
            if waited > 0.9 * self._timeout_s:
                raise WaitTimeoutError(self._timeout_s, late or "another LLM process", "in an update") from None
            reason = (str(error).splitlines() or [""])[0][:200]
            raise ProcessLostError(f"lost {late or 'another LLM process'} in an update ({reason})") from None


def buckets(tensors: Iterable[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Tensors of one device and type, in lists of about 25 MB."""
    filling: dict[Any, list[torch.Tensor]] = {}
    for tensor in tensors:
        some = filling.setdefault((tensor.device, tensor.dtype), [])
        some.append(tensor)
        if sum(t.numel() * t.element_size() for t in some) >= _BUCKET_BYTES:
            yield filling.pop((tensor.device, tensor.dtype))
    yield from filling.values()


def late_processes(store: Any, n_llm: int) -> list[int]:
    """LLM processes that have begun fewer exchanges than others; none where that cannot be told."""
    try:
        keys = [_key(i) for i in range(n_llm)]
        if not store.check(keys):
            return []
        rounds = [int(value) for value in store.multi_get(keys)]
    except Exception:  # the store went with the process that held it
        return []
    return [i for i, n in enumerate(rounds) if n < max(rounds)]


def _key(index: int) -> str:
    return f"lamorel/rounds/{index}"


def _as_tensor(data: memoryview) -> torch.Tensor:
    """Bytes as uint8."""
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if len(data) else torch.empty(0, dtype=torch.uint8)
