"""A test of whether the goal sentence matters: the policy is told of another object than the one that is rewarded."""

from __future__ import annotations

import re
from typing import Any

import gymnasium as gym

OBJECT_PHRASE = re.compile(r"\b(?:the|a) (?:(\w+) )?(key|ball|box|door)\b")


class OtherGoal(gym.Wrapper):
    """Replaces the first object that the mission names by another object of the room; reward and end stay as they are.

    The other object differs in colour or type; of several the first in reading order of the grid is taken. A mission
    without an object phrase, or a room without another object, is left as it is. `info["other_goal"]` is whether the
    mission was replaced.
    """

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(**kwargs)
        self.shown_mission = other_mission(observation["mission"], _objects(self.env.unwrapped))
        return self._shown(observation, info)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        observation, info = self._shown(observation, info)
        return observation, reward, terminated, truncated, info

    def _shown(self, observation: Any, info: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        other = self.shown_mission != observation["mission"]
        return {**observation, "mission": self.shown_mission}, {**info, "other_goal": other}


def other_mission(mission: str, objects: list[tuple[str, str]]) -> str:
    """The mission with its first object replaced.

    Args:
        objects: (colour, type) of what lies in the room.
    """
    named = OBJECT_PHRASE.search(mission)
    if named is None:
        return mission
    colour, kind = named.groups()
    for other_colour, other_kind in objects:
        if other_kind != kind or (colour is not None and other_colour != colour):
            return f"{mission[: named.start()]}the {other_colour} {other_kind}{mission[named.end() :]}"
    return mission


def _objects(env: Any) -> list[tuple[str, str]]:
    return [
        (cell.color, cell.type)
        for cell in env.grid.grid
        if cell is not None and cell.type in ("key", "ball", "box", "door")
    ]
