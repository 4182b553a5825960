"""Vector environments with given seeds and a state that can be saved, for any gymnasium environment.

They are gymnasium's own, in autoreset mode SAME_STEP: when an episode ends, reward and flags of that step belong to it,
observation and info already to the next one. What the last state of the ended episode said is in `infos["final_info"]`
and `infos["final_obs"]`, where the mask `infos["_final_info"]` is true.
"""

import atexit
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from operator import index
from typing import Any

import gymnasium as gym
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.vector.async_vector_env import AsyncState, _async_worker

from babyai_text.options import check_choice
from babyai_text.replay import ReplayState, SeededEpisodes

BACKENDS = ("sync", "process")

# SLURM and Ctrl-C send these to every process; the one that steps the environments decides what becomes of them
LEFT_TO_PARENT = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class SyncEpisodes(SyncVectorEnv):
    """All environments in this process, one after the other."""

    def get_state(self) -> list[dict[str, Any]]:
        """One JSON-able dict per environment."""
        return list(self.call("get_state"))

    def set_state(self, states: Sequence[dict[str, Any]]) -> tuple[Any, dict[str, Any]]:
        """Restore every environment; returns (observations, infos) of the restored states as `reset` would."""
        self.set_attr("state_for_reset", list(states))
        try:
            return self.reset()
        finally:  # a state that does not fit must not leave the later ones waiting for another reset
            self.set_attr("state_for_reset", [None] * self.num_envs)


class ProcessEpisodes(AsyncVectorEnv):
    """Every environment in a process of its own: worth it only where a step takes longer than a message.

    The workers ignore `LEFT_TO_PARENT`, and end with the process that made them.
    """

    def __init__(self, makers: Sequence[Callable[[], gym.Env]], **options: Any) -> None:
        # held back until a worker ignores them: it is born with the handlers of this process
        signal.pthread_sigmask(signal.SIG_BLOCK, LEFT_TO_PARENT)
        try:
            super().__init__([partial(_in_worker, make_one) for make_one in makers], worker=_worker, **options)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, LEFT_TO_PARENT)
        atexit.register(_kill, self.processes)  # before multiprocessing's own, which would wait for a SIGTERM's effect

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """As gymnasium's; `terminate` is SIGKILL here."""
        if terminate:
            self._state = AsyncState.DEFAULT
            _kill(self.processes)
        super().close_extras(timeout, terminate)

    def get_state(self) -> list[dict[str, Any]]:
        """One JSON-able dict per environment."""
        return list(self.call("get_state"))

    def set_state(self, states: Sequence[dict[str, Any]]) -> tuple[Any, dict[str, Any]]:
        """Restore every environment; returns (observations, infos) of the restored states as `reset` would."""
        self.set_attr("state_for_reset", list(states))
        return self.reset()


def _worker(*args: Any) -> None:
    """gymnasium's worker, which prints no traceback if the process that made it has ended, as after Ctrl-C."""
    with suppress(BrokenPipeError, ConnectionResetError):
        _async_worker(*args)


def make_vec_from(
    make_env: Sequence[Callable[[], gym.Env]],
    *,
    seeds: Sequence[int],
    episode_seeds: Sequence[Sequence[int]] | None = None,
    backend: str = "sync",
) -> SyncEpisodes | ProcessEpisodes:
    """A vector environment of `make_env[0]()`, `make_env[1]()`, ...: call `reset()`, then `step(actions)`.

    Args:
        make_env: one maker per environment; all must have the same spaces.
        seeds: one per environment, used at its first reset; later episodes continue that random stream.
        episode_seeds: one list per environment. Its episodes are reset with the seeds of the list, one after the other;
            then they continue the stream. An environment whose list is empty starts from its entry in `seeds`.
        backend: "sync" (in this process) or "process" (one worker process each).

    Raises:
        ValueError: unknown backend, no environment, or not as many seeds or seed lists as environments.
    """
    check_choice("backend", backend, BACKENDS)
    if not make_env:
        raise ValueError("a vector environment needs at least one environment, got none")
    seed_lists: Sequence[Sequence[int]] = [[]] * len(seeds) if episode_seeds is None else episode_seeds
    if len(seeds) != len(make_env):
        raise ValueError(f"{len(make_env)} environments need as many seeds, got {len(seeds)}")
    if len(seed_lists) != len(make_env):
        raise ValueError(f"{len(make_env)} environments need as many lists of episode seeds, got {len(seed_lists)}")
    makers = [
        partial(_seeded, make_one, [index(seed) for seed in (own_seeds if len(own_seeds) else [first_seed])], i)
        for i, (make_one, first_seed, own_seeds) in enumerate(zip(make_env, seeds, seed_lists, strict=True))
    ]
    if backend == "sync":
        return SyncEpisodes(makers, autoreset_mode=AutoresetMode.SAME_STEP)
    # shared memory would return texts as blanks
    return ProcessEpisodes(makers, shared_memory=False, autoreset_mode=AutoresetMode.SAME_STEP)


def _in_worker(make_one: Callable[[], gym.Env]) -> gym.Env:
    if multiprocessing.parent_process() is not None:  # gymnasium makes one in this process, too, to look at its spaces
        for number in LEFT_TO_PARENT:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, LEFT_TO_PARENT)
    return make_one()


def _kill(processes: Sequence[Any]) -> None:
    for process in processes:
        process.kill()


def _seeded(make_one: Callable[[], gym.Env], seeds: list[int], place: int) -> SeededEpisodes:
    env = make_one()
    return SeededEpisodes(env if isinstance(env, ReplayState) else ReplayState(env), seeds, place)
