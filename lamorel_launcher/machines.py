"""What launchers of one run know of each other, through the store that the launcher of machine 0 holds."""

import json
import socket
import threading
import time
from collections.abc import Collection
from datetime import timedelta
from typing import Any

from lamorel.config import LamorelConfigError
from lamorel_launcher.layout import Address
from lamorel_launcher.settings import ARGS_KEY
from lamorel_launcher.stopping import STOPPED

_BEAT_S = 1.0
_SILENT_S = 7.0  # a launcher that does not beat for so long is gone
_TOLD_S = 3.0  # in which news reach the store, if it is still there
_CONNECT_S = 2.0


def store_socket(host: str, port: int | None, *, any_port: bool) -> socket.socket:
    """A listening socket for the store.

    Args:
        port: wanted; None leaves the choice to the system.
        any_port: take another one where it is taken: nobody outside of this machine needs to know it.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port or 0))
    except OSError as error:
        if not any_port:
            raise LamorelConfigError(
                f"{ARGS_KEY}.main_process_port {port} cannot be used on this machine: choose another ({error.strerror})"
            ) from error
        listener.bind((host, 0))
    listener.listen(1024)
    return listener


def hold_store(listener: socket.socket, host: str) -> Any:
    """The store of the run; it serves from a thread of its own as long as the result lives."""
    from torch.distributed import TCPStore

    port = listener.getsockname()[1]
    return TCPStore(host, port, None, True, wait_for_workers=False, master_listen_fd=listener.detach())


def wait_for_machine_0(address: Address, timeout_s: float) -> None:
    """Waits until the launcher of machine 0 listens."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection((address.host, address.port), timeout=_CONNECT_S).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise LamorelConfigError(
                    f"waited {timeout_s:g} s for the launcher of machine 0 at {address.host}:{address.port} "
                    f"({ARGS_KEY}.main_process_ip, main_process_port): is it started? ({error})"
                ) from error
        time.sleep(0.2)


class OneMachine:
    """A run on this machine alone: there is nobody to ask.

    Attributes:
        news_s: seconds in which another machine's failure is known here.
    """

    news_s = 3.0  # of a process that has died here, and of one that has noticed

    def __init__(self, listener: socket.socket, host: str) -> None:
        self._store = hold_store(listener, host)

    def problem(self) -> tuple[str, int] | None:
        """Why the processes of this machine have to end, as another machine knows, and the exit status for it."""
        return None

    def report(self, text: str, status: int) -> None:
        """Tells the other machines what has failed here, or stopped."""

    def hand_on(self, number: int) -> None:
        """Tells the other machines of a signal that came here."""

    def asked_elsewhere(self) -> list[int]:
        """Signals that other machines have handed on, each once."""
        return []

    def ended_elsewhere(self, ended_here: Collection[int]) -> set[int]:
        """RL ranks that have ended well on other machines, after telling these about ours."""
        return set()

    def finish(self) -> None:
        """All processes of this machine have ended."""


class SeveralMachines:
    """A thread writes this launcher's news to the store every second, and reads those of the others.

    As OneMachine.

    Args:
        listener: of the store, on machine 0.
    """

    news_s = _SILENT_S + 2 * _BEAT_S

    def __init__(self, address: Address, machine: int, machines: int, listener: socket.socket | None) -> None:
        self._address, self._machine, self._listener = address, machine, listener
        self._others = [m for m in range(machines) if m != machine]
        self._news: dict[str, Any] = {"beat": 0, "failure": None, "signals": [], "rl_ended": [], "done": False}
        self._done_told = False
        self._store_lost = False
        self._heard: dict[int, dict[str, Any]] = {}
        self._heard_at: dict[int, float] = {}
        self._signals_taken = dict.fromkeys(self._others, 0)
        threading.Thread(target=self._run, daemon=True).start()

    def problem(self) -> tuple[str, int] | None:
        if self._store_lost:
            return f"the launcher of machine 0 ({self._address.host}) does not answer any more", 1
        for machine, news in sorted(self._heard.items()):
            if news["failure"] is not None:
                text, status = news["failure"]
                return text, STOPPED if status == STOPPED else 1
            if not news["done"] and time.monotonic() > self._heard_at[machine] + _SILENT_S:
                return f"the launcher of machine {machine} has been silent for {_SILENT_S:g} s", 1
        return None

    def report(self, text: str, status: int) -> None:
        self._news["failure"] = [text, status]

    def hand_on(self, number: int) -> None:
        self._news["signals"].append(number)

    def asked_elsewhere(self) -> list[int]:
        found: list[int] = []
        for machine, news in list(self._heard.items()):
            found += news["signals"][self._signals_taken[machine] :]
            self._signals_taken[machine] = len(news["signals"])
        return found

    def ended_elsewhere(self, ended_here: Collection[int]) -> set[int]:
        self._news["rl_ended"] = sorted(ended_here)
        return {rank for news in list(self._heard.values()) for rank in news["rl_ended"]}

    def finish(self) -> None:
        """Tells the others; machine 0 holds the store until those that still answer have ended, too."""
        self._news["done"] = True
        start = time.monotonic()
        while time.monotonic() < start + _SILENT_S and not self._store_lost:
            now = time.monotonic()
            answering = [news for m, news in list(self._heard.items()) if now < self._heard_at[m] + _TOLD_S]
            others_done = self._machine != 0 or all(news["done"] for news in answering)
            if others_done and (self._done_told or now > start + _TOLD_S):
                return
            time.sleep(0.1)

    def _run(self) -> None:
        try:
            store = self._connect()
            while True:
                self._exchange(store)
                time.sleep(_BEAT_S)
        except Exception:  # whatever the store raises: it is not there
            self._store_lost = True

    def _connect(self) -> Any:
        from torch.distributed import TCPStore

        if self._listener is not None:
            return hold_store(self._listener, self._address.host)
        host, port = self._address.host, self._address.port
        deadline = time.monotonic() + _SILENT_S
        while True:
            # The launcher of machine 0 did listen: where nobody does any more it has ended, for which the store would
            # wait. It may also end between the two, or before its store answers.
            socket.create_connection((host, port), timeout=_SILENT_S).close()
            try:
                store = TCPStore(host, port, timeout=timedelta(seconds=_CONNECT_S))
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
            else:
                store.set_timeout(timedelta(seconds=_SILENT_S))
                return store

    def _exchange(self, store: Any) -> None:
        self._news["beat"] += 1
        done = self._news["done"]
        store.set(_key(self._machine), json.dumps(self._news))
        self._done_told = done
        for machine in self._others:
            if store.check([_key(machine)]):
                news = json.loads(store.get(_key(machine)))
                if news != self._heard.get(machine):
                    self._heard[machine], self._heard_at[machine] = news, time.monotonic()


def _key(machine: int) -> str:
    return f"lamorel_launcher/{machine}"
