"""The agent whose episodes are played after training: trained, as the model came, cloned, or one that never learns."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from omegaconf import DictConfig, OmegaConf

from experiments.agents.base_agent import BaseAgent
from experiments.agents.bot import BotAgent
from experiments.agents.drrn.vocabulary import check_sentencepiece_model
from experiments.agents.random_agent import RandomAgent
from experiments.checkpoint import CheckpointStore, check_same_agent, check_same_settings, read_trainer
from experiments.cloning.run import check_clone
from experiments.configuration import Config
from experiments.device import check_gpu
from experiments.environments import check_environment
from experiments.errors import UserError
from experiments.experiment_paths import ExperimentPaths
from lamorel.config import LamorelConfigError

if TYPE_CHECKING:
    from experiments.agents.ppo.llm_policy import LLMPolicy
    from experiments.agents.ppo.llm_test_agent import LLMTestAgent
    from lamorel import Caller

logger = logging.getLogger("glam")

# What makes a policy of the LLM's scores; the experiment id does not name it.
POLICY_SETTINGS = (
    "rl_script_args.method",
    "rl_script_args.score_rule",
    "rl_script_args.temperature",
    "rl_script_args.calibration",
    "rl_script_args.prompter",
    "lamorel_args.llm_args.model_type",
    "lamorel_args.llm_args.lora",
    "lamorel_args.llm_args.add_bos",
    "lamorel_args.llm_args.candidate_prefix",
)
LOAD_TRIES = 5
Loaded = TypeVar("Loaded")


def validate(config: Config) -> None:
    """What playing test episodes needs beyond a valid configuration, checked before torch is imported."""
    if config.agent == "drrn":
        check_sentencepiece_model(config.rl)
    if config.agent == "llm" and config.rl.im_learning:
        check_clone(Path(config.rl.im_path).expanduser(), config.resolved)
    check_environment(config.rl)
    if config.agent not in ("bot", "random"):
        check_gpu(config)


def agent_label(config: Config) -> str:
    """How tables name the agent."""
    rl = config.rl
    if config.agent != "llm":
        return config.agent
    return "cloned" if rl.im_learning else "zero-shot" if rl.zero_shot else "trained"


def serve(config: Config) -> None:
    """The part of an LLM process of a launched run: it answers the RL process until that has closed."""
    if config.agent == "llm":
        make_test_caller(config)


def make_agent(config: Config, paths: ExperimentPaths) -> tuple[BaseAgent, int | None]:
    """The agent that the configuration selects, and the update of the checkpoint it comes from, if any.

    Raises:
        UserError: a trained agent is asked for and there is no checkpoint.
    """
    if config.agent == "bot":
        return BotAgent(), None
    if config.agent == "random":
        return RandomAgent(), None
    if config.agent == "llm" and (config.rl.zero_shot or config.rl.im_learning):
        return make_llm_agent(config), None
    first = trained_checkpoint(config, paths)  # what is wrong with it is said before torch is imported
    logger.info("testing the checkpoint %s", first)
    if config.agent == "symbolic":
        from experiments.symbolic_side import make_symbolic_agent

        return load_settled(config, paths, first, lambda checkpoint: make_symbolic_agent(config, checkpoint))
    if config.agent == "drrn":
        from experiments.drrn_side import make_drrn_test_agent

        return load_settled(config, paths, first, lambda checkpoint: make_drrn_test_agent(config, checkpoint))
    agent = make_llm_agent(config, trained=True)
    try:
        _, update = load_settled(config, paths, first, agent.load)
    except BaseException:
        agent.close()
        raise
    return agent, update


def load_settled(
    config: Config, paths: ExperimentPaths, checkpoint: Path, load: Callable[[Path], Loaded]
) -> tuple[Loaded, int]:
    """What `load` makes of one checkpoint, and its update; repeated while a training that runs replaces it meanwhile.

    Raises:
        UserError: it was replaced every time.
    """
    for _ in range(LOAD_TRIES):
        update = _update_of(checkpoint)
        try:
            loaded = load(checkpoint)
        except Exception:  # whatever the reader makes of files of two checkpoints, or of none
            if _update_of(checkpoint) == update:
                raise
        else:
            if update is not None and _update_of(checkpoint) == update:
                return loaded, update
        logger.info("%s was replaced while it was read: reading the new one", checkpoint)
        checkpoint = trained_checkpoint(config, paths)
    raise UserError(
        f"{checkpoint} was replaced {LOAD_TRIES} times while it was read: test when the training is done, or train "
        "with a higher rl_script_args.checkpoint_every"
    )


def _update_of(checkpoint: Path) -> int | None:
    """The update of a checkpoint, None in the moment in which it makes room for the next."""
    try:
        return int(read_trainer(checkpoint)["update"])
    except FileNotFoundError:
        return None


def trained_checkpoint(config: Config, paths: ExperimentPaths) -> Path:
    """The newest checkpoint of the configured agent.

    Raises:
        UserError: there is none, or it was made by another agent or with another policy.
    """
    checkpoint = CheckpointStore(paths.models).newest()
    if checkpoint is None:
        as_it_is = ", or test the model as it is with rl_script_args.zero_shot=true" if config.agent == "llm" else ""
        raise UserError(f"{paths.models} holds no checkpoint: train with the same configuration first{as_it_is}")
    if config.rl.seed == 0:
        logger.warning(
            "rl_script_args.seed=0: test episode k is the first one of training environment k (k < number_envs), "
            "train with a seed from 1 on for tests on new episodes only"
        )
    trainer = read_trainer(checkpoint)
    check_same_agent(trainer, config.agent, checkpoint)
    # the experiment id does not name these, and another policy would be tested under the trained one's name
    settings = list(POLICY_SETTINGS)
    if config.agent == "symbolic":
        settings.append("rl_script_args.symbolic.encoder")
    if config.section == "twosome":  # of the same weights, but not the values that were trained
        settings.append("rl_script_args.twosome.critic_reads")
    check_same_settings(trainer["config"], config.resolved, settings, checkpoint)
    return checkpoint


def make_llm_agent(config: Config, *, trained: bool = False) -> LLMTestAgent:
    """The LLM as it is, or cloned; where it is trained its checkpoint is still to be loaded."""
    from experiments.agents.ppo.llm_test_agent import LLMTestAgent
    from experiments.calibration_states import calibration_states

    policy, caller = make_test_caller(config)
    states = calibration_states if config.rl.calibration == "batch" else None
    return LLMTestAgent(caller, policy, trained=trained, calibration_states=states)


def make_test_caller(config: Config) -> tuple[LLMPolicy, Caller]:
    """The policy, and the LLM with its heads; never returns in an LLM process of a launched run."""
    from experiments.llm_side import make_caller, make_policy
    from experiments.seeding import seed_everything

    seed_everything(config.rl)
    policy = make_policy(config.rl)
    try:
        return policy, make_caller(with_cloned_model(config), policy)
    except LamorelConfigError as error:
        if not config.rl.im_learning:
            raise
        # the key that the user gave
        message = str(error).replace("lamorel_args.llm_args.model_path", "rl_script_args.im_path")
        raise UserError(message.replace("another model_path", "another im_path")) from error


def with_cloned_model(config: Config) -> Config:
    """With im_learning the model comes from `im_path`."""
    if not config.rl.im_learning:
        return config
    override: dict[str, Any] = {"llm_args": {"model_path": config.rl.im_path, "pretrained": True}}
    tree = OmegaConf.merge(config.lamorel_tree, override)
    assert isinstance(tree, DictConfig)
    return dataclasses.replace(config, lamorel_tree=tree)
