"""PPO without its network: collect a rollout, estimate advantages, take gradient steps.

An agent adds how to see (`_first_observations`, `_next_observations`), how to decide (`_decide`) and how to take one
gradient step (`_minibatch_step`). One with a schedule of its own replaces `_gradient_steps`, epochs of minibatches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from experiments.agents.ppo.advantages import compute_gae
from experiments.agents.ppo.rollout import Rollout, Samples
from experiments.configuration import RLScriptArgs
from experiments.episodes import Episode, EpisodeCounter, action_durations, sample_actions
from experiments.nonfinite import NonFiniteError, SkippedSteps, can_be_taken


@dataclass(frozen=True)
class PPOConfig:
    """Settings of the loop around the gradient step; see configs/base.yaml for their meaning."""

    steps_per_env: int
    gamma: float
    gae_lambda: float
    reward_scale: float
    epochs: int
    batch_size: int
    bootstrap_timeouts: bool
    normalize_advantages: bool
    target_kl: float | None
    max_skipped_gradient_steps: int

    @classmethod
    def of(cls, rl: RLScriptArgs) -> PPOConfig:
        return cls(
            steps_per_env=rl.frames_per_proc,
            gamma=rl.discount,
            gae_lambda=rl.gae_lambda,
            reward_scale=rl.reward_scale,
            epochs=rl.epochs,
            batch_size=rl.batch_size,
            bootstrap_timeouts=rl.bootstrap_timeouts,
            normalize_advantages=rl.normalize_advantages,
            target_kl=rl.target_kl,
            max_skipped_gradient_steps=rl.max_skipped_gradient_steps,
        )


class Decision(NamedTuple):
    """What a policy says of N states."""

    log_probs: Tensor  # (N, A), -inf where a state has fewer than A candidates
    values: Tensor  # (N,)
    features: Tensor | None = None  # (N, hidden) of a frozen model, from which the critic learns without running it


class BasePPOAgent(ABC):
    """Collects with `collect_rollout`, learns with `update`; `get_state`/`set_state` carry all it needs to go on.

    Args:
        envs: vector environment (SAME_STEP autoreset).
        config: the loop's settings.
        seed: of action sampling and minibatch order, two independent streams.
    """

    def __init__(self, envs: Any, config: PPOConfig, seed: int) -> None:
        self.envs = envs
        self.config = config
        sampling, order = np.random.SeedSequence(seed).spawn(2)
        self.sampling = np.random.default_rng(sampling)
        self.order = np.random.default_rng(order)
        self.counter = EpisodeCounter.empty(envs.num_envs, config.gamma)
        self.skipping = SkippedSteps(config.max_skipped_gradient_steps)
        self.observations: list[Any] = []

    # -- what an agent adds ---------------------------------------------------------------------------------------

    @abstractmethod
    def _first_observations(self) -> list[Any]:
        """Reset the environments; one observation per environment."""

    @abstractmethod
    def _next_observations(self, actions: np.ndarray, step: tuple) -> tuple[list[Any], list[Any]]:
        """The observations after a vector step, and of every environment the one it acted its way to: that is the
        finished episode's last state where an episode ended (the first list then holds the new episode's first)."""

    @abstractmethod
    def _decide(self, observations: list[Any]) -> Decision:
        """The policy and the value of N states, without gradient."""

    @abstractmethod
    def _environment_actions(self, actions: np.ndarray) -> np.ndarray:
        """What the environments are sent for the chosen candidates of `self.observations`."""

    @abstractmethod
    def _minibatch_step(self, samples: Samples) -> dict[str, float]:
        """One gradient step, without effect unless `can_be_taken`; returns what is logged of it, of which `loss`,
        `grad_norm`, `approx_kl` and `ratio_error` are read here."""

    # -- collect --------------------------------------------------------------------------------------------------

    def collect_rollout(self) -> Rollout:
        """Act `steps_per_env` steps in every environment with the present policy."""
        if not self.observations:
            self.observations = self._first_observations()
        seen: list[list[Any]] = []
        episodes: list[Episode] = []
        columns: dict[str, list[Tensor]] = defaultdict(list)
        for _ in range(self.config.steps_per_env):
            decision = self._decide(self.observations)
            actions = sample_actions(decision.log_probs.numpy(), self.sampling.random(len(self.observations)))
            step = self.envs.step(self._environment_actions(actions))
            _, rewards, terminated, truncated, infos = step
            ended = terminated | truncated
            seen.append(self.observations)
            self.observations, reached = self._next_observations(actions, step)
            taken = torch.as_tensor(actions)
            columns["actions"].append(taken)
            columns["log_probs"].append(decision.log_probs.gather(1, taken[:, None])[:, 0])
            columns["values"].append(decision.values)
            if decision.features is not None:
                columns["features"].append(decision.features)
            columns["rewards"].append(torch.as_tensor(rewards, dtype=torch.float32) * self.config.reward_scale)
            columns["ends"].append(torch.as_tensor(ended))
            columns["end_values"].append(self._timeout_values(reached, truncated & ~terminated))
            durations = action_durations(infos, ended)
            columns["durations"].append(torch.as_tensor(durations))
            episodes += self.counter.step(rewards, terminated, truncated, durations).values()
        stacked = {name: torch.stack(rows) for name, rows in columns.items()}
        return Rollout(seen, **stacked, last_values=self._decide(self.observations).values, episodes=episodes)

    def _timeout_values(self, reached: list[Any], timed_out: np.ndarray) -> Tensor:
        """(N,) value of the last state of the episodes that ran out of time, where they are bootstrapped; else 0."""
        values = torch.zeros(len(reached))
        which = np.flatnonzero(timed_out) if self.config.bootstrap_timeouts else np.array([], dtype=int)
        if len(which):
            values[torch.as_tensor(which)] = self._decide([reached[i] for i in which]).values
        return values

    # -- learn ----------------------------------------------------------------------------------------------------

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Advantages, then gradient steps; returns the means of what those report that were taken.

        Raises:
            NonFiniteError: returns overflow, or too many gradient steps in a row were skipped.
        """
        steps, skipped = [], 0
        for number, step in enumerate(self._gradient_steps(self._samples(rollout)), start=1):
            if self.skipping.taken(step["loss"], step["grad_norm"], number, self._part(step)):
                steps.append(step)
            else:
                skipped += 1
        return {**self._summary(steps), "skipped_gradient_steps": float(skipped)}

    def _samples(self, rollout: Rollout) -> Samples:
        """The decisions of a rollout with their advantages, normalised where that is asked for."""
        advantages = compute_gae(
            rollout.rewards,
            rollout.values,
            rollout.ends,
            rollout.last_values,
            gamma=self.config.gamma,
            lam=self.config.gae_lambda,
            end_values=rollout.end_values,
            durations=rollout.durations,
        )
        if not torch.isfinite(advantages.returns).all():
            raise NonFiniteError(
                f"returns overflow: rewards of rl_script_args.name_environment are as large as "
                f"{rollout.rewards.abs().max():.3g} times rl_script_args.reward_scale, give a smaller one"
            )
        samples = rollout.samples(advantages)
        if self.config.normalize_advantages:
            a = samples.advantages
            samples = samples._replace(advantages=(a - a.mean()) / (a.std(correction=0) + 1e-8))
        return samples

    def _gradient_steps(self, samples: Samples) -> Iterator[dict[str, float]]:
        """Take the gradient steps of an update, yielding what each reports (`_minibatch_step`) before the next."""
        for minibatch in self._minibatches(len(samples.observations)):
            step = self._minibatch_step(samples.select(minibatch))
            yield step
            was_taken = can_be_taken(step["loss"], step["grad_norm"])
            if was_taken and self.config.target_kl is not None and step["approx_kl"] > self.config.target_kl:
                return

    def _part(self, step: dict[str, float]) -> str:
        """Which part of the network a gradient step was of, where each has an optimizer of its own."""
        return ""

    def _summary(self, steps: Sequence[dict[str, float]]) -> dict[str, float]:
        """What an update reports, of the reports of its gradient steps that were taken: their means and number."""
        stats = {"gradient_steps": float(len(steps))}
        if steps:
            stats |= {name: float(np.mean([step[name] for step in steps])) for name in steps[0]}
            stats["first_ratio_error"] = steps[0]["ratio_error"]  # no step before it has changed the weights
        return stats

    def _minibatches(self, frames: int) -> Iterator[np.ndarray]:
        """Index arrays: a new seeded permutation per epoch, cut into slices of `batch_size` (the last may be short)."""
        for _ in range(self.config.epochs):
            order = self.order.permutation(frames)
            for start in range(0, frames, self.config.batch_size):
                yield order[start : start + self.config.batch_size]

    # -- resume ---------------------------------------------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        """JSON-able: environments, running episodes and random generators."""
        return {
            "environments": self.envs.get_state() if self.observations else None,
            "counter": self.counter.get_state(),
            "sampling": self.sampling.bit_generator.state,
            "order": self.order.bit_generator.state,
            "skipping": self.skipping.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue where `get_state` was taken; subclasses put back their observations."""
        if state["environments"] is not None:
            self.envs.set_state(state["environments"])
        self.counter.set_state(state["counter"])
        self.sampling.bit_generator.state = state["sampling"]
        self.order.bit_generator.state = state["order"]
        self.skipping.set_state(state.get("skipping"))
