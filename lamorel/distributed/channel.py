"""Whole messages over a connection.

A channel never blocks: `put` queues, and `advance` moves bytes of many channels in both directions until a deadline.
Both directions at once, as two processes that only send to each other would wait for ever once the buffers between
them are full. An exception in the middle (a signal handler's, say) leaves the channels as they are: what was begun is
finished by the next call.
"""

import os
import selectors
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Collection, Generator
from typing import Any, NamedTuple

import torch

from lamorel.distributed.codec import pack, unpack
from lamorel.distributed.failures import WaitTimeoutError, process_lost

_HEADER = struct.Struct("!QQQ")  # number of the message, bytes of the skeleton, number of buffers
_PIECE = 1 << 20  # bytes handed to the kernel at once


class Undecodable(NamedTuple):
    """In place of a message that cannot be read here: it holds a class that this process cannot import, say."""

    number: int
    error: Exception


class Channel:
    """One end of a connection.

    Attributes:
        peer: how the other process is called in messages.
        inbox: messages that have arrived.
        ended: the other process has closed its end, or died.
    """

    def __init__(self, connection: socket.socket, peer: str = "") -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self.peer = peer
        self.inbox: deque[Any] = deque()
        self.ended = False
        self._outgoing: deque[memoryview] = deque()
        self._reader = self._read()
        self._wanted = next(self._reader)

    def fileno(self) -> int:
        return self._connection.fileno()

    @property
    def has_unsent(self) -> bool:
        return bool(self._outgoing) and not self.ended

    def put(self, message: Any) -> None:
        """Queues a message."""
        self.put_frame(frame(message))

    def put_frame(self, parts: list[memoryview]) -> None:
        self._outgoing += parts

    def send(self) -> None:
        """Sends what the kernel takes."""
        try:
            while self._outgoing:
                sent = self._connection.send(self._outgoing[0][:_PIECE])
                if sent == len(self._outgoing[0]):
                    self._outgoing.popleft()
                else:
                    self._outgoing[0] = self._outgoing[0][sent:]
        except BlockingIOError:
            return
        except OSError:
            self.ended = True

    def receive(self) -> None:
        """Takes what has arrived."""
        try:
            while not self.ended:
                count = self._connection.recv_into(self._wanted)
                self.ended = count == 0
                self._wanted = self._wanted[count:]
                if not len(self._wanted):
                    self._wanted = next(self._reader)
        except BlockingIOError:
            return
        except OSError:
            self.ended = True

    def close(self) -> None:
        self.ended = True
        self._connection.close()

    def close_at_exit(self) -> None:
        """Closes when this process is gone, and not before: the end of the connection then says just that."""
        os.dup(self._connection.fileno())  # nobody closes this one but the kernel

    def _read(self) -> Generator[memoryview, None, None]:
        """Yields the memory that the next bytes go to."""
        while True:
            header = bytearray(_HEADER.size)
            yield memoryview(header)
            number, skeleton_size, count = _HEADER.unpack(header)
            rest = bytearray(8 * count + skeleton_size)
            yield memoryview(rest)
            sizes = struct.unpack_from(f"!{count}Q", rest)
            buffers = [torch.empty(size, dtype=torch.uint8) for size in sizes]
            for buffer in buffers:
                if len(buffer):
                    yield buffer.numpy().data
            try:
                self.inbox.append(unpack(rest[8 * count :], buffers))
            except Exception as error:
                self.inbox.append(Undecodable(number, error))


def frame(message: Any) -> list[memoryview]:
    """The bytes of a message, as they travel."""
    skeleton, buffers = pack(message)
    sizes = struct.pack(f"!{len(buffers)}Q", *map(len, buffers))
    head = _HEADER.pack(getattr(message, "number", 0), len(skeleton), len(buffers)) + sizes + skeleton
    return [memoryview(head), *(buffer for buffer in buffers if len(buffer))]


def advance(channels: Collection[Channel], deadline: float) -> bool:
    """Sends and receives on all channels until something has moved.

    Args:
        deadline: on the clock of `time.monotonic`.

    Returns:
        Whether something has moved before the deadline; also True where a channel has ended.
    """
    with selectors.PollSelector() as selector:
        for channel in channels:
            if not channel.ended:
                events = selectors.EVENT_READ | (selectors.EVENT_WRITE if channel.has_unsent else 0)
                selector.register(channel, events, channel)
        ready = selector.select(max(0.0, deadline - time.monotonic()))
        for key, events in ready:
            if events & selectors.EVENT_WRITE:
                key.data.send()
            if events & selectors.EVENT_READ:
                key.data.receive()
    return bool(ready)


def flush(channels: Collection[Channel], timeout_s: float) -> bool:
    """Sends all that is queued; whether that was done in time. What has ended takes nothing."""
    deadline = time.monotonic() + timeout_s
    while pending := [channel for channel in channels if channel.has_unsent]:
        if not advance(pending, deadline):
            return False
    return True


def await_end(channels: Collection[Channel], timeout_s: float) -> None:
    """Waits until the other processes have ended.

    Raises:
        WaitTimeoutError: naming those that did not.
    """
    deadline = time.monotonic() + timeout_s
    while living := [channel for channel in channels if not channel.ended]:
        if not advance(living, deadline):
            raise WaitTimeoutError(timeout_s, ", ".join(channel.peer for channel in living), "to end")


def await_any(channels: Collection[Channel], timeout_s: float, purpose: str) -> None:
    """Waits until any channel has moved; arguments and errors as of `await_each`."""
    if not advance(channels, time.monotonic() + timeout_s):
        raise WaitTimeoutError(timeout_s, ", ".join(channel.peer for channel in channels), purpose)


def await_each(
    channels: Collection[Channel],
    number: int | None,
    timeout_s: float,
    purpose: str,
    blame: Callable[[list[Channel]], list[Channel]] = list,
) -> dict[Channel, Any]:
    """One message from each channel.

    Args:
        number: of the messages; others, which answer calls that were interrupted, are dropped. None takes any.
        purpose: what is waited for, in messages: "to answer".
        blame: of those that did not send it, the ones to name.

    Raises:
        WaitTimeoutError: naming those that did not send it.
        ProcessLostError: a process has ended.
    """
    deadline = time.monotonic() + timeout_s
    found: dict[Channel, Any] = {}
    while True:
        for channel in channels:
            while channel.inbox and channel not in found:
                message = channel.inbox.popleft()
                if number in (None, message.number):
                    found[channel] = message
        missing = [channel for channel in channels if channel not in found]
        if not missing:
            return found
        for channel in missing:
            if channel.ended:
                raise process_lost(f"{channel.peer} ended while others waited for it {purpose}")
        if not advance(missing, deadline):
            raise WaitTimeoutError(timeout_s, ", ".join(channel.peer for channel in blame(missing)), purpose)
