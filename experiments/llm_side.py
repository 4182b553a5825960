"""The policy, the `Caller` and the agent that a configuration asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

from experiments.agents.ppo.base_ppo_agent import PPOConfig
from experiments.agents.ppo.embedding_initializer import EmbeddingInitializer
from experiments.agents.ppo.llm_policy import LLMPolicy
from experiments.agents.ppo.llm_ppo_agent import LLMPPOAgent
from experiments.agents.ppo.ppo_updater import PPOUpdateConfig, PPOUpdater
from experiments.agents.ppo.twosome_ppo_agent import TwosomePPOAgent
from experiments.agents.ppo.twosome_schedule import TwosomeSchedule
from experiments.agents.ppo.twosome_updater import TwosomeUpdateConfig, TwosomeUpdater
from experiments.calibration_states import calibration_states
from experiments.configuration import Config, RLScriptArgs
from experiments.environments import make_envs, training_seeds
from experiments.prompters import make_prompters
from experiments.seeding import seed_everything
from lamorel import BaseUpdater, Caller


def make_policy(rl: RLScriptArgs) -> LLMPolicy:
    """How the configured scores become a policy."""
    return LLMPolicy(
        score_rule=rl.score_rule,
        temperature=rl.temperature,
        action_heads=len(rl.action_space) if rl.use_action_heads else None,
        detach_value=rl.detach_value,
        frozen_critic=rl.twosome.critic_reads if rl.method == "twosome" else None,
    )


def make_caller(config: Config, policy: LLMPolicy, updater: Any = None) -> Caller:
    """The LLM with the policy's heads; in an LLM process of a launched run this serves and never returns.

    Args:
        updater: lamorel's updater instance, for training.

    Raises:
        LamorelConfigError: the model cannot be loaded as asked.
    """
    llm_args = config.lamorel.llm_args
    copy_embeddings = not llm_args.pretrained and config.rl.load_embedding
    return Caller(
        config.lamorel_tree,
        custom_updater=updater,
        custom_module_functions=policy.module_functions(),
        custom_model_initializer=EmbeddingInitializer(str(llm_args.model_path)) if copy_embeddings else None,
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


def twosome_update_config(rl: RLScriptArgs) -> TwosomeUpdateConfig:
    assert rl.target_kl is not None  # the section's, which takes its place
    return TwosomeUpdateConfig(
        betas=(rl.beta1, rl.beta2),
        adam_eps=rl.adam_eps,
        clip_eps=rl.clip_eps,
        entropy_coef=rl.entropy_coef,
        value_loss_coef=rl.value_loss_coef,
        max_grad_norm=rl.max_grad_norm,
        target_kl=rl.target_kl,
    )


def make_updater(rl: RLScriptArgs, policy: LLMPolicy) -> BaseUpdater:
    """What takes gradient steps by `method`."""
    if rl.method == "twosome":
        return TwosomeUpdater(twosome_update_config(rl), policy)
    return PPOUpdater(ppo_update_config(rl), policy)


def make_training_caller(config: Config) -> tuple[LLMPolicy, Caller]:
    """The policy, and the LLM with its heads and optimizers; never returns in an LLM process of a launched run."""
    seed_everything(config.rl)
    policy = make_policy(config.rl)
    return policy, make_caller(config, policy, make_updater(config.rl, policy))


@contextmanager
def open_llm_agent(config: Config) -> Iterator[LLMPPOAgent]:
    """The LLM agent that learns by PPO, with its environments."""
    rl = config.rl
    policy, caller = make_training_caller(config)
    with caller, closing(make_envs(rl, seeds=training_seeds(rl))) as envs:
        parts = (envs, make_prompters(rl), caller, policy, PPOConfig.of(rl))
        states = partial(calibration_states, rl) if rl.calibration == "batch" else None
        if rl.method == "twosome":
            coefs = (rl.entropy_coef, rl.value_loss_coef)
            schedule = TwosomeSchedule.of(rl)
            yield TwosomePPOAgent(*parts, schedule, loss_coefs=coefs, seed=rl.seed, calibration_states=states)
        else:
            yield LLMPPOAgent(*parts, seed=rl.seed, calibration_states=states)
