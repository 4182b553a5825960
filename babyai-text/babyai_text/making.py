"""`make` and `make_vec`: any MiniGrid or BabyAI level, whichever package registers it, with text."""

import difflib
import importlib
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator
from minigrid.minigrid_env import MiniGridEnv

from babyai_text.options import step_limit
from babyai_text.registration import LEVELS
from babyai_text.replay import ReplayState
from babyai_text.text import TextInfo
from babyai_text.vector import ProcessEpisodes, SyncEpisodes, make_vec_from

_UNKNOWN_OPTION = re.compile(r"(?:unexpected keyword|multiple values for (?:keyword )?) ?argument '(\w+)'")


def make(level: str, *, language: str | None = None, walls: str = "published", **options: Any) -> ReplayState:
    """Make one environment whose info carries `descriptions` and whose state can be saved.

    Args:
        level: the id of any MiniGridEnv subclass, whichever package registers it; "module:id" imports the module first.
        language: "english" or "french"; None takes the level's own, which is English where it has none.
        walls: "published" or "all", see `describe`.
        options: go to the environment's constructor: max_steps, task_kind, num_dists, render_mode, ...

    Raises:
        gymnasium.error.NameNotFound: unknown `level`; the message lists near names.
        ModuleNotFoundError: `level` names a module that cannot be found.
        TypeError: an option that the level does not take, or a level that is not a MiniGrid environment.
        ValueError: an option's value that is not allowed.
    """
    level = registered_id(level)
    own_options = LEVELS[level][1] if level in LEVELS else {}
    if language is None:
        language = own_options.get("language", "english")
    if level in LEVELS:  # these come with text
        return ReplayState(_make(level, options | {"language": language, "walls": walls}))
    return ReplayState(TextInfo(_make(level, options), language, walls))


def registered_id(level: str) -> str:
    """The id that `level` is registered under; "module:id" imports the module first.

    Raises:
        gymnasium.error.NameNotFound, ModuleNotFoundError: as `make`.
    """
    if ":" in level:
        module, _, level = level.rpartition(":")
        importlib.import_module(module)
    if level not in gym.registry:
        near = difflib.get_close_matches(level, gym.registry, n=5)
        hint = f"; near names: {', '.join(near)}" if near else ""
        raise gym.error.NameNotFound(f"no environment is called {level!r}{hint}")
    return level


def creator_of(level: str) -> Callable[..., gym.Env]:
    """The class of a level, or the function that makes it. Raises as `registered_id`."""
    level = registered_id(level)
    creator: Any = LEVELS[level][0] if level in LEVELS else gym.spec(level).entry_point
    if isinstance(creator, str):
        creator = load_env_creator(creator)
    return creator


def is_minigrid(level: str, /, **options: Any) -> bool:
    """Whether `make` accepts a level: any subclass of MiniGridEnv, whichever package registers it.

    Where the entry point is a function or a wrapper, the level is made once, with `options`.

    Raises:
        gymnasium.error.NameNotFound, ModuleNotFoundError, TypeError: as `make`.
    """
    creator = creator_of(level)
    if isinstance(creator, type) and not issubclass(creator, gym.Wrapper):
        return issubclass(creator, MiniGridEnv)
    env = _make(registered_id(level), options)
    env.close()
    return isinstance(env.unwrapped, MiniGridEnv)


def make_vec(
    level: str,
    num_envs: int,
    *,
    seeds: Sequence[int],
    language: str | None = None,
    backend: str = "sync",
    episode_seeds: Sequence[Sequence[int]] | None = None,
    **options: Any,
) -> SyncEpisodes | ProcessEpisodes:
    """`num_envs` environments of `make(level, language=language, **options)` as one vector environment.

    The seeds, the backends and what `reset` and `step` return are described in `babyai_text.vector`.
    """
    makers = [partial(make, level, language=language, **options)] * num_envs
    return make_vec_from(makers, seeds=seeds, episode_seeds=episode_seeds, backend=backend)


def _make(level: str, options: dict[str, Any]) -> gym.Env:
    """gymnasium.make, but an option or time limit that the level does not take is named in one line."""
    if "max_steps" in options:
        options = options | {"max_steps": step_limit(options["max_steps"])}
    try:
        return gym.make(level, disable_env_checker=True, **options)
    except TypeError as error:
        unknown = _UNKNOWN_OPTION.search(str(error))
        if unknown is None:
            raise
        raise TypeError(f"{level} takes no option {unknown[1]!r}") from None
