"""Test episodes that are fixed beforehand, so that tests of different agents are paired; and their files."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from experiments.agents.base_agent import BaseAgent
from experiments.atomic_files import make_folder, save_array, write_atomically
from experiments.configuration import RLScriptArgs
from experiments.environments import episode_seed
from experiments.partial_results import PartialResults
from experiments.playing import EpisodeResult, Player, Slot, play_episodes
from experiments.substitutions import NO_MODIFICATION

logger = logging.getLogger("glam")

# Of a block: few enough that an interruption costs little, enough that environments seldom wait for the block's end.
EPISODES_PER_ENVIRONMENT = 8


def evaluate(
    rl: RLScriptArgs, agent: BaseAgent, test: str, partial: PartialResults | None = None
) -> list[EpisodeResult]:
    """Play one test with the configured stop rule.

    Episodes are played a block at a time, so that what an interrupted test plays later has the batches that it would
    have had: the scores of an LLM depend on their batch, if only by rounding.

    Args:
        test: a name of `substitutions.TESTS`.
        partial: keeps the blocks that are over; those that it holds are not played again. With stop_rule=first_n,
            whose episodes continue one another's streams, it keeps a whole test only.

    Returns:
        exactly `number_episodes` episodes, in the order of their numbers (first_n: in the order they finished).

    Raises:
        Stopped: a signal came (`finishing_steps`).
    """
    kept = None if partial is None else partial.read()
    episodes = [EpisodeResult._make([*row, [], None]) for row in kept or []]
    if episodes:
        logger.info("%s: %d of %d episodes were played before", test, len(episodes), rl.number_episodes)
    at_once = rl.number_envs * EPISODES_PER_ENVIRONMENT if rl.stop_rule == "per_episode" else rl.number_episodes
    with tqdm(total=rl.number_episodes, initial=len(episodes), desc=test, unit="episode", disable=None) as bar:
        while left := rl.number_episodes - len(episodes):
            block = range(len(episodes), len(episodes) + min(left, at_once))
            if rl.stop_rule == "per_episode":
                episodes += play_episodes(rl, agent, block, test, bar=bar)
            else:
                episodes += _first_n(rl, agent, test, bar)
            if partial is not None:
                partial.write([episode[: len(COLUMNS)] for episode in episodes])
    return episodes


def _first_n(rl: RLScriptArgs, agent: BaseAgent, test: str, bar: Any) -> list[EpisodeResult]:
    """The released rule: environments keep their streams, and the first `number_episodes` to finish count.

    PAPER-DIFF(3): short episodes are over-represented. For comparison only.
    """
    seeds = [episode_seed(rl.seed, i) for i in range(rl.number_envs)]
    slots = [Slot(iter(range(i, 10**9, rl.number_envs))) for i in range(rl.number_envs)]
    finished: list[EpisodeResult] = []
    for episode in Player(rl, agent, test).play(slots, seeds, None):
        finished.append(episode._replace(episode=len(finished)))
        bar.update()
        if len(finished) == rl.number_episodes:
            return finished
    raise AssertionError("environments do not run out of episodes")


COLUMNS = EpisodeResult._fields[: EpisodeResult._fields.index("transitions")]


def summary(episodes: Sequence[EpisodeResult]) -> dict[str, Any]:
    """Totals, and the same for every kind of task: episodes, success_rate, mean_return (raw), mean_frames, mean and
    standard deviation (over the episodes, of all) of the discounted return and of the length in primitive steps, the
    number of episodes that the bot gave up, and the share of prompts that the test changed."""

    def totals(some: Sequence[EpisodeResult]) -> dict[str, float]:
        frames = sum(e.frames for e in some)
        discounted = np.array([e.discounted_return for e in some])
        lengths = np.array([e.primitive_steps for e in some])
        return {
            "episodes": len(some),
            "success_rate": float(np.mean([e.success for e in some])),
            "mean_return": float(np.mean([e.episode_return for e in some])),
            "mean_frames": float(np.mean([e.frames for e in some])),
            "mean_discounted_return": float(discounted.mean()),
            "std_discounted_return": float(discounted.std()),
            "mean_primitive_steps": float(lengths.mean()),
            "std_primitive_steps": float(lengths.std()),
            "gave_up": sum(e.gave_up for e in some),
            "changed_prompts_share": sum(e.changed_prompts for e in some) / max(frames, 1),
        }

    tasks = sorted({e.task for e in episodes})
    return {**totals(episodes), "per_task": {task: totals([e for e in episodes if e.task == task]) for task in tasks}}


def result_line(episodes: Sequence[EpisodeResult]) -> str:
    """The totals of a test, and the success rate of every kind of task where there are several."""
    totals = summary(episodes)
    line = (
        f"success {totals['success_rate']:.3f}, mean return {totals['mean_return']:.3f} "
        f"(discounted {totals['mean_discounted_return']:.3f} ± {totals['std_discounted_return']:.3f}), length "
        f"{totals['mean_primitive_steps']:.1f} ± {totals['std_primitive_steps']:.1f} over {len(episodes)} episodes"
    )
    tasks = totals["per_task"]
    if len(tasks) < 2:
        return line
    return line + " (" + ", ".join(f"{task} {tasks[task]['success_rate']:.3f}" for task in tasks) + ")"


def remarks(rl: RLScriptArgs, test: str, episodes: Sequence[EpisodeResult]) -> list[str]:
    """Warnings about a test's totals: the bot gave up in some episodes, or the test changed no prompt."""
    lines = []
    if gave_up := sum(episode.gave_up for episode in episodes):
        lines.append(f"the bot gave up in {gave_up} of {len(episodes)} episodes, which end there and count as failures")
    prompts = sum(episode.frames for episode in episodes)
    changes = test != NO_MODIFICATION or rl.modified_action_space
    if changes and prompts and not any(episode.changed_prompts for episode in episodes):
        lines.append(f"none of the {prompts} prompts was changed, so that the result is the one without this test")
    return lines


def write_results(folder: Path, stem: str, episodes: Sequence[EpisodeResult], facts: dict[str, Any]) -> None:
    """Write a test's files: `return_per_episode/STEM.npy`, `episodes/STEM.csv` and `episodes/STEM.json`.

    Args:
        folder: logs/ID/test/ENV.
        facts: agent, test and whatever a table needs to name the row; the json holds them, and `summary` as `results`.
    """
    for name in ("return_per_episode", "episodes"):
        make_folder(folder / name)
    returns = np.array([episode.episode_return for episode in episodes])
    save_array(folder / "return_per_episode" / f"{stem}.npy", returns)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([int(cell) if isinstance(cell, bool) else cell for cell in e[: len(COLUMNS)]] for e in episodes)
    write_atomically(folder / "episodes" / f"{stem}.csv", buffer.getvalue())
    write_atomically(
        folder / "episodes" / f"{stem}.json", json.dumps({**facts, "results": summary(episodes)}, indent=1)
    )
