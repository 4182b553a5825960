"""Plays what minigrid's BabyAI bot advises."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from minigrid.utils.baby_ai_bot import BabyAIBot, DisappearedBoxError

from experiments.agents.base_agent import Policy, View
from experiments.errors import UserError
from experiments.prompters.glam_prompter import CANONICAL_ACTIONS

logger = logging.getLogger(__name__)

GIVEN_UP = -1  # no action of the environment
PLAN_LIMIT = 1000  # subgoals pushed for one decision; plans that succeed need some tens


class Plan(list[Any]):
    """The bot's stack of subgoals, which ends a plan that goes round in circles (UnlockToUnlock)."""

    pushed = 0

    def append(self, subgoal: Any) -> None:
        self.pushed += 1
        if self.pushed > PLAN_LIMIT:
            raise AssertionError("the plan does not end")  # as the bot's own code says that it cannot plan
        super().append(subgoal)


class BotAdvice(gym.Wrapper):
    """Adds `info["bot_action"]`, the bot's choice in the state that the info describes.

    The bot sits beside its environment, so that it also works in worker processes.
    """

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(**kwargs)
        self.bot = BabyAIBot(self.env)
        self.advice = self._ask()
        return observation, {**info, "bot_action": self.advice}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        followed = int(action) == self.advice
        observation, reward, terminated, truncated, info = self.env.step(action)
        if not (terminated or truncated):
            # the bot is told of an action only when it was another one than its own
            self.advice = self._ask() if followed else self._ask(int(action))
        return observation, reward, terminated, truncated, {**info, "bot_action": self.advice}

    def _ask(self, *played: int) -> int:
        """The bot's choice; it gives up on what it cannot plan (a few levels, or a box that was opened)."""
        try:
            self.bot.stack = Plan(self.bot.stack)  # counts anew for every decision
            return int(self.bot.replan(*played))
        except (AssertionError, DisappearedBoxError) as error:
            logger.debug("the bot gives up in %s: %s", self.spec.id if self.spec else self.env, error)
            return GIVEN_UP


class BotAgent:
    """The expert; needs `BotAdvice` around every environment."""

    name: ClassVar[str] = "bot"
    env_wrapper: ClassVar[Any] = BotAdvice

    def decide(self, views: Sequence[View]) -> Policy:
        """All probability on the bot's action. Raises UserError where that is not in the action list."""
        log_probs = np.full((len(views), max(len(view.text.candidates) for view in views)), -np.inf)
        for row, view in zip(log_probs, views, strict=True):
            action = int(view.info["bot_action"])
            if action == GIVEN_UP:  # the episode then runs into its time limit
                row[0] = 0.0
                continue
            if action not in view.text.action_ids:
                name = CANONICAL_ACTIONS[action] if action < len(CANONICAL_ACTIONS) else "done"
                raise UserError(f"rl_script_args.action_space: the bot needs {name}, add it or choose another level")
            row[view.text.action_ids.index(action)] = 0.0
        return Policy(log_probs)

    def close(self) -> None:
        pass
