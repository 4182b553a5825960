"""The fixed prompts on which `distrib.csv` follows the policy through training: 11 English ones over all tasks.

Each is a recorded state of BabyAI-MixedTrainLocal: a task kind, a seed, and the actions played from the reset on. It is
rebuilt by playing them, so that the text always is what babyai_text says of that state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from experiments.prompters import TextState
from experiments.prompters.glam_prompter import GlamPrompter, environment_action_ids

LEVEL = "BabyAI-MixedTrainLocal-v0"
LEFT, RIGHT, FORWARD, PICK_UP, DROP, TOGGLE = range(6)


class Probe(NamedTuple):
    """A recorded state."""

    task_kind: str
    seed: int
    actions: tuple[int, ...]


PROBES = (
    Probe("goto", 0, ()),
    Probe("goto", 1, (LEFT, FORWARD)),
    Probe("goto", 2, (RIGHT,)),
    Probe("pickup", 3, ()),
    Probe("pickup", 4, (FORWARD, RIGHT)),
    Probe("open", 5, ()),
    Probe("open", 6, (LEFT, LEFT)),
    Probe("putnext", 7, ()),
    Probe("putnext", 8, (FORWARD, PICK_UP)),
    Probe("pick up seq go to", 9, ()),
    Probe("pick up seq go to", 10, (RIGHT, FORWARD)),
)
GO_TO_ONLY = 2  # template_test=2 keeps the first two


def probe_states(action_space: Sequence[str], nbr_obs: int, template_test: int) -> list[TextState]:
    """The probe prompts for an action list.

    Args:
        action_space: names with underscores, as configured.
        nbr_obs: observations in the prompt.
        template_test: 1 for all 11 probes, 2 for the first two.
    """
    return [_play(probe, action_space, nbr_obs) for probe in PROBES[: None if template_test == 1 else GO_TO_ONLY]]


def _play(probe: Probe, action_space: Sequence[str], nbr_obs: int) -> TextState:
    import babyai_text

    env = babyai_text.make(LEVEL, task_kind=probe.task_kind)
    observation, info = env.reset(seed=probe.seed)
    names = [name.replace("_", " ") for name in action_space]
    shown = GlamPrompter(names, environment_action_ids(action_space), nbr_obs)
    shown.reset(observation["mission"])
    shown.observe(observation, info)
    for action in probe.actions:
        observation, _, _, _, info = env.step(action)
        # an action that the configured list lacks is shown as the list's first one
        index = shown.action_ids.index(action) if action in shown.action_ids else 0
        shown.observe(observation, info, index)
    env.close()
    return shown.state()
