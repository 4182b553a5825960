"""Test episodes that are fixed beforehand, so that tests of different agents are paired; and their files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.agents.base_agent import BaseAgent
from experiments.atomic_files import write_atomically
from experiments.configuration import RLScriptArgs
from experiments.environments import episode_seed
from experiments.playing import EpisodeResult, Player, Slot, play_episodes


def evaluate(rl: RLScriptArgs, agent: BaseAgent, test: str) -> list[EpisodeResult]:
    """Play one test with the configured stop rule.

    Args:
        test: a name of `substitutions.TESTS`.

    Returns:
        exactly `number_episodes` episodes, in the order of their numbers (first_n: in the order they finished).
    """
    if rl.stop_rule == "first_n":
        return _first_n(rl, agent, test)
    return play_episodes(rl, agent, range(rl.number_episodes), test)


def _first_n(rl: RLScriptArgs, agent: BaseAgent, test: str) -> list[EpisodeResult]:
    """The released rule: environments keep their streams, and the first `number_episodes` to finish count.

    PAPER-DIFF(3): short episodes are over-represented. For comparison only.
    """
    seeds = [episode_seed(rl.seed, i) for i in range(rl.number_envs)]
    slots = [Slot(iter(range(i, 10**9, rl.number_envs))) for i in range(rl.number_envs)]
    finished: list[EpisodeResult] = []
    for episode in Player(rl, agent, test).play(slots, seeds, None):
        finished.append(episode._replace(episode=len(finished)))
        if len(finished) == rl.number_episodes:
            return finished
    raise AssertionError("environments do not run out of episodes")


COLUMNS = EpisodeResult._fields[: EpisodeResult._fields.index("transitions")]


def summary(episodes: Sequence[EpisodeResult]) -> dict[str, Any]:
    """Totals, and the same for every kind of task: episodes, success_rate, mean_return (raw), mean_frames."""

    def totals(some: Sequence[EpisodeResult]) -> dict[str, float]:
        return {
            "episodes": len(some),
            "success_rate": float(np.mean([e.success for e in some])),
            "mean_return": float(np.mean([e.episode_return for e in some])),
            "mean_frames": float(np.mean([e.frames for e in some])),
        }

    tasks = sorted({e.task for e in episodes})
    return {**totals(episodes), "per_task": {task: totals([e for e in episodes if e.task == task]) for task in tasks}}


def result_line(episodes: Sequence[EpisodeResult]) -> str:
    """The totals of a test, and the success rate of every kind of task where there are several."""
    totals = summary(episodes)
    line = (
        f"success {totals['success_rate']:.3f}, mean return {totals['mean_return']:.3f} over {len(episodes)} episodes"
    )
    tasks = totals["per_task"]
    if len(tasks) < 2:
        return line
    return line + " (" + ", ".join(f"{task} {tasks[task]['success_rate']:.3f}" for task in tasks) + ")"


def write_results(folder: Path, stem: str, episodes: Sequence[EpisodeResult], facts: dict[str, Any]) -> None:
    """Write a test's files: `return_per_episode/STEM.npy`, `episodes/STEM.csv` and `episodes/STEM.json`.

    Args:
        folder: logs/ID/test/ENV.
        facts: agent, test and whatever a table needs to name the row; the json holds them, and `summary` as `results`.
    """
    for name in ("return_per_episode", "episodes"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    temporary = folder / "return_per_episode" / f".{stem}.npy"
    np.save(temporary, np.array([episode.episode_return for episode in episodes]))
    temporary.replace(folder / "return_per_episode" / f"{stem}.npy")
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([*e[:5], int(e.success), e.frames] for e in episodes)
    write_atomically(folder / "episodes" / f"{stem}.csv", buffer.getvalue())
    write_atomically(
        folder / "episodes" / f"{stem}.json", json.dumps({**facts, "results": summary(episodes)}, indent=1)
    )
