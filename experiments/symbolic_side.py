"""The baselines without an LLM that a configuration asks for: Symbolic-PPO, and vector PPO (`symbolic.encoder`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from experiments.agents.ppo.base_ppo_agent import PPOConfig
from experiments.agents.ppo.network_step import NetworkUpdateConfig
from experiments.agents.ppo.offered_actions import OfferedActions
from experiments.agents.ppo.symbolic_policy import SymbolicPolicy
from experiments.agents.ppo.symbolic_ppo_agent import SymbolicPPOAgent
from experiments.agents.ppo.symbolic_test_agent import SymbolicTestAgent
from experiments.agents.ppo.vector_policy import VectorPolicy
from experiments.agents.ppo.vector_ppo_agent import VectorPPOAgent
from experiments.agents.ppo.vector_test_agent import VectorTestAgent
from experiments.configuration import Config, RLScriptArgs
from experiments.environments import make_envs, training_seeds
from experiments.prompters.glam_prompter import environment_action_ids
from experiments.seeding import seed_everything


def make_symbolic_policy(config: Config) -> SymbolicPolicy:
    """An untrained policy over `action_space`, from the run's seed."""
    seed_everything(config.rl)
    return SymbolicPolicy(len(config.rl.action_space), _device(config))


def make_vector_policy(config: Config, envs: Any) -> VectorPolicy:
    """An untrained policy over all action ids of the environment, from the run's seed."""
    seed_everything(config.rl)
    size, actions = envs.single_observation_space.shape[0], int(envs.single_action_space.n)
    return VectorPolicy(size, actions, _device(config))


def network_update_config(rl: RLScriptArgs) -> NetworkUpdateConfig:
    return NetworkUpdateConfig(
        lr=rl.lr,
        betas=(rl.beta1, rl.beta2),
        adam_eps=rl.adam_eps,
        clip_eps=rl.clip_eps,
        entropy_coef=rl.entropy_coef,
        value_loss_coef=rl.value_loss_coef,
        max_grad_norm=rl.max_grad_norm,
    )


@contextmanager
def open_symbolic_agent(config: Config) -> Iterator[SymbolicPPOAgent | VectorPPOAgent]:
    """The agent that learns, with its environments."""
    rl = config.rl
    loop, step = PPOConfig.of(rl), network_update_config(rl)
    vector = rl.symbolic.encoder == "mlp"
    with closing(make_envs(rl, seeds=training_seeds(rl), wrapper=OfferedActions if vector else None)) as envs:
        if vector:
            yield VectorPPOAgent(envs, make_vector_policy(config, envs), loop, step, seed=rl.seed)
            return
        policy, ids = make_symbolic_policy(config), environment_action_ids(rl.action_space)
        yield SymbolicPPOAgent(envs, ids, policy, loop, step, recurrence=rl.symbolic.recurrence, seed=rl.seed)


def make_symbolic_agent(config: Config, checkpoint: Path) -> SymbolicTestAgent | VectorTestAgent:
    """The agent of a checkpoint, for tests. Raises UserError where that is not of this network."""
    if config.rl.symbolic.encoder == "mlp":
        with closing(make_envs(config.rl, seeds=[config.rl.seed])) as envs:
            vector_policy = make_vector_policy(config, envs)
        vector_policy.load(checkpoint)
        return VectorTestAgent(vector_policy)
    policy = make_symbolic_policy(config)
    policy.load(checkpoint)
    return SymbolicTestAgent(policy)


def _device(config: Config) -> str:
    return "cuda" if config.lamorel.llm_args.parallelism.use_gpu else "cpu"
