"""The two tasks as gymnasium environments."""

from __future__ import annotations

import math
from functools import lru_cache
from operator import index
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from overcooked_text import prompts
from overcooked_text.kitchen import Event, Kitchen
from overcooked_text.macro_actions import macro_action, number_of
from overcooked_text.observation import highest, observe
from overcooked_text.rendering import draw, write
from overcooked_text.tasks import TOMATO_LETTUCE_SALAD, TOMATO_SALAD, Task

GAMMA = 0.99  # per primitive step, within a macro-action's reward and in info["discounted_return"]


@lru_cache(maxsize=2**16)
def _text(task: Task, vector: tuple[int, ...]) -> tuple[str, tuple[str, ...]]:
    return prompts.prompt(task, vector), prompts.phrases(task, vector)


class OvercookedEnv(gym.Env[np.ndarray, Any]):
    """A task in the kitchen, as text, one macro-action per step. Deterministic: seeds change nothing.

    Observations are int64 vectors, (18,) for the tomato salad and (26,) for the tomato-lettuce salad, see
    `overcooked_text.observation`. Every macro-action may be taken in every state. The reward of one is the sum of its
    primitive steps' rewards, discounted by 0.99 per step. Serving the right bowl terminates. The step limit truncates,
    but the macro-action in which it falls is finished, so episodes can be longer; both can fall on one step.

    info, after reset and step: `prompt` (str), `actions` (the phrase of each macro-action) with `action_ids` (all of
    them, ascending), `duration`, the primitive steps of the last macro-action (1 after reset), and of the episode so
    far `discounted_return`, by 0.99 per primitive step, and `primitive_steps`.

    Args:
        view_radius: how many rows and columns away the agent sees things.
        chop_reward: for each time a food of the recipe is chopped.
        delivery_reward: for serving the right bowl.
        wrong_delivery_penalty: what serving anything else costs.
        step_cost: what every primitive step costs.
        max_steps: primitive steps after which no further macro-action begins.
        render_mode: None, "ansi" (str) or "rgb_array" (uint8, height x width x 3).

    Raises:
        ValueError: an option's value that is not allowed.
    """

    task: ClassVar[Task]
    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}  # noqa: RUF012 (gymnasium declares it of instances)

    def __init__(
        self,
        view_radius: int = 2,
        chop_reward: float = 0.2,
        delivery_reward: float = 1.0,
        wrong_delivery_penalty: float = 0.1,
        step_cost: float = 0.001,
        max_steps: int = 200,
        render_mode: str | None = None,
    ) -> None:
        self.view_radius = _whole("view_radius", view_radius)
        self.max_steps = _whole("max_steps", max_steps)
        self.step_cost = _amount("step_cost", step_cost)
        self.earned = {
            Event.NOTHING: 0.0,
            Event.CHOPPED: _amount("chop_reward", chop_reward),
            Event.DELIVERED: _amount("delivery_reward", delivery_reward),
            Event.WRONG_DELIVERY: -_amount("wrong_delivery_penalty", wrong_delivery_penalty),
        }
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be None, 'ansi' or 'rgb_array', got {render_mode!r}")
        self.render_mode = render_mode
        self.observation_space = gym.spaces.Box(0, np.array(highest(self.task)), dtype=np.int64)
        self.action_space = gym.spaces.Discrete(number_of(self.task))
        self._over = True  # until reset
        self._begin()

    def _begin(self) -> None:
        self.kitchen = Kitchen(self.task)
        self.steps = 0
        self.duration = 1
        self.discounted_return = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._begin()
        self._over = False
        return self._now()

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Raises ResetNeeded without a running episode, ValueError on an action that is no id of the task."""
        if self._over:
            raise gym.error.ResetNeeded("there is no running episode: call reset before step")
        action = self._checked(action)
        reward, discount, terminated, self.duration = 0.0, 1.0, False, 0
        for event in macro_action(self.kitchen, action, self.view_radius):
            reward += discount * (self.earned[event] - self.step_cost)
            discount *= GAMMA
            self.duration += 1
            terminated = event is Event.DELIVERED  # the last step of its macro-action
        self.discounted_return += GAMMA**self.steps * reward
        self.steps += self.duration
        truncated = self.steps >= self.max_steps
        self._over = terminated or truncated
        vector, info = self._now()
        return vector, reward, terminated, truncated, info

    def _checked(self, action: Any) -> int:
        count = number_of(self.task)
        try:
            number = index(action)
        except TypeError:
            number = -1
        if not 0 <= number < count:
            raise ValueError(f"an action of {self.task.name} is a whole number from 0 to {count - 1}, got {action!r}")
        return number

    def _now(self) -> tuple[np.ndarray, dict[str, Any]]:
        vector = observe(self.kitchen, self.view_radius)
        prompt, phrases = _text(self.task, vector)
        info: dict[str, Any] = {
            "prompt": prompt,
            "actions": list(phrases),
            "action_ids": list(range(len(phrases))),
            "duration": self.duration,
            "discounted_return": self.discounted_return,
            "primitive_steps": self.steps,
        }
        return np.array(vector, np.int64), info

    def render(self) -> Any:
        """A frame of the kitchen; None without a render mode."""
        if self.render_mode == "ansi":
            return write(self.kitchen, self.steps, self.max_steps)
        return draw(self.kitchen) if self.render_mode == "rgb_array" else None

    def get_state(self) -> dict[str, Any]:
        """The running or ended episode, JSON-able. Raises ResetNeeded where there is none yet."""
        if self._over and self.steps == 0:
            raise gym.error.ResetNeeded("get_state needs an episode: call reset first")
        return {
            "task": self.task.name,
            "kitchen": self.kitchen.get_state(),
            "steps": self.steps,
            "duration": self.duration,
            "discounted_return": self.discounted_return,
            "over": self._over,
        }

    def set_state(self, state: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
        """Go back to a saved state; returns the observation and info of its last reset or step.

        Raises:
            ValueError: the state was saved by the other task.
        """
        if state["task"] != self.task.name:
            raise ValueError(f"this state was saved in {state['task']}, it does not fit {self.task.name}")
        self.kitchen.set_state(state["kitchen"])
        self.steps = state["steps"]
        self.duration = state["duration"]
        self.discounted_return = state["discounted_return"]
        self._over = state["over"]
        return self._now()


class TomatoSalad(OvercookedEnv):
    task = TOMATO_SALAD


class TomatoLettuceSalad(OvercookedEnv):
    task = TOMATO_LETTUCE_SALAD


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    return int(value)


def _amount(name: str, value: Any) -> float:
    """Rewards and costs alike are given without a sign."""
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} must be a finite number of at least 0, got {value!r}")
    return float(value)
