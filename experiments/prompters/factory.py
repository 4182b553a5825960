"""The prompters that a configuration asks for."""

from __future__ import annotations

from collections.abc import Callable

from experiments.configuration import RLScriptArgs
from experiments.errors import UserError
from experiments.prompters.base_prompter import Prompter
from experiments.prompters.environment_prompter import EnvironmentPrompter
from experiments.prompters.french_prompter import ACTIONS as FRENCH_ACTIONS
from experiments.prompters.french_prompter import FrenchPrompter
from experiments.prompters.glam_prompter import GlamPrompter, environment_action_ids


def shown_action_names(rl: RLScriptArgs) -> list[str]:
    """The action names as the prompt shows them and as they are scored.

    Raises:
        UserError: an action has no French name.
    """
    names = rl.new_action_space if rl.modified_action_space and rl.new_action_space else rl.action_space
    names = [name.replace("_", " ") for name in names]
    if rl.language == "english":
        return names
    unknown = [name for name in names if name not in FRENCH_ACTIONS]
    if unknown:
        raise UserError(
            f"rl_script_args.action_space: {', '.join(unknown)} has no French name, choose from "
            f"{', '.join(FRENCH_ACTIONS)}"
        )
    return [FRENCH_ACTIONS[name] for name in names]


def prompter_factory(rl: RLScriptArgs) -> Callable[[], Prompter]:
    """A function that makes one prompter for one environment."""
    names, ids = shown_action_names(rl), environment_action_ids(rl.action_space)
    kind = FrenchPrompter if rl.language == "french" else GlamPrompter
    if rl.prompter == "environment":
        return lambda: EnvironmentPrompter(names, ids)
    return lambda: kind(names, ids, rl.nbr_obs)


def make_prompters(rl: RLScriptArgs) -> list[Prompter]:
    """One prompter for each of `number_envs` environments."""
    make = prompter_factory(rl)
    return [make() for _ in range(rl.number_envs)]
