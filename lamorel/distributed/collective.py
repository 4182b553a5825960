"""Calls that all RL processes make together: RL process 0 gathers the parts, acts, and shares the result."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from lamorel.distributed.channel import Channel, Undecodable, await_each, flush
from lamorel.distributed.doors import Door, knock
from lamorel.distributed.failures import Failure, ProcessLostError, ProcessLostExit
from lamorel.distributed.launched import World
from lamorel.distributed.messages import Reply, Request

# Contexts, candidates and further arguments of update.
Batch = tuple[Sequence[str], Sequence[list[str]] | None, dict[str, Any]]


class Collective:
    """This RL process among the others. With one RL process, calls are made at once."""

    def __init__(self, world: World, store: Any, timeout_s: float) -> None:
        self._world, self._store = world, store
        self._timeout_s = timeout_s
        self._number = 0
        self._leader: Channel | None = None
        self._followers: list[Channel] = []
        if world.n_rl > 1 and world.rank == 0:
            names = {rank: world.name(rank) for rank in range(1, world.n_rl)}
            self._followers = Door(store, 0).admit(names, timeout_s)
        elif world.n_rl > 1:
            [self._leader] = knock(store, {0: world.name(0)}, world.rank, timeout_s)

    def do(self, act: Callable[[], object], *, verb: str) -> None:
        """Acts once, when every RL process has called."""

        def act_without_result(_: list[Any]) -> None:
            act()

        self._run(verb, None, act_without_result)

    def update(self, batch: Batch, act: Callable[..., Any]) -> Any:
        """Acts on the batches of all RL processes; every one gets the whole result."""
        return self._run("update", batch, lambda batches: act(*join_batches(batches)))

    def close(self, *, well: bool) -> None:
        """Takes no further part.

        Args:
            well: the script has closed its Caller; it does not end because of a failure.
        """
        if well and self._world.n_rl > 1:
            with suppress(Exception):  # the store went with the process that held it
                self._store.set(_key(self._world.rank), "yes")
        for channel in self._followers if self._leader is None else [self._leader]:
            channel.close()

    def still_open(self) -> list[str]:
        """Names of the other RL processes that are not known to have closed their Caller."""
        others = [rank for rank in range(self._world.n_rl) if rank != self._world.rank]
        try:
            return [self._world.name(rank) for rank in others if not self._store.check([_key(rank)])]
        except Exception:  # the store went with the process that held it
            return [self._world.name(rank) for rank in others]

    def _run(self, verb: str, part: Any, act: Callable[[list[Any]], Any]) -> Any:
        if self._world.n_rl == 1:
            return act([part])
        self._number += 1
        if self._leader is None:
            return self._lead(verb, part, act)
        self._leader.put(Request(self._number, verb, {"part": part}))
        # It waits for the other RL processes first, and then for the LLM processes; its error is the one to see.
        patience_s = 2 * self._timeout_s + 5
        reply = self._await([self._leader], self._number, patience_s, verb, f"to finish {verb}")[self._leader]
        if isinstance(reply, Undecodable):
            raise reply.error
        if reply.failure is not None:
            raise reply.failure.error()
        return reply.value

    def _await(
        self, others: list[Channel], number: int | None, timeout_s: float, verb: str, purpose: str
    ) -> dict[Channel, Any]:
        """As `await_each`; says so where others have closed, which is not to have died."""
        try:
            return await_each(others, number, timeout_s, purpose)
        except (ProcessLostError, ProcessLostExit):
            still_open = self.still_open()
            closed = [channel.peer for channel in others if channel.ended and channel.peer not in still_open]
            if not closed:
                raise
            raise RuntimeError(
                f"{', '.join(closed)} has closed its Caller: RL processes must call update, save and load together, "
                f"and {self._world.name()} called {verb}"
            ) from None

    def _lead(self, verb: str, part: Any, act: Callable[[list[Any]], Any]) -> Any:
        requests = self._await(self._followers, None, self._timeout_s, verb, f"to call {verb} as well")
        try:
            value = act([part, *self._parts(verb, requests)])
        except Exception as error:
            self._tell(requests, failure=Failure.of(error, self._world.name()))
            raise
        self._tell(requests, value=value)
        return value

    def _parts(self, verb: str, requests: Mapping[Channel, Any]) -> list[Any]:
        for channel, request in requests.items():
            if isinstance(request, Undecodable):
                raise request.error
            if request.verb != verb:
                raise RuntimeError(
                    f"RL processes must call update, save and load together: {self._world.name()} called {verb}, "
                    f"{channel.peer} called {request.verb}"
                )
        return [requests[channel].arguments["part"] for channel in self._followers]

    def _tell(self, requests: Mapping[Channel, Any], **content: Any) -> None:
        for channel, request in requests.items():
            channel.put(Reply(request.number, **content))
        flush(self._followers, self._timeout_s)


def join_batches(batches: Sequence[Batch]) -> Batch:
    """One batch out of those of all RL processes.

    Candidates are given by all, or by none. An argument with one entry per context on every RL process (tensor, array,
    list, or dict of these) is concatenated; any other is taken from RL process 0.
    """
    contexts = [context for batch in batches for context in batch[0]]
    given = [batch[1] for batch in batches if batch[1] is not None]
    if len(given) not in (0, len(batches)):
        raise ValueError("update: some RL processes gave candidates, others None")
    candidates = [group for groups in given for group in groups] if given else None
    sizes = [len(batch[0]) for batch in batches]
    names = batches[0][2]
    for i, (_, _, arguments) in enumerate(batches):
        if arguments.keys() != names.keys():
            raise ValueError(f"update: RL process 0 gave {sorted(names)}, RL process {i} gave {sorted(arguments)}")
    return contexts, candidates, {name: _join([batch[2][name] for batch in batches], sizes) for name in names}


def _join(values: list[Any], sizes: list[int]) -> Any:
    first = values[0]
    if isinstance(first, Mapping) and all(isinstance(v, Mapping) and v.keys() == first.keys() for v in values):
        return {name: _join([value[name] for value in values], sizes) for name in first}
    if not all(_is_rows(value, size) and type(value) is type(first) for value, size in zip(values, sizes, strict=True)):
        return first
    if isinstance(first, torch.Tensor):
        return torch.cat(values)
    if isinstance(first, np.ndarray):
        return np.concatenate(values)
    return type(first)(entry for value in values for entry in value)


def _is_rows(value: Any, size: int) -> bool:
    """Whether a value has one entry for each of `size` contexts."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return value.ndim > 0 and len(value) == size
    return type(value) in (list, tuple) and len(value) == size


def _key(rank: int) -> str:
    return f"lamorel/closed/{rank}"
