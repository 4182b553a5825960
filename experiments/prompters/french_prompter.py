"""GLAM's French prompt, and the translation of missions and actions that it needs."""

from __future__ import annotations

import re

from babyai_text.description import LANGUAGES
from experiments.errors import UserError
from experiments.prompters.glam_prompter import GlamPrompter

ACTIONS = {
    "turn left": "tourner à gauche",
    "turn right": "tourner à droite",
    "go forward": "aller tout droit",
    "pick up": "attraper",
    "drop": "lâcher",
    "toggle": "basculer",
    "eat": "manger",
    "dance": "danser",
    "sleep": "dormir",
    "do nothing": "ne rien faire",
    "cut": "couper",
    "think": "penser",
}
FRENCH = LANGUAGES["french"]
NOUNS = {noun: FRENCH.types[noun] for noun in ("key", "ball", "box", "door")}  # all feminine, as are the colours
ARTICLES = {"the": "la", "a": "une"}

_OBJECT = r"(the|a) (?:(\w+) )?(key|ball|box|door)"


def translate_mission(mission: str) -> str:
    """The French goal of an English BabyAI-Text mission.

    PAPER-DIFF(12): the released code words every goal as "aller à", and takes its article from the letters of the noun.

    Raises:
        UserError: the mission is none of go to, pick up, open, put next to, or a sequence of two of them.
    """
    for pattern, form in ((r"(.+), then (.+)", "{0}, puis {1}"), (r"(.+) after you (.+)", "{0} après avoir fait: {1}")):
        parts = re.fullmatch(pattern, mission)
        if parts:
            return form.format(translate_mission(parts[1]), translate_mission(parts[2]))
    forms = (
        (rf"go to {_OBJECT}", "aller à {0}"),
        (rf"pick up {_OBJECT}", "attraper {0}"),
        (rf"open {_OBJECT}", "ouvrir {0}"),
        (rf"put {_OBJECT} next to {_OBJECT}", "mettre {0} à côté de {1}"),
    )
    for pattern, form in forms:
        parts = re.fullmatch(pattern, mission)
        if parts:
            groups = parts.groups()
            return form.format(*(_translate_object(*groups[i : i + 3]) for i in range(0, len(groups), 3)))
    raise UserError(f"rl_script_args.language=french: no French form is known for {mission!r}, use english here")


def _translate_object(article: str, colour: str | None, noun: str) -> str:
    if colour is not None and colour not in FRENCH.colors:
        raise UserError(f"rl_script_args.language=french: no French form is known for the colour {colour!r}")
    words = [ARTICLES[article], NOUNS[noun]] + ([FRENCH.colors[colour]] if colour else [])
    return " ".join(words)


class FrenchPrompter(GlamPrompter):
    """The French prompt; the action names given are French already, the mission is translated here."""

    actions_header = "Actions possibles pour l'agent:"
    goal_header = "But de l'agent:"

    def goal(self) -> str:
        return translate_mission(self.mission)
