"""The word substitutions of the generalisation tests (paper, section 4.2), applied to the finished prompt.

Whole words only, and all in one pass, so that no substitute is substituted again and the order of pairs is no matter.
PAPER-DIFF(11): the released code replaces substrings, one pair after the other, and misspells a French colour.
"""

from __future__ import annotations

import re
from collections.abc import Callable

NO_MODIFICATION, OTHER_GOAL = "no_modification_test", "other_goal_test"  # these two substitute no word

_NOUNS = {"key": "chair", "ball": "table", "box": "car"}
_COLOURS = {
    "red": "vermilion", "green": "jade", "blue": "cyan", "purple": "violet", "yellow": "golden", "grey": "silver",
}  # fmt: skip
_INVENTED_NOUNS = {"key": "dax", "ball": "xolo", "box": "afze"}
_INVENTED_COLOURS = {
    "red": "faze", "green": "jatu", "blue": "croh", "purple": "vurst", "yellow": "gakul", "grey": "sil",
}  # fmt: skip
_FRENCH_NOUNS = {"clef": "chaise", "balle": "table", "boîte": "voiture"}
_FRENCH_COLOURS = {
    "rouge": "vermilion", "verte": "jade", "bleue": "cyan", "violette": "mauve", "jaune": "dorée", "grise": "argent",
}  # fmt: skip
_FRENCH_INVENTED_NOUNS = dict(zip(_FRENCH_NOUNS, _INVENTED_NOUNS.values(), strict=True))
_FRENCH_INVENTED_COLOURS = dict(zip(_FRENCH_COLOURS, _INVENTED_COLOURS.values(), strict=True))

# test -> language -> pairs
SUBSTITUTIONS: dict[str, dict[str, dict[str, str]]] = {
    "other_name_same_categories": {"english": _NOUNS, "french": _FRENCH_NOUNS},
    "adj_synonym": {"english": _COLOURS, "french": _FRENCH_COLOURS},
    "no_meaning_nouns": {"english": _INVENTED_NOUNS, "french": _FRENCH_INVENTED_NOUNS},
    "no_meaning_adj": {"english": _INVENTED_COLOURS, "french": _FRENCH_INVENTED_COLOURS},
    "no_meaning_words": {
        "english": _INVENTED_NOUNS | _INVENTED_COLOURS,
        "french": _FRENCH_INVENTED_NOUNS | _FRENCH_INVENTED_COLOURS,
    },
    "change_intro_first_personne_speaker": {
        "english": {"Goal of the agent": "I would like the agent to"},
        "french": {"But de l'agent": "Je veux que l'agent fasse"},
    },
    "change_intro_first_personne_agent": {
        "english": {"Goal of the agent": "You have to"},
        "french": {"But de l'agent": "Tu dois faire"},
    },
}
TESTS = (NO_MODIFICATION, *SUBSTITUTIONS, OTHER_GOAL)


def rewording(test: str, language: str) -> Callable[[str], str]:
    """The function that words a text as a test does; a test without substitutions leaves it as it is."""
    pairs = SUBSTITUTIONS.get(test, {}).get(language, {})
    if not pairs:
        return lambda text: text
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, pairs))})\b")
    return lambda text: pattern.sub(lambda found: pairs[found[0]], text)
