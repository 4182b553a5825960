"""One training run around its agent: everything the loop needs before, between and after its updates."""

from __future__ import annotations

import logging
import sys
from contextlib import ExitStack, closing
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from experiments.agents.ppo.base_ppo_agent import PPOConfig
from experiments.agents.ppo.llm_policy import LLMPolicy
from experiments.agents.ppo.llm_ppo_agent import LLMPPOAgent
from experiments.agents.ppo.ppo_updater import PPOUpdateConfig, PPOUpdater
from experiments.agents.ppo.rollout import Rollout
from experiments.checkpoint import CheckpointStore, check_same_config, read_states, read_trainer
from experiments.configuration import Config, RLScriptArgs
from experiments.environments import make_envs, training_seeds
from experiments.experiment_paths import ExperimentPaths
from experiments.llm_side import make_caller, make_policy
from experiments.probe_prompts import probe_states
from experiments.prompters import make_prompters
from experiments.run_log import Progress, RunLog, log_row
from experiments.seeding import get_random_states, seed_everything, set_random_states
from lamorel import Caller

logger = logging.getLogger("glam")


def ppo_config(rl: RLScriptArgs) -> PPOConfig:
    return PPOConfig(
        steps_per_env=rl.frames_per_proc,
        gamma=rl.discount,
        gae_lambda=rl.gae_lambda,
        reward_scale=rl.reward_scale,
        epochs=rl.epochs,
        batch_size=rl.batch_size,
        bootstrap_timeouts=rl.bootstrap_timeouts,
        normalize_advantages=rl.normalize_advantages,
        target_kl=rl.target_kl,
    )


def ppo_update_config(rl: RLScriptArgs) -> PPOUpdateConfig:
    return PPOUpdateConfig(
        lr=rl.lr,
        value_lr=rl.value_lr,
        betas=(rl.beta1, rl.beta2),
        adam_eps=rl.adam_eps,
        clip_eps=rl.clip_eps,
        entropy_coef=rl.entropy_coef,
        value_loss_coef=rl.value_loss_coef,
        max_grad_norm=rl.max_grad_norm,
        critic_broadcast=rl.critic_broadcast,
    )


def make_training_caller(config: Config) -> tuple[LLMPolicy, Caller]:
    """The policy, and the LLM with its heads and its optimizer; never returns in an LLM process of a launched run."""
    seed_everything(config.rl)
    policy = make_policy(config.rl)
    return policy, make_caller(config, policy, PPOUpdater(ppo_update_config(config.rl), policy))


class TrainingRun:
    """Builds the agent, resumes it, records every update and writes checkpoints.

    Attributes:
        agent: the PPO agent.
        progress: updates, episodes, frames and seconds so far.
    """

    def __init__(self, config: Config, paths: ExperimentPaths) -> None:
        rl = config.rl
        self.config, self.paths = config, paths
        self.progress = Progress()
        self.store = CheckpointStore(paths.models)
        with ExitStack() as opened:  # closes what is open already when a later step fails
            opened.enter_context(self.store.locked())
            self.checkpoint = self.store.recover()
            if self.checkpoint is not None:  # refuse before the model is loaded
                check_same_config(read_trainer(self.checkpoint)["config"], config.resolved, self.checkpoint)
            policy, caller = make_training_caller(config)
            self.caller = opened.enter_context(caller)
            envs = opened.enter_context(closing(make_envs(rl, seeds=training_seeds(rl))))
            self.agent = LLMPPOAgent(envs, make_prompters(rl), self.caller, policy, ppo_config(rl), seed=rl.seed)
            # prompts that an environment writes itself have no fixed action list to follow
            self.probes = probe_states(rl.action_space, rl.nbr_obs, rl.template_test) if rl.prompter == "glam" else []
            self.log = opened.enter_context(closing(RunLog(config, paths.logs, rl.action_space if self.probes else [])))
            if sys.stderr.isatty():  # log lines above the bar, not through it
                opened.enter_context(logging_redirect_tqdm())
            # disable=None: a bar only where there is a terminal
            self.bar = opened.enter_context(tqdm(total=rl.num_steps, unit="frame", disable=None, file=sys.stderr))
            self.opened = opened.pop_all()

    def __enter__(self) -> TrainingRun:
        return self

    def __exit__(self, *_: Any) -> None:
        self.opened.close()

    def resume(self) -> None:
        """Continue from the newest complete checkpoint, or start; every log is cut back to where that is."""
        if self.checkpoint is not None:
            trainer, states = read_trainer(self.checkpoint), read_states(self.checkpoint)
            self.caller.load(str(self.checkpoint))
            self.progress = Progress(**trainer["progress"])
            self.agent.set_state(states["agent"])
            set_random_states(states["random"])
            logger.info("resumed at update %d from %s", self.progress.update, self.checkpoint)
        self.log.open(self.progress)
        self.bar.update(self.progress.frames)

    def record(self, rollout: Rollout, stats: dict[str, float], *, seconds: float) -> None:
        """Count an update and write it to every log."""
        progress = self.progress
        progress.update += 1
        progress.episodes += len(rollout.episodes)
        progress.frames += rollout.frames
        progress.duration += seconds
        row = log_row(
            progress,
            rollout.episodes,
            stats,
            fps=rollout.frames / seconds,
            reward_scale=self.config.rl.reward_scale,
        )
        self.log.write(row, stats, self.agent.probabilities(self.probes) if self.probes else None)
        self.bar.update(rollout.frames)
        logger.info("%s", self._log_line(row, stats))

    def _log_line(self, row: dict[str, Any], stats: dict[str, float]) -> str:
        left = max(self.config.rl.num_steps - self.progress.frames, 0)
        success = f"{row['success_rate']:.2f}" if row["success_rate"] != "" else "   -"
        returned = f"{row['return_mean']:.3f}" if row["return_mean"] != "" else "    -"
        eta = left * self.progress.duration / self.progress.frames
        return (
            f"update {row['update']} | frames {row['frames']} | success {success} | return {returned} | "
            f"entropy {row['entropy']:.3f} | policy {row['policy_loss']:.4f} | value {row['value_loss']:.3f} | "
            f"kl {stats['approx_kl']:.4f} | grad {row['grad_norm']:.2f} | {row['FPS']:.0f} frames/s | "
            f"{eta / 60:.1f} min left"
        )

    def checkpoint_if_due(self) -> None:
        """Every `checkpoint_every` updates, and when the run is complete."""
        rl, progress = self.config.rl, self.progress
        if progress.update % rl.checkpoint_every and progress.frames < rl.num_steps:
            return
        self.store.save(
            {"update": progress.update, "progress": vars(progress), "config": self.config.resolved},
            {"agent": self.agent.get_state(), "random": get_random_states()},
            lambda folder: self.caller.save(str(folder)),
        )
        self.log.write_status(progress)
