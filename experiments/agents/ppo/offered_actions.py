"""What vector PPO reads of an environment's info, also where the environment does not write it."""

from __future__ import annotations

from typing import Any

import gymnasium as gym


class OfferedActions(gym.Wrapper):
    """Completes `info` by what it lacks of `action_ids`, `actions` and `prompt`; what it has stays as it is.

    Without a list every action of the environment is on offer. Names and prompt are for who looks at an episode.
    """

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(**kwargs)
        return observation, self._completed(observation, info)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated, truncated, self._completed(observation, info)

    def _completed(self, observation: Any, info: dict[str, Any]) -> dict[str, Any]:
        if "action_ids" in info and "actions" in info and "prompt" in info:
            return info
        assert isinstance(self.action_space, gym.spaces.Discrete)
        count = len(info["actions"]) if "actions" in info else int(self.action_space.n)
        ids = list(info.get("action_ids", range(count)))
        names = [f"action {i}" for i in ids]
        return {"prompt": f"Observation: {observation.tolist()}", "actions": names, "action_ids": ids, **info}
