"""One started process: its start, its end, and what it was not allowed to print."""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from lamorel.distributed.launched import HELD_OUTPUT_VARIABLE, OUTPUT_RELEASED
from lamorel_launcher.stopping import begin_child

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_prctl = getattr(ctypes.CDLL(None), "prctl", None)  # of Linux; found here, as little may happen between fork and exec


class Process:
    """A rank.

    It has a session of its own, so that Ctrl-C reaches the launcher alone and its own children can be ended with it.
    What an LLM process prints before it makes its Caller is held back: it runs the same script as RL process 0, whose
    words it would repeat. It ignores the signals that ask a run to stop, as it serves until that has stopped.

    Attributes:
        name: how it is called in messages.
        is_llm: it will serve.
    """

    def __init__(
        self, rank: int, name: str, is_llm: bool, command: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        self.rank, self.name, self.is_llm = rank, name, is_llm
        self._held: IO[bytes] | None = None
        environment = dict(environment)
        real: tuple[int, ...] = ()
        if is_llm:
            self._held = tempfile.TemporaryFile()  # noqa: SIM115 (for as long as the process runs)
            real = (os.dup(1), os.dup(2))
            environment[HELD_OUTPUT_VARIABLE] = ",".join(map(str, real))
        self._child = subprocess.Popen(
            command,
            env=environment,
            stdin=None if rank == 0 else subprocess.DEVNULL,
            stdout=self._held,
            stderr=self._held,
            pass_fds=real,
            start_new_session=True,
            preexec_fn=_beginning(os.getpid(), is_llm),
        )
        for descriptor in real:
            os.close(descriptor)

    @property
    def exit_code(self) -> int | None:
        """As Popen's: negative for a signal, None while it runs."""
        return self._child.poll()

    @property
    def held_output(self) -> str | None:
        """What it printed, as long as it has not been allowed to; None after that."""
        if self._held is None:
            return None
        self._held.seek(0)
        output = self._held.read()
        return None if output.endswith(OUTPUT_RELEASED) else output.decode(errors="replace")

    def send(self, number: int) -> None:
        """A signal to the process alone."""
        if self._child.poll() is None:
            self._child.send_signal(number)

    def send_to_all(self, number: int) -> None:
        """A signal to the process and what it has started."""
        try:
            os.killpg(self._child.pid, number)
        except ProcessLookupError:
            return


def how_it_ended(exit_code: int) -> str:
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    try:
        return f"was killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"was killed by signal {-exit_code}"


def status(exit_code: int) -> int:
    """A shell's number for an exit code of Popen."""
    return exit_code if exit_code >= 0 else 128 - exit_code


def python_command(script: object, arguments: Sequence[str]) -> list[str]:
    return [sys.executable, str(script), *arguments]


def _beginning(parent: int, is_llm: bool) -> Callable[[], None]:
    """What a child runs before exec: it is to be killed with its parent, however that one ends."""

    def begin() -> None:
        if _prctl is not None:
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # gone already
            os._exit(1)
        begin_child(ignores=is_llm)

    return begin
