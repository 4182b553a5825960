"""Export of (prompt, action) pairs for behavioural cloning."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from experiments.agents.base_agent import BaseAgent
from experiments.atomic_files import write_atomically
from experiments.configuration import RLScriptArgs
from experiments.playing import Transition, play_episodes

FIRST_EPISODE = 250_000_000  # far from the numbers of test episodes
EPISODES_AT_ONCE = 100
TRANSITIONS_PER_FILE = 10_000


def export_prefix(agent: str) -> str:
    """How the files of an agent's trajectories begin."""
    return "bot_trajectories" if agent == "bot" else "trajectories"


def export_trajectories(rl: RLScriptArgs, agent: BaseAgent, folder: Path, facts: dict[str, Any]) -> list[Path]:
    """Play `num_steps` frames and write them as `[bot_]trajectories_{prompts,actions}_K.npy`, K = 0, 1, ...

    The two arrays of a K are aligned, one-dimensional arrays of strings that load without pickle, of 10,000 transitions
    (the last file may be shorter). What is written does not depend on `number_envs`. `[bot_]trajectories.json` tells
    where they come from; files of a longer export before this one are removed, so that "all" files are one export's.

    PAPER-DIFF(14): the released exports are pickled, misaligned, and begin episodes with the last one's description.

    Args:
        facts: agent, configuration and whatever tells the export from another.

    Returns:
        the array files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    prefix = export_prefix(agent.name)
    # until the end it tells of none: what a kill leaves, files of this export and of one before, is not taken for whole
    _write_record(folder / f"{prefix}.json", facts, 0)
    transitions = islice(_transitions(rl, agent), rl.num_steps)
    written: list[Path] = []
    while part := list(islice(transitions, TRANSITIONS_PER_FILE)):
        number = len(written) // 2
        for name, texts in (("prompts", [t.prompt for t in part]), ("actions", [t.action for t in part])):
            path = folder / f"{prefix}_{name}_{number}.npy"
            temporary = folder / f".{path.name}"
            np.save(temporary, np.array(texts))
            temporary.replace(path)
            written.append(path)
    for path in folder.glob(f"{prefix}_*.npy"):
        if path not in written and re.fullmatch(rf"{prefix}_(prompts|actions)_\d+\.npy", path.name):
            path.unlink()
    _write_record(folder / f"{prefix}.json", facts, rl.num_steps)
    return written


def _write_record(path: Path, facts: dict[str, Any], transitions: int) -> None:
    write_atomically(path, json.dumps({**facts, "transitions": transitions}, indent=1))


def _transitions(rl: RLScriptArgs, agent: BaseAgent) -> Iterator[Transition]:
    """Endless; a block of episodes at a time, as what a block yields must not depend on who finishes first."""
    first = FIRST_EPISODE
    while True:
        block = range(first, first + EPISODES_AT_ONCE)
        for episode in play_episodes(rl, agent, block, with_transitions=True, label="export"):
            yield from episode.transitions
        first += EPISODES_AT_ONCE
