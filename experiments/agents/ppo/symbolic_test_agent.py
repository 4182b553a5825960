"""Symbolic-PPO without learning, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from experiments.agents.base_agent import Policy, View
from experiments.agents.ppo.symbolic_policy import SymbolicPolicy, SymbolicView, empty_memory
from experiments.configuration import RLScriptArgs
from experiments.nonfinite import check_policy


class SymbolicTestAgent:
    """The policy as in training, with a memory per environment.

    It sees the image and the mission, which stays English: prompts in French, or with renamed actions, are nothing to
    it. Words that training did not show are unknown to it.
    """

    name: ClassVar[str] = "symbolic"
    env_wrapper: ClassVar[Any] = None

    def __init__(self, policy: SymbolicPolicy) -> None:
        self.policy = policy
        self.memory: dict[int, Tensor] = {}

    @torch.no_grad()
    def decide(self, views: Sequence[View]) -> Policy:
        memories = [self.memory.get(view.environment, empty_memory()) for view in views]  # not used where view.first
        unrolled = self.policy.unroll(
            [
                SymbolicView(view.observation["image"], view.mission, view.first, memory)
                for view, memory in zip(views, memories, strict=True)
            ]
        )
        for view, memory in zip(views, unrolled.memory.transpose(0, 1).cpu(), strict=True):
            self.memory[view.environment] = memory
        policy = Policy(unrolled.log_probs.cpu().numpy(), unrolled.values.cpu().numpy())
        check_policy(policy.log_probs, policy.values, [view.mission for view in views])
        return policy

    def begin(self, rl: RLScriptArgs, test: str) -> None:
        pass

    def close(self) -> None:
        self.memory.clear()
