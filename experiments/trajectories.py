"""Export of (prompt, action) pairs for behavioural cloning."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from experiments.agents.base_agent import BaseAgent
from experiments.atomic_files import make_folder, save_array, write_atomically
from experiments.configuration import RLScriptArgs
from experiments.errors import UserError
from experiments.partial_results import PartialResults
from experiments.playing import Transition, play_episodes

logger = logging.getLogger("glam")

FIRST_EPISODE = 250_000_000  # far from the numbers of test episodes
EPISODES_AT_ONCE = 100
TRANSITIONS_PER_FILE = 10_000


def export_prefix(agent: str) -> str:
    """How the files of an agent's trajectories begin."""
    return "bot_trajectories" if agent == "bot" else "trajectories"


def export_trajectories(
    rl: RLScriptArgs, agent: BaseAgent, folder: Path, facts: dict[str, Any], partial: PartialResults | None = None
) -> list[Path]:
    """Play `num_steps` frames and write them as `[bot_]trajectories_{prompts,actions}_K.npy`, K = 0, 1, ...

    The two arrays of a K are aligned, one-dimensional arrays of strings that load without pickle, of 10,000 transitions
    (the last file may be shorter). What is written does not depend on `number_envs`. Episodes that the bot gave up are
    left out. `[bot_]trajectories.json` tells where they come from, how many episodes were played and how many of those
    given up; files of a longer export before this one are removed, so that "all" files are one export's.

    PAPER-DIFF(14): the released exports are pickled, misaligned, and begin episodes with the last one's description.

    Args:
        facts: agent, configuration and whatever tells the export from another.
        partial: keeps how many files are whole; those are not made again.

    Returns:
        the array files.

    Raises:
        UserError: the bot gave up in all of the first episodes, and no file was written.
        Stopped: a signal came (`finishing_steps`).
    """
    make_folder(folder)
    prefix = export_prefix(agent.name)
    record = folder / f"{prefix}.json"
    files, first, skipped, gave_up = _whole_files(folder, prefix, partial)
    written = [path for number in range(files) for path in _paths(folder, prefix, number)]
    left = rl.num_steps - files * TRANSITIONS_PER_FILE
    transitions = islice(_transitions(rl, agent, first, gave_up), skipped, skipped + left)
    while part := list(islice(transitions, TRANSITIONS_PER_FILE)):
        # 0 until the end: files of this export and of an earlier one, as a kill leaves them, do not count as whole
        _write_record(record, {**facts, "transitions": 0})
        for path, texts in zip(
            _paths(folder, prefix, files),
            ([t.prompt for _, _, t in part], [t.action for _, _, t in part]),
            strict=True,
        ):
            save_array(path, np.array(texts))
            written.append(path)
        files += 1
        if partial is not None and len(part) == TRANSITIONS_PER_FILE:
            first, index, _ = part[-1]
            partial.write([files, first, index + 1, gave_up])
    for path in folder.glob(f"{prefix}_*.npy"):
        if path not in written and re.fullmatch(rf"{prefix}_(prompts|actions)_\d+\.npy", path.name):
            path.unlink()
    episodes, left_out = len(gave_up) * EPISODES_AT_ONCE, sum(gave_up)
    _write_record(record, {**facts, "transitions": rl.num_steps, "episodes": episodes, "gave_up": left_out})
    logger.info("%d transitions in %d files of %s", rl.num_steps, len(written), folder)
    if left_out:
        logger.warning("the bot gave up in %d of %d episodes, which are left out", left_out, episodes)
    return written


def _whole_files(folder: Path, prefix: str, partial: PartialResults | None) -> tuple[int, int, int, list[int]]:
    """How many files are whole; the first episode of the block that comes next, and how much of it is in them; and for
    every block, this one included, in how many episodes the bot gave up."""
    if partial is not None and (kept := partial.read()) is not None:
        files, first, skipped, gave_up = kept
        missing = [path for number in range(files) for path in _paths(folder, prefix, number) if not path.exists()]
        if not missing:
            logger.info("%d transitions were exported before", files * TRANSITIONS_PER_FILE)
            return files, first, skipped, gave_up
        logger.warning("%s is gone: starting from the beginning", missing[0])
    return 0, FIRST_EPISODE, 0, []


def _paths(folder: Path, prefix: str, number: int) -> tuple[Path, Path]:
    return folder / f"{prefix}_prompts_{number}.npy", folder / f"{prefix}_actions_{number}.npy"


def _write_record(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(content, indent=1))


def _transitions(
    rl: RLScriptArgs, agent: BaseAgent, first: int, gave_up: list[int]
) -> Iterator[tuple[int, int, Transition]]:
    """Endless, each with its block's first episode and its index in the block; skips episodes that the bot gave up.

    A block of episodes at a time, as what a block yields must not depend on who finishes first.

    Args:
        gave_up: number of episodes given up in every block so far; updated with every block that is played.
    """
    while True:
        played = play_episodes(rl, agent, range(first, first + EPISODES_AT_ONCE), with_transitions=True, label="export")
        episodes = [episode for episode in played if not episode.gave_up]
        gave_up[(first - FIRST_EPISODE) // EPISODES_AT_ONCE :] = [len(played) - len(episodes)]
        if sum(gave_up) == len(gave_up) * EPISODES_AT_ONCE:
            raise UserError(
                f"rl_script_args.name_environment={rl.name_environment}: the bot gave up in all of {sum(gave_up)} "
                "episodes, so that there is nothing to export, choose another level"
            )
        for index, transition in enumerate(transition for episode in episodes for transition in episode.transitions):
            yield first, index, transition
        first += EPISODES_AT_ONCE
