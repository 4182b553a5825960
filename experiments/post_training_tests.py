"""Test an agent on episodes fixed beforehand: trained, zero-shot, cloned, DRRN, random or bot.

The trained models/ID, the model of model_path as it is (zero-shot), and the random policy:
    python experiments/post-training_tests.py experiment=demo rl_script_args.zero_shot=false
    python experiments/post-training_tests.py experiment=demo
    python experiments/post-training_tests.py experiment=demo rl_script_args.random_agent=true \\
        rl_script_args.name_model=random

Test episode k is reset with int(1e9 * seed) + k and samples its actions from a stream of its own, so every agent and
every `number_envs` plays the same episodes. The same command again goes on where a time limit or a kill ended it; one
that was through plays everything again. Two at once that would make the same results: the second is refused.
"""

from __future__ import annotations

import json
import logging
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from experiments.atomic_files import make_folder
from experiments.checkpoint import check_same_settings
from experiments.configuration import Config
from experiments.environments import keeping_failures
from experiments.errors import UserError
from experiments.evaluation import evaluate, remarks, result_line, write_results
from experiments.experiment_paths import ExperimentPaths, test_file_stem
from experiments.folder_lock import FolderLock
from experiments.hydra_script import hydra_script
from experiments.log_file import RUN_LOG, logged_to
from experiments.partial_results import PartialResults, source_of
from experiments.provenance import provenance
from experiments.stopping import finishing_steps
from experiments.tested_agent import POLICY_SETTINGS, agent_label, make_agent, serve, trained_checkpoint, validate
from experiments.trajectories import export_prefix, export_trajectories
from lamorel import is_llm_process

logger = logging.getLogger("glam")

# What else decides a test's outcome, and which LLM it is: the experiment id names neither.
TEST_SETTINGS = (
    "rl_script_args.language",
    "rl_script_args.walls",
    "rl_script_args.task_kind",
    "rl_script_args.num_dists",
    "rl_script_args.max_episode_steps",
    "rl_script_args.stop_rule",
    "rl_script_args.new_action_space",
    "rl_script_args.environment_options",
)
LLM_SETTINGS = (
    *POLICY_SETTINGS,
    "rl_script_args.im_path",
    "lamorel_args.llm_args.model_path",
    "lamorel_args.llm_args.dtype",
    "lamorel_args.llm_args.load_in_4bit",
    "lamorel_args.llm_args.load_in_8bit",
)
LLM_AGENTS = ("trained", "zero-shot", "cloned")  # of agent_label


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
    export = config.rl.get_example_trajectories
    tests = [] if export else config.rl.tests
    if export:
        refuse_other_results(folder / f"{export_prefix(config.agent)}.json", facts)
    for test in tests:
        refuse_other_results(folder / "episodes" / f"{test_file_stem(config, test)}.json", facts)
    make_folder(folder)
    made = [(folder, export_prefix(config.agent))] if export else []
    made += [(folder / "episodes", test_file_stem(config, test)) for test in tests]
    with ExitStack() as opened:
        for place, stem in dict.fromkeys(made):
            opened.enter_context(FolderLock(place, "another rl_script_args.saving_path_logs", stem))
        opened.enter_context(logged_to(paths.logs / "test" / RUN_LOG))
        opened.enter_context(keeping_failures(folder))
        agent, update = make_agent(config, paths)
        facts |= {"checkpoint_update": update, "provenance": provenance()}
        source = source_of(config, paths, agent_label(config), update)
        with closing(agent), finishing_steps():
            if export:
                partial = PartialResults(folder, export_prefix(config.agent), source)
                export_trajectories(config.rl, agent, folder, facts, partial)
                partial.remove()
            partials = {t: PartialResults(folder / "episodes", test_file_stem(config, t), source) for t in tests}
            for test, partial in partials.items():
                episodes = evaluate(config.rl, agent, test, partial)
                write_results(folder, test_file_stem(config, test), episodes, {**facts, "test": test})
                logger.info("%s: %s", test, result_line(episodes))
                for remark in remarks(config.rl, test, episodes):
                    logger.warning("%s: %s", test, remark)
            if facts["agent"] == "trained" and config.agent == "llm" and not export:
                from experiments.model_card import refresh_card

                refresh_card(trained_checkpoint(config, paths), paths)
            for partial in partials.values():  # once all are over: until then the same command has them to go on from
                partial.remove()


def refuse_other_results(path: Path, facts: dict[str, Any]) -> None:
    """Results must not replace those of another agent, or of other settings, that have the same experiment id.

    Args:
        path: the json beside the results, which holds the facts of those that are there.

    Raises:
        UserError: they are of another agent or of other settings, or the json is damaged.
    """
    if not path.exists():
        return
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        stored_agent, stored_config = stored["agent"], dict(stored["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read ({error!r}), so it is not known whose results it describes: remove it to have "
            "them replaced"
        ) from error
    if stored_agent != facts["agent"]:
        raise UserError(
            f"{path} holds results of the agent {stored_agent!r}, not {facts['agent']!r}: give "
            "rl_script_args.name_model or name_experiment another name"
        )
    # the checkpoint is found by its experiment's name, so that the results are what must move
    elsewhere = "another rl_script_args.saving_path_logs"
    of_llm = LLM_SETTINGS if facts["agent"] in LLM_AGENTS else ("rl_script_args.prompter",)  # others read no LLM's keys
    check_same_settings(stored_config, facts["config"], (*TEST_SETTINGS, *of_llm), path, elsewhere)


main = hydra_script(run_tests)

if __name__ == "__main__":
    main()
