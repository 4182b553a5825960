"""Mission generation without output: minigrid prints a line on stdout for every room it throws away."""

from types import MethodType

import gymnasium as gym
from minigrid.core.roomgrid import RoomGrid
from minigrid.envs.babyai.core.roomgrid_level import RejectSampling, RoomGridLevel


def generate_quietly(level: RoomGridLevel, width: int, height: int) -> None:
    """Draw rooms with the running generator until one has a valid mission.

    The same loop and the same draws as `RoomGridLevel._gen_grid` of minigrid 3.2, which only adds a `print` to each
    rejection. Both rejections are part of the level's definition: an invalid mission, and an object that found no
    place in 1000 tries (minigrid's RecursionError).
    """
    while True:
        try:
            RoomGrid._gen_grid(level, width, height)
            level.gen_mission()
            level.validate_instrs(level.instrs)  # type: ignore[attr-defined]
        except (RejectSampling, RecursionError):
            continue
        break
    level.surface = level.mission = level.instrs.surface(level)  # type: ignore[attr-defined]


def silence(env: gym.Env) -> None:
    """Make one environment generate quietly; nothing changes for other environments or for stdout itself."""
    if isinstance(env, RoomGridLevel) and type(env)._gen_grid is RoomGridLevel._gen_grid:
        env._gen_grid = MethodType(generate_quietly, env)  # type: ignore[method-assign]
