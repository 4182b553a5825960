"""Show test episodes of an agent, step by step, as one HTML page per test.

Agent and tests are chosen as in post-training_tests.py, the episodes by `shown_episodes`: the numbers in the first
column of a test's csv.
    python experiments/show_episodes.py experiment=demo rl_script_args.zero_shot=false \\
        rl_script_args.shown_episodes=[0,7]
    python experiments/show_episodes.py experiment=demo rl_script_args.bot=true

A page is one file that needs no network and no server: open it in a browser.
"""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path

from experiments.atomic_files import make_folder, write_atomically
from experiments.configuration import Config
from experiments.errors import UserError
from experiments.evaluation import remarks, result_line
from experiments.experiment_paths import ExperimentPaths, page_stem
from experiments.hydra_script import hydra_script
from experiments.playing import play_episodes
from experiments.stopping import finishing_steps
from experiments.tested_agent import agent_label, make_agent, serve, validate
from experiments.viewer.page import page_data, render_page
from experiments.viewer.pictures import Pictures
from lamorel import is_llm_process

logger = logging.getLogger("glam")


def show_episodes(config: Config) -> None:
    """Play `shown_episodes` of every test and write their pages under logs/ID/test/ENV/pages."""
    if is_llm_process(config.lamorel):
        serve(config)
        return
    rl = config.rl
    if rl.stop_rule != "per_episode":
        raise UserError(
            f"rl_script_args.stop_rule={rl.stop_rule}: its episodes have no seeds of their own, show per_episode"
        )
    validate(config)
    paths = ExperimentPaths.of(config)
    paths.make_writable(models=False)
    agent, update = make_agent(config, paths)
    with closing(agent), finishing_steps():
        for test in rl.tests:
            episodes = play_episodes(
                rl, agent, rl.shown_episodes, test, with_transitions=True, wrapper=Pictures, render=True
            )
            path = page_path(config, paths, test)
            make_folder(path.parent)
            found = remarks(rl, test, episodes)
            facts = page_facts(config, paths, test, update) | ({"note": "; ".join(found)} if found else {})
            title = f"{facts['agent']} on {facts['level']}"
            write_atomically(path, render_page(page_data(episodes, title=title, language=rl.language, facts=facts)))
            logger.info("%s: %s: %s", test, result_line(episodes), path)
            for remark in found:
                logger.warning("%s: %s", test, remark)


def page_path(config: Config, paths: ExperimentPaths, test: str) -> Path:
    """One page per agent, test and language; a later one takes its place."""
    return (
        paths.test_folder(config.rl.name_environment) / "pages" / f"{page_stem(config, agent_label(config), test)}.html"
    )


def page_facts(config: Config, paths: ExperimentPaths, test: str, update: int | None) -> dict[str, str]:
    """What the head of a page says of where its episodes come from."""
    facts = {"agent": agent_label(config), "level": config.rl.name_environment, "test": test, "run": paths.id}
    if config.agent == "llm" and update is None:
        facts["model"] = config.rl.im_path if config.rl.im_learning else str(config.lamorel.llm_args.model_path)
    if update is not None:
        facts["checkpoint"] = f"update {update}"
    return facts


main = hydra_script(show_episodes)

if __name__ == "__main__":
    main()
