"""Saving and restoring any gymnasium environment: its random generator at the episode's reset and the actions since.

Nothing here knows about MiniGrid or text. It works for every environment whose only source of chance is `np_random`;
one that keeps more than that across episodes offers it as a JSON-able, assignable `instance_state`.
"""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from babyai_text.failures import EnvironmentFailedError

ResetReturn = tuple[Any, dict[str, Any]]  # observation, info


class ReplayState(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Adds `get_state() -> dict` (JSON-able) and `set_state(dict) -> (observation, info)`.

    Restoring plays the running episode again, so it costs as much as the steps taken in it. Afterwards everything goes
    on as it would have: this episode, and the later ones of the generator's stream.
    """

    def __init__(self, env: gym.Env):
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self._start: dict[str, Any] | None = None  # how to repeat the last reset
        self._actions: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> ResetReturn:
        self._start = {
            "env": self._env_id(),
            "made_with": self._made_with(),
            "seed": seed,
            "generator": self.unwrapped.np_random.bit_generator.state if seed is None else None,
            "instance": getattr(self.unwrapped, "instance_state", None),
            "options": options,
        }
        self._actions = []
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self._actions.append(action.tolist() if isinstance(action, np.ndarray | np.generic) else action)
        return self.env.step(action)

    @property
    def steps(self) -> int:
        """Steps that were taken or tried in this episode."""
        return len(self._actions)

    def get_state(self) -> dict[str, Any]:
        """What `set_state` needs, in the same process or another one.

        Raises:
            gymnasium.error.ResetNeeded: there is no episode yet.
        """
        if self._start is None:
            raise gym.error.ResetNeeded("get_state needs an episode: call reset first")
        return {**self._start, "actions": list(self._actions)}

    def set_state(self, state: dict[str, Any]) -> ResetReturn:
        """Go back to a saved state; returns the observation and info of its last reset or step.

        Raises:
            ValueError: the state was saved by an environment with another id or other options.
        """
        self._check_fits(state)
        if state["generator"] is not None:
            self.unwrapped.np_random.bit_generator.state = state["generator"]
        if hasattr(self.unwrapped, "instance_state"):
            self.unwrapped.instance_state = state["instance"]
        observation, info = self.reset(seed=state["seed"], options=state["options"])
        for action in state["actions"]:
            array_or_plain = np.asarray(action, self.action_space.dtype) if isinstance(action, list) else action
            observation, _, _, _, info = self.step(array_or_plain)
        return observation, info

    def _check_fits(self, state: dict[str, Any]) -> None:
        if state["env"] != self._env_id():
            raise ValueError(f"this state was saved by {state['env']}, it does not fit {self._env_id()}")
        there, here = state["made_with"], self._made_with()
        # an option that is given counts as different from one that is not, even where it gives the default
        same = {name for name in there if name in here and there[name] == here[name]}
        differing = sorted({*there, *here} - same)
        if differing:
            raise ValueError(
                f"this state of {state['env']} was saved with {_listed(there, differing)}, "
                f"it does not fit an environment with {_listed(here, differing)}"
            )

    def _env_id(self) -> str | None:
        return self.unwrapped.spec.id if self.unwrapped.spec else None

    def _made_with(self) -> dict[str, Any]:
        """JSON-able, the options given to `gymnasium.make` that decide an episode; empty where it was not used."""
        spec = self.env.spec or self.unwrapped.spec  # the first knows of a time limit
        if spec is None:
            return {}
        limit = {} if spec.max_episode_steps is None else {"max_episode_steps": spec.max_episode_steps}
        return _json_able({name: value for name, value in spec.kwargs.items() if name != "render_mode"} | limit)


def _json_able(value: Any) -> Any:
    """`value` in JSON's types, the same before and after JSON; what has no such form is told apart by its name only."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _json_able(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_json_able(entry) for entry in value]
    if isinstance(value, np.ndarray | np.generic):
        return _json_able(value.tolist())
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def _listed(options: Mapping[str, Any], names: list[str]) -> str:
    return ", ".join(f"{name}={options[name]!r}" if name in options else f"no {name}" for name in names)


class SeededEpisodes(gym.Wrapper[Any, Any, Any, Any]):
    """Resets with given seeds, one per episode; when they are used up, episodes continue the last seed's stream.

    A seed passed to `reset` starts a new stream, and the seeds still waiting are dropped.

    Args:
        index: the environment's place in a vector environment, for errors.

    Raises:
        EnvironmentFailedError: from what the environment raises in `reset` or `step`.

    Attributes:
        state_for_reset: set it, and the next reset restores this state (of `get_state`) instead of starting an episode.
            A vector environment has no other way to hand each of its environments something of its own.
    """

    env: ReplayState

    def __init__(self, env: ReplayState, seeds: list[int], index: int = 0):
        super().__init__(env)
        self._waiting_seeds = list(seeds)
        self._index = index
        self._stream: tuple[int, int] | None = None  # the last seed, and the episodes since; None where it is not known
        self.state_for_reset: dict[str, Any] | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> ResetReturn:
        if self.state_for_reset is not None:
            state, self.state_for_reset = self.state_for_reset, None
            return self.set_state(state)
        if seed is not None:
            self._waiting_seeds = []
        elif self._waiting_seeds:
            seed = self._waiting_seeds.pop(0)
        if seed is not None:
            self._stream = (seed, 1)
        elif self._stream is not None:
            self._stream = (self._stream[0], self._stream[1] + 1)
        try:
            return self.env.reset(seed=seed, options=options)
        except Exception as error:
            raise self._failed(error, "at its reset") from error

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        try:
            return self.env.step(action)
        except gym.error.ResetNeeded:  # who steps made the mistake
            raise
        except Exception as error:
            raise self._failed(error, f"in step {self.env.steps}, action {action}") from error

    def _failed(self, error: Exception, when: str) -> EnvironmentFailedError:
        level = self.unwrapped.spec.id if self.unwrapped.spec else type(self.unwrapped).__name__
        if self._stream is None:
            episode = "an episode of unknown seed"
        else:
            seed, number = self._stream
            # only the first one is made by the seed alone
            episode = f"the episode of seed {seed}" if number == 1 else f"episode {number} of the stream of seed {seed}"
        try:
            state = self.get_state()
        except Exception:  # it has failed, who knows what else does
            state = None
        text = f"environment {self._index} of {level}, {episode}, {when}: {type(error).__name__}: {error}"
        return EnvironmentFailedError(text, state, error)

    def get_state(self) -> dict[str, Any]:
        """The state of the episode, where it comes from, and the seeds of those to come."""
        episode = self.env.get_state()
        return {
            "waiting_seeds": list(self._waiting_seeds),
            "stream": self._stream and list(self._stream),
            "episode": episode,
        }

    def set_state(self, state: dict[str, Any]) -> ResetReturn:
        restored = self.env.set_state(state["episode"])  # first, because it may refuse
        self._waiting_seeds = list(state["waiting_seeds"])
        stream = state.get("stream")  # older states do not tell
        self._stream = None if stream is None else (stream[0], stream[1])
        return restored
