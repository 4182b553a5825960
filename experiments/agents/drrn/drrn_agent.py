"""DRRN: Q-learning from replayed transitions, acting by sampling softmax(Q)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from experiments.agents.drrn.drrn_policy import DRRNPolicy
from experiments.agents.drrn.replay_memory import EncodedState, ReplayMemory, Transition
from experiments.agents.drrn.td_learning import td_targets
from experiments.configuration import DRRNArgs
from experiments.episodes import Episode, EpisodeCounter, action_durations, sample_actions
from experiments.nonfinite import SkippedSteps, can_be_taken
from experiments.prompters import Prompter, TextState
from experiments.prompters.stepping import advance_prompters, start_prompters

OPTIMIZER, MEMORY = "optimizer.pt", "memory"


@dataclass(frozen=True)
class DRRNConfig:
    """Settings of the loop around the network; see configs/base.yaml for their meaning."""

    steps_per_env: int
    reward_scale: float
    bootstrap_timeouts: bool
    max_skipped_gradient_steps: int
    drrn: DRRNArgs


@dataclass
class DRRNRollout:
    """What one update's worth of acting, and of the gradient steps between, yields."""

    frames: int = 0
    episodes: list[Episode] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)  # nats per decision, mean of each step
    losses: list[float] = field(default_factory=list)  # of each gradient step that was taken
    grad_norms: list[float] = field(default_factory=list)  # of the same, before clipping
    skipped: int = 0  # gradient steps that were not


class DRRNAgent:
    """The agent that learns.

    Args:
        envs: vector environment (SAME_STEP autoreset) whose info carries descriptions, or prompt and actions.
        prompters: one per environment.
        seed: of action sampling and replay, two independent streams.
    """

    name: ClassVar[str] = "drrn"
    reads_prompts: ClassVar[bool] = True

    def __init__(
        self, envs: Any, prompters: Sequence[Prompter], policy: DRRNPolicy, config: DRRNConfig, *, seed: int
    ) -> None:
        self.envs = envs
        self.prompters = list(prompters)
        self.policy = policy
        self.config = config
        self.optimizer = torch.optim.Adam(policy.network.parameters(), lr=config.drrn.lr)
        self.memory = ReplayMemory(config.drrn.memory, envs.num_envs)
        sampling, replay = np.random.SeedSequence(seed).spawn(2)
        self.sampling = np.random.default_rng(sampling)
        self.replay = np.random.default_rng(replay)
        self.counter = EpisodeCounter.empty(envs.num_envs, config.drrn.discount)
        self.states: list[EncodedState] = []
        self.steps = 0  # of all environments, since the run began
        self.skipping = SkippedSteps(config.max_skipped_gradient_steps)

    # -- act ------------------------------------------------------------------------------------------------------

    def collect_rollout(self) -> DRRNRollout:
        """Act `steps_per_env` steps in every environment; a gradient step after every `update_every` of them."""
        if not self.states:
            self.states = self.policy.encode(start_prompters(self.prompters, *self.envs.reset()))
        rollout = DRRNRollout()
        for _ in range(self.config.steps_per_env):
            self._step(rollout)
            self.steps += 1
            enough = len(self.memory) >= self.config.drrn.batch_size
            if enough and self.steps % self.config.drrn.update_every == 0:
                loss, grad_norm = self._gradient_step()
                if self.skipping.taken(loss, grad_norm, len(rollout.losses) + rollout.skipped + 1):
                    rollout.losses.append(loss)
                    rollout.grad_norms.append(grad_norm)
                else:
                    rollout.skipped += 1
        return rollout

    def _step(self, rollout: DRRNRollout) -> None:
        """One step of all environments, into the memory."""
        log_probs = self.policy.decide(self.states).log_probs
        actions = sample_actions(log_probs, self.sampling.random(len(self.states)))
        sent = np.array([state.text.action_ids[a] for state, a in zip(self.states, actions, strict=True)])
        observations, rewards, terminated, truncated, infos = self.envs.step(sent)
        ended = terminated | truncated
        following, reached = advance_prompters(self.prompters, actions, observations, ended, infos)
        # a time-out counts as terminal, as published, unless it is to be bootstrapped (as in PPO)
        durations = action_durations(infos, ended)
        bootstrapped = np.flatnonzero(truncated & ~terminated) if self.config.bootstrap_timeouts else ()
        self.memory.add(
            self.states,
            actions,
            rewards * self.config.reward_scale,
            ended,
            durations.tolist(),
            {int(i): self.policy.encode([reached[i]])[0] for i in bootstrapped},
        )
        self.states = self.policy.encode(following)
        rollout.frames += len(following)
        rollout.episodes += self.counter.step(rewards, terminated, truncated, durations).values()
        terms = np.exp(log_probs) * np.where(np.isfinite(log_probs), log_probs, 0.0)  # 0 log 0 is 0
        rollout.entropies.append(-float(terms.sum(axis=1).mean()))

    def probabilities(self, states: Sequence[TextState]) -> np.ndarray:
        """(N, A) action probabilities of given states, for distrib.csv."""
        return np.exp(self.policy.decide(self.policy.encode(states)).log_probs)

    # -- learn ----------------------------------------------------------------------------------------------------

    def _gradient_step(self) -> tuple[float, float]:
        """One step of Adam on the Huber loss of replayed transitions, if it `can_be_taken`; returns loss and gradient
        norm."""
        batch = self.memory.sample(self.config.drrn.batch_size, self.replay)
        network = self.policy.network
        q = self.policy.q_values([t.pieces for t in batch], [[t.action] for t in batch])[:, 0]
        targets = td_targets(
            torch.tensor([t.reward for t in batch], device=network.device),
            self._next_values(batch),
            torch.tensor([t.duration for t in batch], device=network.device),
            gamma=self.config.drrn.discount,
        )
        loss = F.huber_loss(q, targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), self.config.drrn.max_grad_norm)
        if can_be_taken(loss.item(), norm.item()):
            self.optimizer.step()
        return loss.item(), norm.item()

    @torch.no_grad()
    def _next_values(self, batch: Sequence[Transition]) -> torch.Tensor:
        """(B,) max Q over the next state's candidates, 0 where there is no next state."""
        values = torch.zeros(len(batch), device=self.policy.network.device)
        going_on = [row for row, transition in enumerate(batch) if len(transition.next_pieces)]
        if going_on:
            following = [batch[row] for row in going_on]
            q = self.policy.q_values([t.next_pieces for t in following], [t.next_candidates for t in following])
            values[torch.tensor(going_on)] = q.max(dim=1).values
        return values

    def update(self, rollout: DRRNRollout) -> dict[str, float]:
        """What the gradient steps of the rollout did; before the memory holds a batch there are none."""
        stats = {
            "entropy": float(np.mean(rollout.entropies)),
            "gradient_steps": float(len(rollout.losses)),
            "skipped_gradient_steps": float(rollout.skipped),
        }
        if rollout.losses:
            stats |= {"loss": float(np.mean(rollout.losses)), "grad_norm": float(np.mean(rollout.grad_norms))}
        return stats

    # -- resume ---------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write weights, optimizer, vocabulary and replay memory; full segments that `last` has are linked to."""
        self.policy.save(folder)
        torch.save(self.optimizer.state_dict(), folder / OPTIMIZER)
        self.memory.save(folder / MEMORY, folder.with_name("last") / MEMORY)

    def load(self, folder: Path) -> None:
        self.policy.load(folder)
        self.optimizer.load_state_dict(
            torch.load(folder / OPTIMIZER, map_location=self.policy.network.device, weights_only=True)
        )
        self.memory.load(folder / MEMORY)

    def get_state(self) -> dict[str, Any]:
        return {
            "environments": self.envs.get_state() if self.states else None,
            "prompters": [prompter.get_state() for prompter in self.prompters],
            "counter": self.counter.get_state(),
            "sampling": self.sampling.bit_generator.state,
            "replay": self.replay.bit_generator.state,
            "memory": self.memory.get_state(),
            "steps": self.steps,
            "skipping": self.skipping.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        if state["environments"] is not None:
            self.envs.set_state(state["environments"])
            for prompter, saved in zip(self.prompters, state["prompters"], strict=True):
                prompter.set_state(saved)
            self.states = self.policy.encode([prompter.state() for prompter in self.prompters])
        self.counter.set_state(state["counter"])
        self.sampling.bit_generator.state = state["sampling"]
        self.replay.bit_generator.state = state["replay"]
        self.memory.set_state(state["memory"])
        self.steps = state["steps"]
        self.skipping.set_state(state.get("skipping"))
