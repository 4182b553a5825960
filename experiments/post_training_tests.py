"""Test an agent on episodes fixed beforehand: trained, zero-shot, cloned, random or bot.

The trained models/ID, the model of model_path as it is (zero-shot), and the random policy:
    python experiments/post-training_tests.py experiment=demo rl_script_args.zero_shot=false
    python experiments/post-training_tests.py experiment=demo
    python experiments/post-training_tests.py experiment=demo rl_script_args.random_agent=true \\
        rl_script_args.name_model=random

Test episode k is reset with int(1e9 * seed) + k and samples its actions from a stream of its own, so every agent and
every `number_envs` plays the same episodes.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from experiments.agents.base_agent import BaseAgent
from experiments.agents.bot import BotAgent
from experiments.agents.random_agent import RandomAgent
from experiments.checkpoint import CheckpointStore, check_same_settings, read_trainer
from experiments.configuration import Config
from experiments.device import check_gpu
from experiments.environments import check_environment
from experiments.errors import UserError
from experiments.evaluation import evaluate, write_results
from experiments.experiment_paths import ExperimentPaths, test_file_stem
from experiments.hydra_script import hydra_script
from experiments.trajectories import export_trajectories
from lamorel import is_llm_process

if TYPE_CHECKING:
    from experiments.agents.ppo.llm_policy import LLMPolicy
    from lamorel import Caller

logger = logging.getLogger("glam")

# What makes a policy of the LLM's scores, and what else decides a test's outcome: neither is in the experiment id.
POLICY_SETTINGS = (
    "rl_script_args.score_rule",
    "rl_script_args.temperature",
    "rl_script_args.prompter",
    "lamorel_args.llm_args.model_type",
    "lamorel_args.llm_args.lora",
    "lamorel_args.llm_args.add_bos",
    "lamorel_args.llm_args.candidate_prefix",
)
TEST_SETTINGS = (
    "rl_script_args.language",
    "rl_script_args.walls",
    "rl_script_args.task_kind",
    "rl_script_args.num_dists",
    "rl_script_args.max_episode_steps",
    "rl_script_args.stop_rule",
    "rl_script_args.new_action_space",
    "rl_script_args.im_path",
    "lamorel_args.llm_args.model_path",
)


def run_tests(config: Config) -> None:
    """Run every test of `rl_script_args.tests`, or export trajectories, and write the files under logs/ID/test/ENV."""
    if is_llm_process(config.lamorel):
        serve(config)
        return
    validate(config)
    paths = ExperimentPaths.of(config)
    paths.make_writable(models=False)
    folder = paths.test_folder(config.rl.name_environment)
    facts = {
        "agent": agent_label(config),
        "id": paths.id,
        "name": f"{config.rl.name_experiment}/{config.rl.name_model}",
        "seed": config.rl.seed,
        "config": config.resolved,
    }
    tests = [] if config.rl.get_example_trajectories else config.rl.tests
    for test in tests:
        refuse_other_results(folder, test_file_stem(config, test), facts)
    agent, checkpoint = make_agent(config, paths)
    if config.rl.get_example_trajectories:
        files = export_trajectories(config.rl, agent, folder)
        logger.info("%d frames in %d files of %s", config.rl.num_steps, len(files), folder)
    for test in tests:
        episodes = evaluate(config.rl, agent, test)
        write_results(
            folder, test_file_stem(config, test), episodes, {**facts, "test": test, "checkpoint_update": checkpoint}
        )
        successes = float(np.mean([episode.success for episode in episodes]))
        returned = float(np.mean([episode.episode_return for episode in episodes]))
        logger.info("%s: success %.3f, mean return %.3f over %d episodes", test, successes, returned, len(episodes))
    agent.close()


def serve(config: Config) -> None:
    """The part of an LLM process of a launched run: it answers the RL process until that has closed."""
    if not (config.rl.bot or config.rl.random_agent):  # these need no LLM
        make_test_caller(config)


def validate(config: Config) -> None:
    """What the tests need beyond a valid configuration, checked before torch is imported."""
    rl = config.rl
    if config.lamorel.distributed_setup_args.n_llm_processes == 0 and not (rl.bot or rl.random_agent):
        raise UserError(
            "lamorel_args.distributed_setup_args.n_llm_processes=0: no agent is left to test, set it to 1 for the LLM, "
            "or rl_script_args.random_agent=true or bot=true"
        )
    check_environment(rl)
    if not (rl.bot or rl.random_agent):
        check_gpu(config)


def agent_label(config: Config) -> str:
    """How tables name the agent."""
    rl = config.rl
    if rl.bot or rl.random_agent:
        return "bot" if rl.bot else "random"
    return "cloned" if rl.im_learning else "zero-shot" if rl.zero_shot else "trained"


def refuse_other_results(folder: Path, stem: str, facts: dict[str, Any]) -> None:
    """Results must not replace those of another agent, or of other settings, that have the same experiment id.

    Raises:
        UserError: the folder holds such results under the same name.
    """
    path = folder / "episodes" / f"{stem}.json"
    if not path.exists():
        return
    stored = json.loads(path.read_text(encoding="utf-8"))
    if stored["agent"] != facts["agent"]:
        raise UserError(
            f"{path} holds results of the agent {stored['agent']!r}, not {facts['agent']!r}: give "
            "rl_script_args.name_model or name_experiment another name"
        )
    check_same_settings(stored["config"], facts["config"], (*POLICY_SETTINGS, *TEST_SETTINGS), path)


def make_agent(config: Config, paths: ExperimentPaths) -> tuple[BaseAgent, int | None]:
    """The agent that the configuration selects, and the update of the checkpoint it comes from, if any.

    Raises:
        UserError: a trained agent is asked for and there is no checkpoint.
    """
    if config.rl.bot:
        return BotAgent(), None
    if config.rl.random_agent:
        return RandomAgent(), None
    checkpoint = None
    if not (config.rl.zero_shot or config.rl.im_learning):
        checkpoint = CheckpointStore(paths.models).newest()
        if checkpoint is None:
            raise UserError(
                f"{paths.models} holds no checkpoint: train with the same configuration first, or test the model as it "
                "is with rl_script_args.zero_shot=true"
            )
        # the experiment id does not name these, and another policy would be tested under the trained one's name
        check_same_settings(read_trainer(checkpoint)["config"], config.resolved, POLICY_SETTINGS, checkpoint)
    from experiments.agents.ppo.llm_test_agent import LLMTestAgent

    policy, caller = make_test_caller(config)
    if checkpoint is not None:
        caller.load(str(checkpoint))
        logger.info("testing the checkpoint %s", checkpoint)
    return LLMTestAgent(caller, policy), None if checkpoint is None else read_trainer(checkpoint)["update"]


def make_test_caller(config: Config) -> tuple[LLMPolicy, Caller]:
    """The policy, and the LLM with its heads; never returns in an LLM process of a launched run."""
    from experiments.llm_side import make_caller, make_policy
    from experiments.seeding import seed_everything

    seed_everything(config.rl)
    policy = make_policy(config.rl)
    return policy, make_caller(with_cloned_model(config), policy)


def with_cloned_model(config: Config) -> Config:
    """With im_learning the model comes from `im_path`."""
    if not config.rl.im_learning:
        return config
    override: dict[str, Any] = {"llm_args": {"model_path": config.rl.im_path, "pretrained": True}}
    tree = OmegaConf.merge(config.lamorel_tree, override)
    assert isinstance(tree, DictConfig)
    return dataclasses.replace(config, lamorel_tree=tree)


main = hydra_script(run_tests)

if __name__ == "__main__":
    main()
