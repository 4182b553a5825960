"""Vector PPO without learning, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from experiments.agents.base_agent import Policy, View
from experiments.agents.ppo.offered_actions import OfferedActions
from experiments.agents.ppo.vector_policy import VectorPolicy
from experiments.agents.ppo.vector_ppo_agent import vector_view
from experiments.configuration import RLScriptArgs
from experiments.nonfinite import check_policy


class VectorTestAgent:
    """The policy as in training. How the prompt words things is nothing to it."""

    name: ClassVar[str] = "symbolic"
    env_wrapper: ClassVar[Any] = OfferedActions

    def __init__(self, policy: VectorPolicy) -> None:
        self.policy = policy

    @torch.no_grad()
    def decide(self, views: Sequence[View]) -> Policy:
        of_ids, values = self.policy.evaluate([vector_view(view.observation, view.info) for view in views])
        # from the environment's ids to the candidates of each state
        log_probs = np.full((len(views), max(len(view.text.action_ids) for view in views)), -np.inf)
        for row, view, of_view in zip(log_probs, views, of_ids.cpu().numpy(), strict=True):
            row[: len(view.text.action_ids)] = of_view[view.text.action_ids]
        policy = Policy(log_probs, values.cpu().numpy())
        check_policy(policy.log_probs, policy.values, [view.text.prompt for view in views])
        return policy

    def begin(self, rl: RLScriptArgs, test: str) -> None:
        pass

    def close(self) -> None:
        """It holds nothing."""
