"""Show prompters what a vector environment returns, through the masks of its infos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.environments import missions, split_infos, split_observations
from experiments.prompters.base_prompter import Prompter, TextState


def start_prompters(prompters: Sequence[Prompter], observations: Any, infos: dict[str, Any]) -> list[TextState]:
    """Show the prompters what a vector reset gave; returns the states to act in."""
    count = len(prompters)
    goals, seen, rows = (
        missions(observations, count),
        split_observations(observations, count),
        split_infos(infos, count),
    )
    for i, prompter in enumerate(prompters):
        prompter.reset(goals[i])
        prompter.observe(seen[i], rows[i])
    return [prompter.state() for prompter in prompters]


def advance_prompters(
    prompters: Sequence[Prompter], actions: np.ndarray, observations: Any, ended: np.ndarray, infos: dict[str, Any]
) -> tuple[list[TextState], list[TextState]]:
    """Show the prompters a vector step; where an episode ended, its last state first and then the new episode's first.

    Returns:
        the states to act in next, and the states that the actions led to (they differ where an episode ended).
    """
    count = len(prompters)
    goals, seen, rows = (
        missions(observations, count),
        split_observations(observations, count),
        split_infos(infos, count),
    )
    last_rows = split_infos(infos.get("final_info", {}), count)
    following, reached = [], []
    for i, prompter in enumerate(prompters):
        if not ended[i]:
            prompter.observe(seen[i], rows[i], int(actions[i]))
            following.append(prompter.state())
            reached.append(following[-1])
            continue
        prompter.observe(infos["final_obs"][i], last_rows[i], int(actions[i]))
        reached.append(prompter.state())
        prompter.reset(goals[i])
        prompter.observe(seen[i], rows[i])
        following.append(prompter.state())
    return following, reached
