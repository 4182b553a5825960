"""TWOSOME: the same LLM policy, its adapters and a frozen critic trained one after the other (arXiv 2401.14151)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from experiments.agents.ppo.base_ppo_agent import PPOConfig
from experiments.agents.ppo.llm_policy import LLMPolicy
from experiments.agents.ppo.llm_ppo_agent import LLMPPOAgent
from experiments.agents.ppo.rollout import Rollout, Samples
from experiments.agents.ppo.twosome_schedule import TwosomeSchedule
from experiments.agents.ppo.twosome_updater import ACTOR, CRITIC
from experiments.nonfinite import can_be_taken
from experiments.prompters import Prompter, TextState
from lamorel import Caller


class TwosomePPOAgent(LLMPPOAgent):
    """In each epoch all gradient steps of the critic, then those of the actor, over the same order of samples.

    Args:
        caller: with `policy.module_functions()` and a `TwosomeUpdater` of the same policy.
        loss_coefs: of entropy and value loss, for what is logged as the loss.
    """

    def __init__(
        self,
        envs: Any,
        prompters: Sequence[Prompter],
        caller: Caller,
        policy: LLMPolicy,
        config: PPOConfig,
        schedule: TwosomeSchedule,
        *,
        loss_coefs: tuple[float, float],
        seed: int,
        calibration_states: Callable[[], list[TextState]] | None = None,
    ) -> None:
        super().__init__(envs, prompters, caller, policy, config, seed=seed, calibration_states=calibration_states)
        self.schedule = schedule
        self.loss_coefs = loss_coefs
        self.updates = 0  # that are over

    def update(self, rollout: Rollout) -> dict[str, float]:
        stats = super().update(rollout)
        self.updates += 1
        return stats

    def _gradient_steps(self, samples: Samples) -> Iterator[dict[str, float]]:
        """Where a step of the actor is dropped for its KL divergence, the actor takes no further one in this update."""
        schedule, update = self.schedule, self.updates + 1
        rate = schedule.rate(update)
        actor_learns = not schedule.warms_up(update)
        for _ in range(self.config.epochs):
            order = self.order.permutation(len(samples.observations))
            for minibatch in schedule.critic_steps(order):
                yield self._llm_step(samples.select(minibatch), part=CRITIC, lr=rate * schedule.critic_lr)
            for minibatches in schedule.actor_steps(order) if actor_learns else []:
                chosen = samples.select(np.concatenate(minibatches))
                advantages = schedule.normalized(samples.advantages, minibatches)
                chosen = chosen._replace(advantages=advantages, features=None)
                step = self._llm_step(chosen, part=ACTOR, lr=rate * schedule.actor_lr)
                yield step
                if step["dropped"] and can_be_taken(step["loss"], step["grad_norm"]):
                    actor_learns = False
                    break

    def _part(self, step: dict[str, float]) -> str:
        return CRITIC if "value_loss" in step else ACTOR

    def _summary(self, steps: Sequence[dict[str, float]]) -> dict[str, float]:
        """Means over each part's steps; the step that was dropped counts in what is said of the ratio alone."""
        critic = [step for step in steps if "value_loss" in step]
        compared = [step for step in steps if "approx_kl" in step]
        actor = [step for step in compared if not step["dropped"]]
        stats = {"gradient_steps": float(len(critic) + len(actor)), "actor_stopped": float(len(actor) < len(compared))}
        if critic:
            stats |= {"value_loss": _mean(critic, "value_loss"), "critic_grad_norm": _mean(critic, "grad_norm")}
        if compared:
            stats |= {name: _mean(compared, name) for name in ("approx_kl", "clip_fraction", "ratio_error")}
            stats["first_ratio_error"] = compared[0]["ratio_error"]  # no step before it has changed the actor
        if actor:
            stats |= {name: _mean(actor, name) for name in ("policy_loss", "entropy", "grad_norm")}
        if actor and critic:
            entropy_coef, value_loss_coef = self.loss_coefs
            stats["loss"] = (
                stats["policy_loss"] - entropy_coef * stats["entropy"] + value_loss_coef * stats["value_loss"]
            )
        return stats

    def get_state(self) -> dict[str, Any]:
        return {**super().get_state(), "updates": self.updates}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self.updates = state["updates"]


def _mean(steps: Sequence[dict[str, float]], name: str) -> float:
    return float(np.mean([step[name] for step in steps]))
