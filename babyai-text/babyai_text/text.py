"""The wrapper that adds the sentences of `describe` to a MiniGrid environment's info."""

from multiprocessing.reduction import ForkingPickler
from operator import index
from typing import Any

import cloudpickle
import gymnasium as gym
from gymnasium.utils import RecordConstructorArgs
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit
from minigrid.core.actions import Actions
from minigrid.core.mission import MissionSpace
from minigrid.minigrid_env import MiniGridEnv

from babyai_text.description import LANGUAGES, WALLS, describe
from babyai_text.options import check_choice
from babyai_text.quiet import silence


def _by_value(space: MissionSpace) -> tuple[Any, ...]:
    return cloudpickle.loads, (cloudpickle.dumps(space),)


# missions often come from a lambda, and gymnasium pickles the spaces to check them in worker processes
ForkingPickler.register(MissionSpace, _by_value)


class TextInfo(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Adds `info["descriptions"]`, a list of sentences for the state after each reset and step.

    The sentences describe the level's own view (`gen_obs`), even if the id includes wrappers that change observations.
    Observations of such wrappers are returned if they contain a mission; otherwise the level's own are. Without such
    wrappers `reset` returns the view at the end of the reset.
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
        self._bare = _without_passive(env) is env.unwrapped
        space = env.observation_space
        words = space.get("mission") if isinstance(space, gym.spaces.Dict) else None
        # return the level's own observation, as the wrappers' has no mission
        self._own = not isinstance(words, MissionSpace | gym.spaces.Text)
        if self._own:
            self.observation_space = env.unwrapped.observation_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        if self._bare:
            # a fresh view: levels that start with an object in hand put it there after minigrid made the observation
            core: Any = self.unwrapped
            observation = {**observation, "image": core.gen_obs()["image"]}
        return self._with_text(observation, info)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        # a plain int, because minigrid compares actions and numpy's integers are slow at it
        action = min(index(action), int(Actions.done))
        observation, reward, terminated, truncated, info = self.env.step(action)
        observation, info = self._with_text(observation, info)
        return observation, reward, terminated, truncated, info

    def _with_text(self, observation: Any, info: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        core: Any = self.unwrapped
        view = observation if self._bare else core.gen_obs()
        info["descriptions"] = describe(self.env, self.language, view["image"], walls=self.walls)
        return view if self._own else observation, info


def _without_passive(env: gym.Env) -> gym.Env:
    """Unwrap the wrappers of `gymnasium.make` that do not change observations."""
    while isinstance(env, OrderEnforcing | PassiveEnvChecker | TimeLimit):
        env = env.env
    return env
