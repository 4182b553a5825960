"""GLAM's prompt: the action list, the goal, and a sliding window of observations and actions (paper, appendix)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.prompters.base_prompter import TextState, needed

CANONICAL_ACTIONS = ("turn_left", "turn_right", "go_forward", "pick_up", "drop", "toggle")
NO_OP = 6  # BabyAI's "done"


def environment_action_ids(action_space: Sequence[str]) -> list[int]:
    """The environment's id of every action name.

    One of the six canonical names is sent as itself wherever it stands. Any other name (a renamed action) takes the id
    of its position, as in the released code, unless that action is in the list under its own name; from the seventh on,
    and then, it is a no-op.

    PAPER-DIFF(15): in the released code a canonical name, too, is sent as its position.
    """
    ids = []
    for position, name in enumerate(action_space):
        if name in CANONICAL_ACTIONS:
            ids.append(CANONICAL_ACTIONS.index(name))
        elif position < NO_OP and CANONICAL_ACTIONS[position] not in action_space:
            ids.append(position)
        else:
            ids.append(NO_OP)
    return ids


class GlamPrompter:
    """The English prompt.

        Possible action of the agent: A1, A2 \\n Goal of the agent: G \\n Observation 0: s1, s2, \\n Action 0: a \\n ...

    Every sentence is followed by ", ". The window holds `nbr_obs` observations and `nbr_obs - 1` actions, is cleared at
    the end of an episode, and its indices restart at 0.

    Args:
        action_names: names as they are shown and scored, spaces instead of underscores.
        action_ids: the environment's id of each.
        nbr_obs: observations kept, the newest included.
    """

    actions_header = "Possible action of the agent:"
    goal_header = "Goal of the agent:"

    def __init__(self, action_names: Sequence[str], action_ids: Sequence[int], nbr_obs: int) -> None:
        self.action_names = list(action_names)
        self.action_ids = list(action_ids)
        self.nbr_obs = nbr_obs
        self.mission = ""
        self.observations: list[list[str]] = []
        self.actions: list[str] = []

    def goal(self) -> str:
        """The mission as it stands in the prompt."""
        return self.mission

    def reset(self, mission: str) -> None:
        self.mission = mission
        self.observations = []
        self.actions = []

    def observe(self, observation: Any, info: dict[str, Any], action: int | None = None) -> None:
        if action is not None:
            self.actions.append(self.action_names[action])
        self.observations.append(list(needed(info, "descriptions", "glam", "environment")))
        self.observations = self.observations[-self.nbr_obs :]
        kept_actions = len(self.observations) - 1
        self.actions = self.actions[-kept_actions:] if kept_actions else []

    def prompt(self) -> str:
        text = f"{self.actions_header} {', '.join(self.action_names)} \n {self.goal_header} {self.goal()}"
        for index, sentences in enumerate(self.observations):
            text += f" \n Observation {index}: " + "".join(f"{sentence}, " for sentence in sentences)
            text += f"\n Action {index}: " + (self.actions[index] if index < len(self.actions) else "")
        return text

    def state(self) -> TextState:
        return TextState(self.prompt(), self.action_names, self.action_ids)

    def get_state(self) -> dict[str, Any]:
        return {"mission": self.mission, "observations": self.observations, "actions": self.actions}

    def set_state(self, state: dict[str, Any]) -> None:
        self.mission = state["mission"]
        self.observations = [list(sentences) for sentences in state["observations"]]
        self.actions = list(state["actions"])
