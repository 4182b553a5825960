"""The two tasks as gymnasium environments."""

from __future__ import annotations

from functools import cache
from operator import index
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from virtualhome_text.entertainment import ENTERTAINMENT
from virtualhome_text.food_preparation import FOOD_PREPARATION
from virtualhome_text.household import Household
from virtualhome_text.rendering import draw, write
from virtualhome_text.task import WORDINGS, Task

GAMMA = 0.95  # of info["discounted_return"], per step


@cache  # a task has some hundred observations at most
def _text(task: Task, wording: str, observation: Any) -> tuple[str, tuple[str, ...], tuple[int, ...]]:
    """Prompt, phrases and ids of an observation."""
    ids = task.offered(observation)
    return task.prompt(observation), tuple(task.actions[i].worded(wording) for i in ids), ids


class HouseholdEnv(gym.Env[np.ndarray, Any]):
    """A task in the household, as text. Deterministic: seeds change nothing.

    Observations are int64 vectors of bits, (11,) in food preparation and (21,) in entertainment. Every action may be
    stepped, offered or not; one that cannot be done changes nothing. Success earns 1 and terminates, the step limit
    truncates; both can fall on one step.

    info, after reset and step: `prompt` (str), `actions` (the offered phrases) with `action_ids` (ascending),
    `duration` (1), `succeed` (whether the last action could be done; True after reset), and of the episode so far
    `discounted_return`, by 0.95 per step, and `primitive_steps`.

    Args:
        wording: "2023-10", or "2023-09" for the earlier phrases of some actions.
        max_steps: steps of an episode at most.
        render_mode: None, "ansi" or "rgb_array".

    Raises:
        ValueError: an option's value that is not allowed.
    """

    task: ClassVar[Task]
    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}  # noqa: RUF012 (as in gymnasium.Env)

    def __init__(self, wording: str = "2023-10", max_steps: int = 50, render_mode: str | None = None) -> None:
        if wording not in WORDINGS:
            raise ValueError(f"wording must be one of {', '.join(map(repr, WORDINGS))}, got {wording!r}")
        if isinstance(max_steps, bool) or not isinstance(max_steps, int | np.integer) or max_steps < 1:
            raise ValueError(f"max_steps must be a whole number of at least 1, got {max_steps!r}")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be None, 'ansi' or 'rgb_array', got {render_mode!r}")
        self.wording = wording
        self.max_steps = int(max_steps)
        self.render_mode = render_mode
        self.observation_space = gym.spaces.Box(0, 1, (self.task.size,), np.int64)
        self.action_space = gym.spaces.Discrete(len(self.task.actions))
        self._over = True  # until reset
        self._begin()

    def _begin(self) -> None:
        self.household = Household(self.task.fixtures, self.task.items)
        self.steps = 0
        self.discounted_return = 0.0
        self.succeed = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._begin()
        self._over = False
        return self._now(self.task.observe(self.household))

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Raises ResetNeeded without a running episode, ValueError on an action that is no id of the task."""
        if self._over:
            raise gym.error.ResetNeeded("there is no running episode: call reset before step")
        action = self._checked(action)
        chosen = self.task.actions[action]
        self.succeed = self.household.act(chosen.verb, chosen.names)
        observation = self.task.observe(self.household)
        terminated = self.task.succeeded(observation)
        reward = float(terminated)
        self.discounted_return += GAMMA**self.steps * reward
        self.steps += 1
        truncated = self.steps >= self.max_steps
        self._over = terminated or truncated
        vector, info = self._now(observation)
        return vector, reward, terminated, truncated, info

    def _checked(self, action: Any) -> int:
        count = len(self.task.actions)
        try:
            number = index(action)
        except TypeError:
            number = -1
        if not 0 <= number < count:
            raise ValueError(f"an action of {self.task.name} is a whole number from 0 to {count - 1}, got {action!r}")
        return number

    def _now(self, observation: Any) -> tuple[np.ndarray, dict[str, Any]]:
        prompt, phrases, ids = _text(self.task, self.wording, observation)
        info: dict[str, Any] = {
            "prompt": prompt,
            "actions": list(phrases),
            "action_ids": list(ids),
            "duration": 1,
            "succeed": self.succeed,
            "discounted_return": self.discounted_return,
            "primitive_steps": self.steps,
        }
        return np.array(observation, np.int64), info

    def render(self) -> Any:
        """A text frame, or an image of shape (height, width, 3) and dtype uint8; None without a render mode."""
        if self.render_mode == "ansi":
            return write(self.household, self.steps, self.max_steps)
        if self.render_mode == "rgb_array":
            return draw(self.household, self.steps, self.max_steps)
        return None

    def get_state(self) -> dict[str, Any]:
        """The running or ended episode, JSON-able. Raises ResetNeeded where there is none yet."""
        if self._over and self.steps == 0:
            raise gym.error.ResetNeeded("get_state needs an episode: call reset first")
        return {
            "task": self.task.name,
            "household": self.household.get_state(),
            "steps": self.steps,
            "discounted_return": self.discounted_return,
            "succeed": self.succeed,
            "over": self._over,
        }

    def set_state(self, state: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
        """Go back to a saved state; returns the observation and info of its last reset or step.

        Raises:
            ValueError: the state was saved by the other task.
        """
        if state["task"] != self.task.name:
            raise ValueError(f"this state was saved in {state['task']}, it does not fit {self.task.name}")
        self.household.set_state(state["household"])
        self.steps = state["steps"]
        self.discounted_return = state["discounted_return"]
        self.succeed = state["succeed"]
        self._over = state["over"]
        return self._now(self.task.observe(self.household))


class FoodPreparation(HouseholdEnv):
    task = FOOD_PREPARATION


class Entertainment(HouseholdEnv):
    task = ENTERTAINMENT
