"""The test results of run folders: logs/ID/test/LEVEL/episodes/*.{csv,json}."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.errors import UserError
from experiments.results.labels import agent_label, distinguish, level_name, test_settings
from experiments.results.rows import RowKey
from experiments.results.runs import Run, read_csv, same_id
from experiments.substitutions import NO_MODIFICATION

LEARNING = ("trained", "drrn", "symbolic")  # agents that come from a training run


@dataclass(frozen=True)
class PlayedTest:
    """One test of one agent and one seed.

    Attributes:
        agent: as the test recorded it: random, bot, drrn, symbolic, zero-shot, cloned or trained.
        label: as the paper calls it (`labels.agent_label`).
        run: the experiment id without its seed.
        name: of the experiment and its model.
        test: its name; `actions`: the names that replace the action list's, () where it is as in training.
        trained_in: the level of the agent's training, None for agents that were not trained by reinforcement.
        settings: what else its outcome depends on (`labels.test_settings`).
        episodes: a row per episode; the columns `task`, `gave_up` and `changed_prompts` are absent from older files.
    """

    path: Path
    agent: str
    label: str
    run: str
    name: str
    seed: int
    level: str
    language: str
    test: str
    actions: tuple[str, ...]
    trained_in: str | None
    settings: tuple[tuple[str, str], ...]
    episodes: pd.DataFrame

    @property
    def folder(self) -> Path:
        """logs/ID."""
        return self.path.parents[3]

    @property
    def owner(self) -> tuple:
        """The agent that played: the same for all its tests and seeds."""
        return (self.agent, self.label, self.run, self.trained_in, self.settings)

    @property
    def key(self) -> RowKey:
        return RowKey(self.level, self.language, self.test, self.actions)


def load_tests(runs: Sequence[Run], missing: list[str]) -> list[PlayedTest]:
    """All tests in the given folders.

    Unreadable and truncated files are left out and added to `missing`.

    Raises:
        UserError: two files claim the same test of the same agent and seed.
    """
    tests = []
    for run in runs:
        folders = sorted(run.folder.glob("test/*/episodes"))
        stems = sorted({path.with_suffix("") for folder in folders for path in folder.glob("[!.]*.*")})
        if not stems and not any(any(other.folder.glob("test/*/episodes/*.csv")) for other in same_id(run, runs)):
            missing.append(f"{run.folder}: no test results")
        trained_in = _training_level(run, runs)
        tests += [test for stem in stems if (test := _load_test(stem, trained_in, missing)) is not None]
    seen: dict[tuple, Path] = {}
    for test in tests:
        other = seen.setdefault((test.owner, test.key, test.seed), test.path)
        if other != test.path:
            raise UserError(
                f"{other} and {test.path} hold the same test of one agent and seed: choose one by --logs or --runs"
            )
    return tests


def _training_level(run: Run, runs: Sequence[Run]) -> str | None:
    """Where a run was trained; tests may lie in another --logs folder than the training, under the same id."""
    folders = [run] if run.config else same_id(run, runs)
    levels = {other.config["rl_script_args"]["name_environment"] for other in folders if other.config}
    return levels.pop() if len(levels) == 1 else None


def _load_test(stem: Path, trained_in: str | None, missing: list[str]) -> PlayedTest | None:
    facts_path = stem.with_name(f"{stem.name}.json")
    try:
        facts = json.loads(facts_path.read_text(encoding="utf-8"))
        config = facts["config"]
        rl = config["rl_script_args"]
        agent, seed, test, episode_count = facts["agent"], int(facts["seed"]), facts["test"], rl["number_episodes"]
        label, settings = agent_label(agent, config), test_settings(config, seed)
        language = rl["language"]
        actions = tuple(rl["new_action_space"]) if rl["modified_action_space"] else ()
        name, run_id = facts["name"], facts["id"]
    except FileNotFoundError:
        missing.append(f"{facts_path}: no such file, so {stem.name}.csv is left out")
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        missing.append(f"{facts_path}: unreadable ({type(error).__name__}: {error}), left out")
        return None
    needed = ("episode_return", "success", "frames")
    path = stem.with_name(f"{stem.name}.csv")
    episodes = read_csv(path, ("episode",), needed, missing, numbers=("discounted_return", "primitive_steps"))
    if episodes is None:
        return None
    if len(episodes) < episode_count:
        missing.append(f"{stem}.csv: truncated, {len(episodes)} of {episode_count} episodes: left out")
        return None
    if len(episodes) > episode_count:  # a kill between the two files of a repeated test
        missing.append(f"{stem}.csv: {len(episodes)} episodes, but its json tells of {episode_count}: left out")
        return None
    return PlayedTest(
        path=stem,
        agent=agent,
        label=label,
        run=run_id.removesuffix(f"_seed_{seed}"),
        name=name,
        seed=seed,
        level=rl["name_environment"],
        language=language,
        test=test,
        actions=actions,
        trained_in=trained_in if agent in LEARNING else None,
        settings=tuple(settings.items()),
        episodes=episodes,
    )


def note(key: RowKey, episodes: pd.DataFrame) -> str:
    """A remark on the success rate of some episodes of a test: the bot gave up in some, or the test changed no prompt.

    Empty if neither applies, or if the files are too old to contain it.
    """
    notes = []
    if "gave_up" in episodes and (gave_up := int(episodes.gave_up.sum())):
        notes.append(f"the bot gave up in {gave_up} of {len(episodes)}")
    changes = key.test != NO_MODIFICATION or key.actions
    if changes and "changed_prompts" in episodes and episodes.frames.sum() and not episodes.changed_prompts.sum():
        notes.append("no prompt changed")
    return ", ".join(notes)


def shown_note(row: Any) -> str:
    """The note of a table's row as the end of a cell's text."""
    return f", {row.note}" if row.note else ""


def owner_suffixes(tests: Sequence[PlayedTest], base: str) -> dict[tuple, str]:
    """For every agent, what to add to its attribute `base` so that no two agents have the same name there.

    With base "run" agents of different kinds need not be told apart: they have a column of their own.
    """
    owners = {test.owner: test for test in tests}
    entries: list[tuple[Any, dict[str, str]]] = []
    for test in owners.values():
        made = {"trained in": level_name(test.trained_in or ""), **dict(test.settings), "run": test.run}
        experiment, _, model = test.name.partition("/")
        name = (test.agent, test.run) if base == "run" else (test.agent, test.name) if base == "name" else test.label
        entries.append((name, made | {"name_experiment": experiment, "name_model": model}))
    return dict(zip(owners, distinguish(entries), strict=True))
