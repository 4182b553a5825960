"""The Symbolic-PPO agents that a configuration asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from experiments.agents.ppo.base_ppo_agent import PPOConfig
from experiments.agents.ppo.symbolic_policy import SymbolicPolicy
from experiments.agents.ppo.symbolic_ppo_agent import SymbolicPPOAgent, SymbolicUpdateConfig
from experiments.agents.ppo.symbolic_test_agent import SymbolicTestAgent
from experiments.configuration import Config, RLScriptArgs
from experiments.environments import make_envs, training_seeds
from experiments.prompters.glam_prompter import environment_action_ids
from experiments.seeding import seed_everything


def make_policy(config: Config) -> SymbolicPolicy:
    """An untrained policy over `action_space`, from the run's seed."""
    seed_everything(config.rl)
    use_gpu = config.lamorel.llm_args.parallelism.use_gpu
    return SymbolicPolicy(len(config.rl.action_space), "cuda" if use_gpu else "cpu")


def symbolic_update_config(rl: RLScriptArgs) -> SymbolicUpdateConfig:
    return SymbolicUpdateConfig(
        recurrence=rl.symbolic.recurrence,
        lr=rl.lr,
        betas=(rl.beta1, rl.beta2),
        adam_eps=rl.adam_eps,
        clip_eps=rl.clip_eps,
        entropy_coef=rl.entropy_coef,
        value_loss_coef=rl.value_loss_coef,
        max_grad_norm=rl.max_grad_norm,
    )


@contextmanager
def open_symbolic_agent(config: Config) -> Iterator[SymbolicPPOAgent]:
    """The agent that learns, with its environments."""
    rl = config.rl
    policy = make_policy(config)
    with closing(make_envs(rl, seeds=training_seeds(rl))) as envs:
        yield SymbolicPPOAgent(
            envs,
            environment_action_ids(rl.action_space),
            policy,
            PPOConfig.of(rl),
            symbolic_update_config(rl),
            seed=rl.seed,
        )


def make_symbolic_agent(config: Config, checkpoint: Path) -> SymbolicTestAgent:
    """The agent of a checkpoint, for tests. Raises UserError where that is not of this network."""
    policy = make_policy(config)
    policy.load(checkpoint)
    return SymbolicTestAgent(policy)
