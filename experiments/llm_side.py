"""The policy and the `Caller` that a configuration asks for: the same for training and tests."""

from __future__ import annotations

from typing import Any

from experiments.agents.ppo.embedding_initializer import EmbeddingInitializer
from experiments.agents.ppo.llm_policy import LLMPolicy
from experiments.configuration import Config, RLScriptArgs
from lamorel import Caller


def make_policy(rl: RLScriptArgs) -> LLMPolicy:
    """How the configured scores become a policy."""
    return LLMPolicy(
        score_rule=rl.score_rule,
        temperature=rl.temperature,
        action_heads=len(rl.action_space) if rl.use_action_heads else None,
        detach_value=rl.detach_value,
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
