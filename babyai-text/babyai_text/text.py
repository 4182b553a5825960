"""The wrapper that adds the sentences of `describe` to a MiniGrid environment's info."""

from operator import index
from typing import Any

import gymnasium as gym
from gymnasium.utils import RecordConstructorArgs
from minigrid.core.actions import Actions
from minigrid.minigrid_env import MiniGridEnv

from babyai_text.description import LANGUAGES, WALLS, describe
from babyai_text.options import check_choice
from babyai_text.quiet import silence


class TextInfo(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Adds `info["descriptions"]`, a list of sentences for the state after each reset and step.

    Wrap the environment before any wrapper that changes its `image` observation: the sentences are made from it, and
    `reset` gives the agent's view as it is at the end of the reset.
    Actions beyond "done" (6) are sent as "done", which changes nothing, so that a longer list of action names works.

    Raises:
        TypeError: `env` is not a MiniGrid environment.
        ValueError: unknown `language` or `walls`.
    """

    def __init__(self, env: gym.Env, language: str = "english", walls: str = "published"):
        RecordConstructorArgs.__init__(self, language=language, walls=walls)
        super().__init__(env)
        if not isinstance(env.unwrapped, MiniGridEnv):
            raise TypeError(f"text descriptions need a MiniGrid environment, got {env.unwrapped}")
        check_choice("language", language, LANGUAGES)
        check_choice("walls", walls, WALLS)
        self.language = language
        self.walls = walls
        silence(env.unwrapped)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        # a fresh view: levels that start with an object in hand put it there after minigrid made the observation
        core: Any = self.unwrapped
        observation = {**observation, "image": core.gen_obs()["image"]}
        return observation, self._add_text(observation, info)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        # a plain int, because minigrid compares actions and numpy's integers are slow at it
        action = min(index(action), int(Actions.done))
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated, truncated, self._add_text(observation, info)

    def _add_text(self, observation: Any, info: dict[str, Any]) -> dict[str, Any]:
        info["descriptions"] = describe(self.env, self.language, observation["image"], walls=self.walls)
        return info
