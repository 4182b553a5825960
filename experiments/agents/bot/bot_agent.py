"""Plays what minigrid's BabyAI bot advises."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from minigrid.utils.baby_ai_bot import BabyAIBot

from experiments.agents.base_agent import Policy, View
from experiments.configuration import RLScriptArgs
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
    """Adds `info["bot_action"]`, the bot's choice in the state that the info describes, and ends episodes it gives up.

    The bot runs next to its environment, so that it also works in worker processes. It gives up if it cannot plan (in a
    few levels, or after a box was opened), at most once per episode: the step that leads to such a state truncates the
    episode and sets `info["gave_up"]`. If the reset leads to it, the next step ends the episode without playing its
    action, with `info["duration"]` 0.
    """

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(**kwargs)
        self.bot: Any = None
        self.advice = self._ask()
        self.shown = observation, {**info, **self._told()}
        return self.shown

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        if self.advice == GIVEN_UP:
            observation, info = self.shown
            return observation, 0.0, False, True, {**info, "duration": 0}
        followed = int(action) == self.advice
        observation, reward, terminated, truncated, info = self.env.step(action)
        if not (terminated or truncated):
            # the bot is told of an action only when it was another one than its own
            self.advice = self._ask() if followed else self._ask(int(action))
            truncated = self.advice == GIVEN_UP
        return observation, reward, terminated, truncated, {**info, **self._told()}

    def _told(self) -> dict[str, Any]:
        return {"bot_action": self.advice, "gave_up": self.advice == GIVEN_UP}

    def _ask(self, *played: int) -> int:
        """The bot's choice."""
        try:
            if self.bot is None:
                self.bot = BabyAIBot(self.env)
            self.bot.stack = Plan(self.bot.stack)  # counts anew for every decision
            choice = self.bot.replan(*played)
            if not self.bot.stack:
                raise AssertionError("the plan is over, and the episode is not")
            return int(choice)
        except Exception as error:  # not only its assertions: a failed search makes its code raise TypeError and others
            logger.debug("the bot gives up in %s: %r", self.spec.id if self.spec else self.env, error)
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
            if action == GIVEN_UP:
                row[0] = 0.0  # any action, as the environment plays none
                continue
            if action not in view.text.action_ids:
                raise UserError(
                    f"rl_script_args.action_space: the bot needs {CANONICAL_ACTIONS[action]}, add it or choose another "
                    "level"
                )
            row[view.text.action_ids.index(action)] = 0.0
        return Policy(log_probs)

    def begin(self, rl: RLScriptArgs, test: str) -> None:
        pass

    def close(self) -> None:
        pass
