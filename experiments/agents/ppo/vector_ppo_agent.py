"""Vector PPO: PPO on the environment's vector of numbers instead of a prompt (TWOSOME's baseline)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from experiments.agents.ppo.base_ppo_agent import BasePPOAgent, Decision, PPOConfig
from experiments.agents.ppo.network_file import load_optimizer, save_optimizer
from experiments.agents.ppo.network_step import NetworkUpdateConfig, gradient_step, make_optimizer
from experiments.agents.ppo.rollout import Samples
from experiments.agents.ppo.vector_policy import VectorPolicy, VectorView
from experiments.environments import split_infos, split_observations
from experiments.nonfinite import check_policy
from experiments.prompters import TextState


class VectorPPOAgent(BasePPOAgent):
    """PPO over a `VectorPolicy`, whose actions are the environment's ids; only those that it offers are taken.

    Args:
        envs: vector environment with observations (D,) and, in info, `action_ids` (`OfferedActions`).
        policy: its network learns.
    """

    name: ClassVar[str] = "symbolic"  # the same key selects both baselines without an LLM
    reads_prompts: ClassVar[bool] = False

    def __init__(
        self, envs: Any, policy: VectorPolicy, config: PPOConfig, update_config: NetworkUpdateConfig, *, seed: int
    ) -> None:
        super().__init__(envs, config, seed)
        self.policy = policy
        self.update_config = update_config
        self.optimizer = make_optimizer(policy.network, update_config)

    # -- collect --------------------------------------------------------------------------------------------------

    def _first_observations(self) -> list[VectorView]:
        observations, infos = self.envs.reset()
        return self._views(observations, infos)

    def _next_observations(self, actions: np.ndarray, step: tuple) -> tuple[list[VectorView], list[VectorView]]:
        observations, _, terminated, truncated, infos = step
        following = self._views(observations, infos)
        reached = list(following)
        ended = np.flatnonzero(terminated | truncated)
        if len(ended):
            last = split_infos(infos["final_info"], len(actions))
            for i in ended:
                reached[i] = vector_view(infos["final_obs"][i], last[i])
        return following, reached

    def _views(self, observations: Any, infos: dict[str, Any]) -> list[VectorView]:
        count = self.envs.num_envs
        seen, rows = split_observations(observations, count), split_infos(infos, count)
        return [vector_view(observation, info) for observation, info in zip(seen, rows, strict=True)]

    def _environment_actions(self, actions: np.ndarray) -> np.ndarray:
        return actions

    @torch.no_grad()
    def _decide(self, observations: list[VectorView]) -> Decision:
        log_probs, values = self.policy.evaluate(observations)
        decision = Decision(log_probs.cpu(), values.cpu())
        check_policy(decision.log_probs.numpy(), decision.values.numpy(), [view.vector for view in observations])
        return decision

    # -- learn ----------------------------------------------------------------------------------------------------

    def _minibatch_step(self, samples: Samples) -> dict[str, float]:
        log_policy, values = self.policy.evaluate(samples.observations)
        return gradient_step(self.policy.network, self.optimizer, log_policy, values, samples, self.update_config)

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
        views = [{"vector": view.vector.tolist(), "action_ids": list(view.action_ids)} for view in self.observations]
        return {**super().get_state(), "views": views}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self.observations = [VectorView(np.array(view["vector"]), tuple(view["action_ids"])) for view in state["views"]]


def vector_view(observation: np.ndarray, info: dict[str, Any]) -> VectorView:
    """What one environment shows."""
    return VectorView(observation, tuple(int(i) for i in info["action_ids"]))
