"""Watches over the processes of this machine: the first that fails is named, and the others are ended."""

import signal
import sys
import time
from collections.abc import Callable, Collection, Sequence

from lamorel.distributed.launched import LOST_STATUS
from lamorel_launcher.machines import OneMachine, SeveralMachines
from lamorel_launcher.processes import Process, how_it_ended, status
from lamorel_launcher.stopping import STOPPED, handle

_POLL_S = 0.05
_SETTLE_S = 3.0  # for RL process 0 to fail with the words that an LLM process was not allowed to print
_FINALLY_S = 3.0  # for the `finally` of an RL process that notices the loss of an LLM process
_KILL_AFTER_S = 4.0  # between SIGTERM and SIGKILL
_LLM_END_S = 5.0  # for LLM processes to end by themselves after the last RL process
_RL_END_S = 15.0  # for RL processes elsewhere to end after the last LLM process of this machine


class Supervisor:
    """Runs until all processes of this machine have ended.

    Args:
        rl_ranks: of all machines.
        stop_grace_s: how long RL processes may take after a SIGTERM or SIGINT: a checkpoint needs the LLM processes.
    """

    def __init__(
        self,
        processes: Sequence[Process],
        machines: OneMachine | SeveralMachines,
        rl_ranks: Collection[int],
        stop_grace_s: float,
    ) -> None:
        self._processes = list(processes)
        self._machines = machines
        self._rl_ranks = set(rl_ranks)
        self._stop_grace_s = stop_grace_s
        self._stopped_by: signal.Signals | None = None
        self._deadline = float("inf")
        handle(self._on_signal)

    def run(self) -> int:
        """Returns the exit status of the launch."""
        rl_has_ended = False
        while not _all_ended(self._processes):
            for number in self._machines.asked_elsewhere():
                self._take(number)
            trouble = self._trouble()
            if trouble is not None:
                return self._fail(*trouble)
            if not rl_has_ended and self._rl_has_ended():
                rl_has_ended = True
                self._deadline = time.monotonic() + _LLM_END_S
            if time.monotonic() > self._deadline:
                if not rl_has_ended:
                    assert self._stopped_by is not None
                    what = f"stopped by {self._stopped_by.name}: what still runs is killed"
                    return self._fail(what, 128 + self._stopped_by)
                break  # LLM processes that wait for a Caller which nobody will make
            time.sleep(_POLL_S)
        # LLM processes end just before an RL process elsewhere does, whose exit status is that of the run.
        _wait(self._is_over, _RL_END_S)
        trouble = self._trouble()
        if trouble is not None:
            return self._fail(*trouble)
        self._end()
        self._machines.finish()
        return 0

    def _on_signal(self, number: int, _frame: object) -> None:
        if all(process.is_llm for process in self._processes):
            self._machines.hand_on(number)
        self._take(number)

    def _take(self, number: int) -> None:
        """Hands a signal on to the RL processes, which may want to write a checkpoint with the LLM processes' help."""
        if self._stopped_by is not None and number == signal.SIGINT:
            self._deadline = time.monotonic()
        elif self._stopped_by is None and number != signal.SIGUSR1:  # a signal that is repeated gives no more time
            self._stopped_by = signal.Signals(number)
            self._deadline = time.monotonic() + self._stop_grace_s
        for process in self._processes:
            if not process.is_llm:
                process.send(number)

    def _trouble(self) -> tuple[str, int] | None:
        """What has gone wrong, in one line, and the exit status for it."""
        if any(process.exit_code == LOST_STATUS for process in self._processes):
            # It ended because another one did, whose end, or the news of it, may be on its way.
            _wait(lambda: self._failed() != [] or self._machines.problem() is not None, self._machines.news_s)
        elsewhere = self._machines.problem()
        failed = self._failed() or (self._failed(followed_others=True) if elsewhere is None else [])
        if not failed:
            return elsewhere
        process = self._culprit(failed[0])
        assert process.exit_code is not None
        if process.held_output:
            sys.stderr.write(process.held_output)
        what = f"{process.name} {how_it_ended(process.exit_code)}"
        if process.exit_code == STOPPED:
            what += ", the same command goes on"
        if self._stopped_by is not None:
            what = f"stopped by {self._stopped_by.name}: {what}"
        elif process.exit_code == STOPPED:
            what = f"stopped: {what}"
        return what, status(process.exit_code)

    def _failed(self, *, followed_others: bool = False) -> list[Process]:
        """Processes that have ended badly, by themselves or because others had."""
        failed = [process for process in self._processes if process.exit_code not in (None, 0)]
        return [process for process in failed if (process.exit_code == LOST_STATUS) == followed_others]

    def _culprit(self, first: Process) -> Process:
        """The process to name: a script that fails before its Caller does so everywhere, RL process 0 has said why."""
        if not first.is_llm or first.held_output is None:
            return first
        rl = [process for process in self._processes if not process.is_llm]
        _wait(lambda: any(process.exit_code is not None for process in rl), _SETTLE_S if rl else 0)
        return next((process for process in rl if process.exit_code not in (None, 0)), first)

    def _is_over(self) -> bool:
        """Whether it is known how the run has ended."""
        bad = any(process.exit_code for process in self._processes)
        return bad or self._rl_has_ended() or self._machines.problem() is not None

    def _rl_has_ended(self) -> bool:
        """Whether every RL process of the run has ended well."""
        here = {process.rank for process in self._processes if not process.is_llm and process.exit_code == 0}
        return here | self._machines.ended_elsewhere(here) >= self._rl_ranks

    def _fail(self, what: str, exit_status: int) -> int:
        print(f"lamorel_launcher: {what}", file=sys.stderr, flush=True)
        self._machines.report(what, exit_status)
        self._end()
        for process in self._processes:
            process.send_to_all(signal.SIGKILL)  # what they have started and left behind
        self._machines.finish()
        return exit_status

    def _end(self) -> None:
        """Ends what still runs: LLM processes, which ignore requests, at once, RL processes once they could notice."""
        llm = [process for process in self._processes if process.is_llm]
        rl = [process for process in self._processes if not process.is_llm]
        for process in llm:
            process.send_to_all(signal.SIGKILL)  # and what they have left behind
        _wait(lambda: _all_ended(rl), _FINALLY_S)
        _send(rl, signal.SIGTERM)
        _wait(lambda: _all_ended(self._processes), _KILL_AFTER_S)
        _send(self._processes, signal.SIGKILL)
        _wait(lambda: _all_ended(self._processes), _KILL_AFTER_S)


def _send(processes: Sequence[Process], number: int) -> None:
    for process in processes:
        if process.exit_code is None:
            process.send_to_all(number)


def _all_ended(processes: Sequence[Process]) -> bool:
    return all(process.exit_code is not None for process in processes)


def _wait(until: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not until() and time.monotonic() < deadline:
        time.sleep(_POLL_S)
