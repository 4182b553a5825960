"""The ids of this package in gymnasium, and in the old gym where that is installed."""

import sys
from collections.abc import Callable
from typing import Any

import gymnasium as gym
from minigrid.envs.babyai import GoToLocal

from babyai_text.levels import (
    GoToAfterPickUpLocal,
    MixedTestLocal,
    MixedTrainLocal,
    PickUpSeqGoToLocal,
    PickUpSeqPickUpLocal,
    PickUpThenGoToLocal,
)
from babyai_text.options import step_limit
from babyai_text.text import TextInfo

# id -> (class, options of the class or of the text)
LEVELS: dict[str, tuple[Callable[..., gym.Env], dict[str, Any]]] = {
    "BabyAI-MixedTrainLocal-v0": (MixedTrainLocal, {}),
    "BabyAI-MixedTrainLocalFrench-v0": (MixedTrainLocal, {"language": "french"}),
    "BabyAI-MixedTestLocal-v0": (MixedTestLocal, {}),
    "BabyAI-PickUpSeqGoToLocal-v0": (PickUpSeqGoToLocal, {}),
    "BabyAI-PickUpThenGoToLocal-v0": (PickUpThenGoToLocal, {}),
    "BabyAI-GoToAfterPickUpLocal-v0": (GoToAfterPickUpLocal, {}),
    "BabyAI-PickUpSeqPickUpLocal-v0": (PickUpSeqPickUpLocal, {}),
    "BabyAI-GoToFrench-v0": (GoToLocal, {"language": "french"}),
    "BabyAI-GoToLocalS8N16-v0": (GoToLocal, {"room_size": 8, "num_dists": 16}),
}


def level_with_text(
    level: str, language: str = "english", walls: str = "published", *, max_steps: int | None = None, **options: Any
) -> TextInfo:
    """The entry point of all ids: the level's class with its sentences."""
    level_class, _ = LEVELS[level]
    return TextInfo(level_class(max_steps=step_limit(max_steps), **options), language, walls)


def register_levels() -> None:
    """Register the ids in gymnasium; one that is already there (minigrid may adopt a name) is left alone."""
    for level, (_, options) in LEVELS.items():
        if level not in gym.registry:
            gym.register(level, f"{__name__}:level_with_text", kwargs={"level": level, **options})
    if "gym" in sys.modules:
        register_in_old_gym()


def register_in_old_gym() -> None:
    """Register every BabyAI id, with text, in gym 0.26.

    gym itself calls this as a plugin (entry point group `gym.envs`); it is not imported from here before the user does,
    because it is slow to import and prints a notice.
    """
    from gym.envs.registration import register, registry

    for level in gym.registry:
        if level.startswith("BabyAI-") and level not in registry:
            # gym's checker of 2022 fails with numpy 2
            register(level, "babyai_text.making:make", disable_env_checker=True, kwargs={"level": level})
