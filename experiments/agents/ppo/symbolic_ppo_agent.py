"""Symbolic-PPO: recurrent PPO on the symbolic view instead of a prompt (the paper's baseline, appendix)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from experiments.agents.ppo.base_ppo_agent import BasePPOAgent, Decision, PPOConfig
from experiments.agents.ppo.network_file import load_optimizer, save_optimizer
from experiments.agents.ppo.network_step import NetworkUpdateConfig, gradient_step, make_optimizer
from experiments.agents.ppo.rollout import Rollout, Samples
from experiments.agents.ppo.symbolic_policy import SymbolicPolicy, SymbolicView, empty_memory
from experiments.environments import mission, split_observations
from experiments.nonfinite import check_policy
from experiments.prompters import TextState


class SymbolicPPOAgent(BasePPOAgent):
    """PPO over a `SymbolicPolicy`; minibatches are made of sub-sequences of `recurrence` steps.

    Args:
        envs: vector environment whose observations hold `image` and `mission`.
        action_ids: what the environments are sent for each of the network's actions.
        policy: its network and vocabulary learn.
        recurrence: steps of a sub-sequence.
    """

    name: ClassVar[str] = "symbolic"
    reads_prompts: ClassVar[bool] = False

    def __init__(
        self,
        envs: Any,
        action_ids: Sequence[int],
        policy: SymbolicPolicy,
        config: PPOConfig,
        update_config: NetworkUpdateConfig,
        *,
        recurrence: int,
        seed: int,
    ) -> None:
        super().__init__(envs, config, seed)
        self.action_ids = np.array(action_ids)
        self.policy = policy
        self.update_config = update_config
        self.recurrence = recurrence
        self.memory = torch.stack([empty_memory()] * envs.num_envs)  # (N, 2, 128) after the latest decision
        self.optimizer = make_optimizer(policy.network, update_config)

    # -- collect --------------------------------------------------------------------------------------------------

    def _first_observations(self) -> list[SymbolicView]:
        observations, _ = self.envs.reset()
        return [self._view(o, None) for o in split_observations(observations, self.envs.num_envs)]

    def _next_observations(self, actions: np.ndarray, step: tuple) -> tuple[list[SymbolicView], list[SymbolicView]]:
        observations, _, terminated, truncated, infos = step
        following, reached = [], []
        for i, observation in enumerate(split_observations(observations, len(actions))):
            if terminated[i] or truncated[i]:
                following.append(self._view(observation, None))
                reached.append(self._view(infos["final_obs"][i], self.memory[i]))
            else:
                following.append(self._view(observation, self.memory[i]))
                reached.append(following[-1])
        return following, reached

    def _view(self, observation: Any, memory: Tensor | None) -> SymbolicView:
        """Memory None: an episode begins."""
        self.policy.vocabulary.learn(mission(observation))
        return SymbolicView(
            observation["image"], mission(observation), memory is None, empty_memory() if memory is None else memory
        )

    def _environment_actions(self, actions: np.ndarray) -> np.ndarray:
        return self.action_ids[actions]

    @torch.no_grad()
    def _decide(self, observations: list[SymbolicView]) -> Decision:
        unrolled = self.policy.unroll(observations)
        # for `_next_observations`, which follows a decision in all environments
        self.memory = unrolled.memory.transpose(0, 1).cpu()
        decision = Decision(unrolled.log_probs.cpu(), unrolled.values.cpu())
        check_policy(decision.log_probs.numpy(), decision.values.numpy(), [view.mission for view in observations])
        return decision

    # -- learn ----------------------------------------------------------------------------------------------------

    def update(self, rollout: Rollout) -> dict[str, float]:
        stats = super().update(rollout)
        if stats["gradient_steps"]:  # else the policy stays as it was, all of it
            views = [view for row in rollout.observations for view in row]
            sample = self.order.permutation(len(views))[: self.config.batch_size]
            self.policy.take_statistics([views[i] for i in sample])
        return stats

    def _minibatches(self, frames: int) -> Iterator[np.ndarray]:
        """Index arrays of whole sub-sequences, time-major: a new seeded permutation of them per epoch."""
        steps, envs = self.recurrence, self.envs.num_envs
        # sample t * N + i is step t of environment i; sub-sequences begin at every multiple of `steps`
        starts = np.arange(frames).reshape(-1, envs)[::steps].ravel()
        count = self.config.batch_size // steps
        for _ in range(self.config.epochs):
            order = self.order.permutation(starts)
            for i in range(0, len(order), count):
                yield (np.arange(steps)[:, None] * envs + order[i : i + count]).ravel()

    def _minibatch_step(self, samples: Samples) -> dict[str, float]:
        unrolled = self.policy.unroll(samples.observations, self.recurrence)
        return gradient_step(
            self.policy.network, self.optimizer, unrolled.log_probs, unrolled.values, samples, self.update_config
        )

    def probabilities(self, states: Sequence[TextState]) -> None:
        """None: it reads no prompts."""

    # -- resume ---------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        self.policy.save(folder)
        save_optimizer(self.optimizer, folder)

    def load(self, folder: Path) -> None:
        self.policy.load(folder)
        load_optimizer(self.optimizer, folder, self.policy.device)

    def get_state(self) -> dict[str, Any]:
        views = [
            {"image": view.image.tolist(), "mission": view.mission, "first": view.first, "memory": view.memory.tolist()}
            for view in self.observations
        ]
        return {**super().get_state(), "views": views}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self.observations = [
            SymbolicView(
                np.array(view["image"], dtype=np.uint8),
                view["mission"],
                view["first"],
                torch.tensor(view["memory"], dtype=torch.float32),
            )
            for view in state["views"]
        ]
