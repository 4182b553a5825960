"""Warm-start: imitate the bot for a few steps, so that a tiny model has the role of a pretrained LLM."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from experiments.agents.bot import BotAgent
from experiments.configuration import RLScriptArgs
from experiments.environments import make_envs, split_infos
from experiments.prompters import make_prompters
from experiments.prompters.stepping import advance_prompters, start_prompters
from lamorel import BaseUpdater, Caller

logger = logging.getLogger(__name__)

SEED_OFFSET = 500_000_000  # bot episodes are seeded 1e9 * seed + offset + i: neither training nor test episodes


class Demonstration(NamedTuple):
    """What the bot did in a state."""

    prompt: str
    action: str


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


def bot_demonstrations(rl: RLScriptArgs, episodes: int) -> list[Demonstration]:
    """What the bot does in `episodes` episodes of the configured level, seen through the configured prompter."""
    count = min(rl.number_envs, episodes)
    seeds = [[int(1e9 * rl.seed) + SEED_OFFSET + k for k in range(i, episodes, count)] for i in range(count)]
    rl = dataclasses.replace(rl, number_envs=count)
    bot, prompters = BotAgent(), make_prompters(rl)
    envs = make_envs(rl, seeds=[s[0] for s in seeds], episode_seeds=seeds, wrapper=bot.env_wrapper)
    observations, infos = envs.reset()
    states = start_prompters(prompters, observations, infos)
    left = [len(s) for s in seeds]
    demonstrations = []
    while any(left):
        actions = bot.act(states, split_infos(infos, count), np.zeros(count))
        for i, state in enumerate(states):
            if left[i]:
                demonstrations.append(Demonstration(state.prompt, state.candidates[actions[i]]))
        sent = np.array([state.action_ids[a] for state, a in zip(states, actions, strict=True)])
        observations, _, terminated, truncated, infos = envs.step(sent)
        ended = terminated | truncated
        left = [max(n - int(e), 0) for n, e in zip(left, ended, strict=True)]
        states, _ = advance_prompters(prompters, actions, observations, ended, infos)
    envs.close()
    return demonstrations


def clone(caller: Caller, data: Sequence[Demonstration], *, steps: int, batch_size: int, seed: int) -> list[float]:
    """`steps` gradient steps on seeded random batches; returns the loss of each, nats per action."""
    order = np.random.default_rng(seed)
    losses = []
    for _ in tqdm(range(steps), desc="warm start", unit="step", disable=None):
        batch = [data[i] for i in order.choice(len(data), size=batch_size)]
        losses += caller.update([d.prompt for d in batch], [[d.action] for d in batch])
    return losses
