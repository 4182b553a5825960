"""How connections are made: a listener publishes its address and a secret in the run's store.

The secret comes before anything that is unpickled, as whoever reaches the port could otherwise run code here.
"""

import hmac
import os
import secrets
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

from lamorel.distributed.channel import Channel
from lamorel.distributed.failures import WaitTimeoutError, process_lost
from lamorel.distributed.joining import wait_for_keys, while_the_store_lives
from lamorel.distributed.network import local_address

_GREETING = struct.Struct("!32sI")  # secret, rank of the caller
_GREETING_TIMEOUT_S = 5.0
_POLL_S = 0.5


class Door:
    """Where other processes of the run connect to this one."""

    def __init__(self, store: Any, rank: int) -> None:
        address = local_address(os.environ.get("MASTER_ADDR", "127.0.0.1"))
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        self._listener.bind((address, 0))
        self._listener.listen()
        self._listener.settimeout(_POLL_S)
        self._secret = secrets.token_hex(16)
        port = self._listener.getsockname()[1]
        store.set(_key(rank), f"{address} {port} {self._secret}")

    def admit(self, awaited: Mapping[int, str], timeout_s: float) -> list[Channel]:
        """Lets processes in, and closes the door behind them.

        Args:
            awaited: rank -> the process's name.

        Returns:
            Their channels, by rank.
        """
        deadline = time.monotonic() + timeout_s
        found: dict[int, Channel] = {}
        with self._listener:
            while missing := [name for rank, name in awaited.items() if rank not in found]:
                if time.monotonic() > deadline:
                    raise WaitTimeoutError(timeout_s, ", ".join(missing), "to connect")
                try:
                    connection, _ = self._listener.accept()
                except TimeoutError:
                    continue
                rank = self._greeted(connection)
                if rank in awaited:
                    found[rank] = Channel(connection, awaited[rank])
                else:
                    connection.close()
        return [found[rank] for rank in sorted(found)]

    def _greeted(self, connection: socket.socket) -> int:
        """The rank of a caller that knows the secret; else -1."""
        connection.settimeout(_GREETING_TIMEOUT_S)
        try:
            greeting = connection.recv(_GREETING.size, socket.MSG_WAITALL)
        except OSError:
            return -1
        if len(greeting) != _GREETING.size:
            return -1
        secret, rank = _GREETING.unpack(greeting)
        return rank if hmac.compare_digest(secret, self._secret.encode()) else -1


def knock(store: Any, doors: Mapping[int, str], rank: int, timeout_s: float) -> list[Channel]:
    """Connects to other processes.

    Args:
        doors: rank -> the process's name.
        rank: this process's.

    Returns:
        Their channels, by rank.

    Raises:
        WaitTimeoutError: naming a process that did not make its Caller, or cannot be reached.
        ProcessLostError: a process ended after it had published its address.
    """
    wait_for_keys(store, {_key(other): name for other, name in doors.items()}, timeout_s, "to make its Caller")
    channels = []
    for other in sorted(doors):
        with while_the_store_lives():
            address, port, secret = store.get(_key(other)).decode().split()
        try:
            connection = socket.create_connection((address, int(port)), timeout=timeout_s)
            connection.sendall(_GREETING.pack(secret.encode(), rank))
        except TimeoutError as error:
            raise WaitTimeoutError(timeout_s, doors[other], f"to be reached at {address}") from error
        except OSError as error:
            raise process_lost(f"{doors[other]} ended, or cannot be reached at {address} ({error})") from error
        channels.append(Channel(connection, doors[other]))
    return channels


def _key(rank: int) -> str:
    return f"lamorel/door/{rank}"
