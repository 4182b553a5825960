"""Vector environments for any registered id, and the seeds that training and tests give them."""

from __future__ import annotations

import difflib
import importlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
from minigrid.envs.babyai.core.verifier import Instr

import babyai_text
from babyai_text.failures import EnvironmentFailedError
from babyai_text.levels import MixedTrainLocal
from babyai_text.making import creator_of, is_minigrid
from babyai_text.replay import ReplayState, SeededEpisodes
from babyai_text.vector import make_vec_from
from experiments.agents.ppo.offered_actions import OfferedActions
from experiments.atomic_files import write_atomically
from experiments.configuration import RLScriptArgs
from experiments.errors import UserError
from experiments.prompters import prompter_factory
from experiments.storage import StorageError
from experiments.substitutions import OTHER_GOAL

# The level's own number (babyai_text, minigrid): only another value is passed on, so that levels without distractors,
# and levels whose id fixes their number (GoToLocalS8N4), keep theirs.
DEFAULT_NUM_DISTS = 8
SYMBOLIC_VIEW = (7, 7, 3)  # MiniGrid's partial view: cells x cells x (object, colour, state)
FAILED_EPISODE = "failed_episode.json"
DRAWN_TASK_KINDS = ("per_episode", "per_instance")  # on a level with one kind of task these change nothing
MISSING_PACKAGE = (ImportError, gym.error.DependencyNotInstalled)
# option of a level -> the setting that does not pass it
LEFT_OUT = {
    "max_steps": "max_episode_steps=null",
    "num_dists": f"num_dists={DEFAULT_NUM_DISTS}",
    "task_kind": f"task_kind={DRAWN_TASK_KINDS[0]}",
}


def check_environment(rl: RLScriptArgs) -> None:
    """Import the packages that register environment ids, and make the configured level once.

    Raises:
        UserError: a package is missing, `name_environment` is not registered by any of them, or does not take an option
            or value of the configuration.
        EnvironmentFailedError: its first reset raises.
    """
    import_packages(rl)
    try:
        env = _make_one(rl)
    except (TypeError, ValueError, ImportError, gym.error.Error) as error:
        raise _cannot_be_made(rl, error) from error
    vector = rl.symbolic_ppo and rl.symbolic.encoder == "mlp"
    if vector:
        _check_vector(rl.name_environment, env)
        env = OfferedActions(env)
    env = SeededEpisodes(ReplayState(env), [rl.seed])
    try:
        observation, info = env.reset()
    except EnvironmentFailedError as error:
        if isinstance(error.__cause__, MISSING_PACKAGE):
            raise _cannot_be_made(rl, error.__cause__) from error
        raise
    if rl.symbolic_ppo and not vector:
        _check_symbolic_view(rl.name_environment, observation)
    _check_options_fit(rl, env, observation, info)
    prompter = prompter_factory(rl)()
    prompter.reset(mission(observation))
    prompter.observe(observation, info)  # the prompter must find what it needs, here and not after the model is loaded
    prompter.state()
    env.close()


def import_packages(rl: RLScriptArgs) -> None:
    """Import `env_packages`, which register environment ids. Raises UserError where one cannot be imported."""
    for package in rl.env_packages:
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            raise UserError(
                f"rl_script_args.env_packages: package {error.name!r} is not installed, install it, put its folder on "
                "PYTHONPATH, or correct its name"
            ) from error
        except ImportError as error:
            reason = _one_line(error)
            raise UserError(f"rl_script_args.env_packages: {package!r} cannot be imported: {reason}") from error


def _cannot_be_made(rl: RLScriptArgs, error: Exception) -> UserError:
    """The error for a level that is not registered, lacks a package, or rejects an option; it names the remedy."""
    level = f"rl_script_args.name_environment={rl.name_environment}"
    text = _one_line(error)
    if isinstance(error, gym.error.UnregisteredEnv):
        name = rl.name_environment.rpartition(":")[2]
        near = difflib.get_close_matches(name, list(gym.registry), n=4, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else f"none of env_packages={rl.env_packages} has one like it"
        return UserError(f"{level} is not a registered level: {hint}")
    if isinstance(error, ModuleNotFoundError):
        return UserError(f"{level}: {text}, install it or put its folder on PYTHONPATH")
    unset = [f": set rl_script_args.{value}" for option, value in LEFT_OUT.items() if f"no option '{option}'" in text]
    return UserError(f"{level}: {text}{''.join(unset)}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _check_options_fit(rl: RLScriptArgs, env: gym.Env, observation: Any, info: dict[str, Any]) -> None:
    """What works in BabyAI's levels, or with a fixed list of actions, is refused elsewhere."""
    offers = rl.prompter == "environment" and "actions" in info
    for key, does_not_fit, reason in (
        ("bot", rl.bot and not has_instructions(env), "the bot plays BabyAI's levels"),
        ("tests", OTHER_GOAL in rl.tests and not mission(observation), f"{OTHER_GOAL} needs a mission"),
        ("modified_action_space", rl.modified_action_space and offers, "the environment names its actions itself"),
        (
            "use_action_heads",
            rl.use_action_heads and offers,
            "it offers other actions in other states, they are scored",
        ),
        (
            "language",
            rl.language != "english" and rl.prompter == "environment",
            "with prompter=environment the level writes its prompts",
        ),
    ):
        if does_not_fit:
            raise UserError(
                f"rl_script_args.{key}={getattr(rl, key)}: {reason}, so that it cannot be had in {rl.name_environment}"
            )


def has_instructions(env: gym.Env) -> bool:
    """Whether an environment has a BabyAI instruction after a reset, so that the bot can play it."""
    return isinstance(getattr(env.unwrapped, "instrs", None), Instr)


def bot_can_play(rl: RLScriptArgs) -> bool:
    """Whether the configured level has BabyAI instructions, which the bot needs."""
    env = _make_one(rl)
    env.reset(seed=rl.seed)
    env.close()
    return has_instructions(env)


def _check_symbolic_view(level: str, observation: Any) -> None:
    image = observation.get("image") if isinstance(observation, dict) else None
    if image is None or image.shape != SYMBOLIC_VIEW or not mission(observation):
        found = "no image" if image is None else f"an image of shape {image.shape}, mission {mission(observation)!r}"
        raise UserError(
            f"rl_script_args.name_environment={level}: Symbolic-PPO needs an image of shape {SYMBOLIC_VIEW} and a "
            f"mission, this level gives {found}: choose a BabyAI level, or rl_script_args.symbolic.encoder=mlp"
        )


def _check_vector(level: str, env: gym.Env) -> None:
    seen, actions = env.observation_space, env.action_space
    is_vector = isinstance(seen, gym.spaces.Box) and len(seen.shape) == 1
    if not is_vector or not isinstance(actions, gym.spaces.Discrete) or actions.start != 0:
        raise UserError(
            f"rl_script_args.name_environment={level}: rl_script_args.symbolic.encoder=mlp needs observations that are "
            f"vectors and actions numbered from 0, this level has {seen} and {actions}: choose another level, or film"
        )


def make_envs(
    rl: RLScriptArgs,
    *,
    seeds: Sequence[int],
    episode_seeds: Sequence[Sequence[int]] | None = None,
    wrapper: Callable[[gym.Env], gym.Env] | None = None,
    render: bool = False,
) -> Any:
    """One vector environment of `len(seeds)` copies of the configured level (SAME_STEP autoreset).

    Args:
        seeds: one per environment, for its first reset; later episodes continue that stream.
        episode_seeds: one list per environment; episode k of an environment is reset with entry k.
        wrapper: put around every environment.
        render: those of other packages that can draw themselves as an array do so (MiniGrid's levels are data already).
    """
    makers = [partial(_make_one, rl, wrapper=wrapper, render=render)] * len(seeds)
    return make_vec_from(makers, seeds=seeds, episode_seeds=episode_seeds, backend=rl.vector_backend)


def _make_one(
    rl: RLScriptArgs, wrapper: Callable[[gym.Env], gym.Env] | None = None, *, render: bool = False
) -> gym.Env:
    import_packages(rl)  # a worker process that was not forked starts without them
    if is_minigrid(rl.name_environment, **rl.environment_options):
        options = dict(rl.environment_options)
        if rl.num_dists != DEFAULT_NUM_DISTS:
            options["num_dists"] = rl.num_dists
        if rl.task_kind not in DRAWN_TASK_KINDS or takes_task_kind(rl.name_environment):
            options["task_kind"] = rl.task_kind
        if rl.max_episode_steps is not None:
            options["max_steps"] = rl.max_episode_steps
        env: gym.Env = babyai_text.make(rl.name_environment, language=rl.language, walls=rl.walls, **options)
    else:
        options = {"render_mode": "rgb_array"} if render and _draws_arrays(rl.name_environment) else {}
        options |= rl.environment_options
        env = gym.make(rl.name_environment, disable_env_checker=True, max_episode_steps=rl.max_episode_steps, **options)
    return env if wrapper is None else wrapper(env)


def _draws_arrays(level: str) -> bool:
    """Whether a registered environment declares the render mode rgb_array."""
    return "rgb_array" in (getattr(creator_of(level), "metadata", None) or {}).get("render_modes", ())


def takes_task_kind(level: str) -> bool:
    """Whether a level has several kinds of tasks: a MixedTrainLocal or a subclass of it."""
    creator = creator_of(level)
    return isinstance(creator, type) and issubclass(creator, MixedTrainLocal)


def training_seeds(rl: RLScriptArgs) -> list[int]:
    """Environment i is seeded once with 100 * seed + i (released code)."""
    return [100 * rl.seed + i for i in range(rl.number_envs)]


def episode_seed(seed: int, episode: int) -> int:
    """The reset seed of test episode `episode`: int(1e9 * seed) + episode, the same for every test and every agent."""
    return int(1e9 * seed) + episode


@contextmanager
def keeping_failures(folder: Path) -> Iterator[None]:
    """Where an environment raises, its episode is written to `folder/failed_episode.json`, and the error tells of it.

    `set_state([state])` of a vector environment of one, made with the same configuration, plays it again up to there.
    """
    try:
        yield
    except EnvironmentFailedError as error:
        path = folder / FAILED_EPISODE
        with suppress(StorageError, TypeError, ValueError):  # a state that is no JSON
            write_atomically(path, json.dumps({"error": str(error), "state": error.state}, indent=1))
            error.add_note(f"{path} plays it again (docs/runs.md)")
        raise


def split_infos(infos: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """gymnasium's dict of arrays as one dict per environment, going through the masks (`_key`).

    What an environment gives as a dict is a dict of arrays, with masks of its own, and becomes one
    dict per environment again.
    """
    rows: list[dict[str, Any]] = [{} for _ in range(count)]
    for key, values in infos.items():
        if key.startswith("_") or key.startswith("final_"):
            continue
        mask = infos.get(f"_{key}")
        values = split_infos(values, count) if isinstance(values, dict) else values
        for i in range(count):
            if mask is None or mask[i]:
                rows[i][key] = values[i]
    return rows


def mission(observation: Any) -> str:
    """The mission of one environment; empty where an environment has none (its prompt tells it)."""
    return str(observation["mission"]) if isinstance(observation, dict) and "mission" in observation else ""


def missions(observations: Any, count: int) -> list[str]:
    """The mission of every environment of a batch."""
    return [mission(observation) for observation in split_observations(observations, count)]


def split_observations(observations: Any, count: int) -> list[Any]:
    """A batch of observations as one observation per environment."""
    if isinstance(observations, dict):
        return [{key: values[i] for key, values in observations.items()} for i in range(count)]
    return [observations[i] for i in range(count)]
