"""Export of (prompt, action) pairs for behavioural cloning."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiments.agents.base_agent import BaseAgent
from experiments.configuration import RLScriptArgs
from experiments.evaluation import Transition, play_episodes

FIRST_EPISODE = 250_000_000  # far from the numbers of test episodes
EPISODES_AT_ONCE = 100
TRANSITIONS_PER_FILE = 10_000


def export_trajectories(rl: RLScriptArgs, agent: BaseAgent, folder: Path) -> list[Path]:
    """Play `num_steps` frames and write them as `[bot_]trajectories_{prompts,actions}_K.npy`, K = 0, 1, ...

    The two arrays of a K are aligned, one-dimensional arrays of strings that load without pickle, of 10,000 transitions
    (the last file may be shorter). What is written does not depend on `number_envs`.

    Returns:
        the files.
    """
    transitions: list[Transition] = []
    first = FIRST_EPISODE
    while len(transitions) < rl.num_steps:
        block = play_episodes(rl, agent, range(first, first + EPISODES_AT_ONCE), "export", with_transitions=True)
        transitions += [transition for episode in block for transition in episode.transitions]
        first += EPISODES_AT_ONCE
    transitions = transitions[: rl.num_steps]
    prefix = "bot_trajectories" if agent.name == "bot" else "trajectories"
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, start in enumerate(range(0, len(transitions), TRANSITIONS_PER_FILE)):
        part = transitions[start : start + TRANSITIONS_PER_FILE]
        for name, texts in (("prompts", [t.prompt for t in part]), ("actions", [t.action for t in part])):
            path = folder / f"{prefix}_{name}_{number}.npy"
            temporary = folder / f".{path.name}"
            np.save(temporary, np.array(texts))
            temporary.replace(path)
            written.append(path)
    return written
