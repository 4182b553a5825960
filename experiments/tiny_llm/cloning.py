"""Warm-start: imitate the bot for a few steps, so that a tiny model has the role of a pretrained LLM."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from experiments.agents.bot import BotAgent
from experiments.configuration import RLScriptArgs
from experiments.errors import UserError
from experiments.playing import Transition, play_episodes
from lamorel import BaseUpdater, Caller

logger = logging.getLogger("glam")

FIRST_EPISODE = 500_000_000  # of the bot: far from the numbers of test episodes


class CloningUpdater(BaseUpdater):
    """Loss = mean negative log-likelihood of the demonstrated action's tokens; Adam."""

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.lr = lr

    def setup(self) -> None:
        self.optimizer = torch.optim.Adam(self._llm_module.module._LLM_model.parameters(), lr=self.lr)

    def perform_update(
        self, contexts: list[str], candidates: list[list[str]], _current_batch_ids: Any, **kwargs: Any
    ) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        losses = self.accumulate(_negative_log_likelihood, ["__score"], contexts, candidates)
        self.optimizer.step()
        return float(losses.mean())


def _negative_log_likelihood(outputs: list[dict[str, Tensor]]) -> Tensor:
    return -torch.cat([output["__score"] for output in outputs])


def bot_demonstrations(rl: RLScriptArgs, episodes: int) -> list[Transition]:
    """What the bot does in `episodes` episodes of the configured level, seen through the configured prompter.

    Episodes that the bot gave up are left out.

    Raises:
        UserError: the bot gave up in all of them.
    """
    numbers = range(FIRST_EPISODE, FIRST_EPISODE + episodes)
    played = play_episodes(rl, BotAgent(), numbers, with_transitions=True, label="bot episodes")
    shown = [episode for episode in played if not episode.gave_up]
    if not shown:
        raise UserError(
            f"rl_script_args.tiny_llm.clone_episodes={episodes}: the bot to imitate gave up in all of them, set "
            f"tiny_llm.clone_steps=0 for {rl.name_environment}"
        )
    if len(shown) < episodes:
        logger.warning("the bot gave up in %d of %d episodes, which are left out", episodes - len(shown), episodes)
    return [transition for episode in shown for transition in episode.transitions]


def clone(caller: Caller, data: Sequence[Transition], *, steps: int, batch_size: int, seed: int) -> list[float]:
    """`steps` gradient steps on seeded random batches; returns the loss of each, nats per action."""
    order = np.random.default_rng(seed)
    losses = []
    for _ in tqdm(range(steps), desc="warm start", unit="step", disable=None):
        batch = [data[i] for i in order.choice(len(data), size=batch_size)]
        losses += caller.update([t.prompt for t in batch], [[t.action] for t in batch])
    return losses
