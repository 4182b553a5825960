"""Levels as a user's package registers them: MiniGrid's environment subclassed, with wrappers of their own or none."""

from gymnasium import register
from minigrid.core.grid import Grid
from minigrid.core.mission import MissionSpace
from minigrid.core.world_object import Ball, Goal
from minigrid.minigrid_env import MiniGridEnv
from minigrid.wrappers import ImgObsWrapper

from babyai_text.levels import MixedTrainLocal


class Room(MiniGridEnv):
    """The goal in the corner, beside a ball; no time limit of its own choosing without `max_steps`."""

    def __init__(self, size=6, max_steps=20, **kwargs):
        space = MissionSpace(mission_func=lambda: "reach the goal")
        super().__init__(mission_space=space, grid_size=size, max_steps=max_steps, **kwargs)

    def _gen_grid(self, width, height):
        self.grid = Grid(width, height)
        self.grid.wall_rect(0, 0, width, height)
        self.put_obj(Goal(), width - 2, height - 2)
        self.put_obj(Ball("blue"), 3, 2)
        self.agent_pos, self.agent_dir = (1, 1), 0
        self.mission = "reach the goal"


class FixedRoom(Room):
    """Takes no option."""

    def __init__(self):
        super().__init__()


class OwnMixed(MixedTrainLocal):
    """One of babyai_text's levels, with options handed on."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)


def make_wrapped(**kwargs):
    """An environment whose observation is the image alone."""
    return ImgObsWrapper(Room(**kwargs))


for name, entry_point in (("Room", Room), ("FixedRoom", FixedRoom), ("Mixed", OwnMixed), ("Wrapped", make_wrapped)):
    register(f"Own{name}-v0", entry_point)
