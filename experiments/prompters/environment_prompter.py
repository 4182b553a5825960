"""The prompter of environments that write their own prompt and offer their own actions."""

from __future__ import annotations

from typing import Any

from experiments.prompters.base_prompter import TextState, needed


class EnvironmentPrompter:
    """Takes prompt, candidates and their ids from `info["prompt"]`, `info["actions"]` and `info["action_ids"]`.

    Where an environment offers no list of its own, the configured actions are used.
    """

    def __init__(self, action_names: list[str], action_ids: list[int]) -> None:
        self.default = (action_names, action_ids)
        self.present = TextState("", action_names, action_ids)

    def reset(self, mission: str) -> None:
        self.present = TextState("", *self.default)

    def observe(self, observation: Any, info: dict[str, Any], action: int | None = None) -> None:
        names = list(info.get("actions", self.default[0]))
        ids = [int(i) for i in info.get("action_ids", self.default[1] if "actions" not in info else range(len(names)))]
        self.present = TextState(str(needed(info, "prompt", "environment", "glam")), names, ids)

    def state(self) -> TextState:
        return self.present

    def get_state(self) -> dict[str, Any]:
        return self.present._asdict()

    def set_state(self, state: dict[str, Any]) -> None:
        self.present = TextState(**state)
