"""The rows of the generalisation table: what a test changes against training."""

from __future__ import annotations

from typing import Any, NamedTuple

from experiments.results import paper
from experiments.results.labels import level_name


class RowKey(NamedTuple):
    """What makes a test this test: the same for all agents and seeds."""

    level: str
    language: str
    test: str
    actions: tuple[str, ...]  # names that replace the action list's, () where it is as in training


NO_CHANGE = "no change"
TESTS = {
    "no_modification": NO_CHANGE,
    "other_name_same_categories": "other nouns",
    "adj_synonym": "synonym adjectives",
    "no_meaning_nouns": "invented nouns",
    "no_meaning_adj": "invented adjectives",
    "no_meaning_words": "invented nouns and adjectives",
    "change_intro_first_personne_speaker": "goal as a wish (I would like the agent to)",
    "change_intro_first_personne_agent": "goal as an order (You have to)",
    "other_goal": "another goal in the prompt",
}
LEVELS = {
    "PickUpSeqPickUpLocal": "pick up A then/after pick up B",
    "PickUpSeqGoToLocal": "pick up A then/after go to B",
    "PickUpThenGoToLocal": "pick up A, then go to B",
    "GoToAfterPickUpLocal": "go to B after pick up A",
    "MixedTestLocal": "objects not named in training",
    "GoToFrench": "go to",
}
SYNONYMS: tuple[str, ...] = ("rotate_left", "rotate_right", "move_ahead", "take", "release", "switch")
ACTIONS: dict[tuple[str, ...], str] = {
    SYNONYMS: "synonym actions",
    ("shift_left", "shift_right", "go_ahead", "take", "release", "turn"): "synonym actions, second set",
}
# The rows of the paper's table.
PAPER = (
    RowKey(paper.LEVEL, "english", "no_modification_test", ()),
    RowKey(paper.LEVEL, "english", "other_name_same_categories", ()),
    RowKey(paper.LEVEL, "english", "no_meaning_words", ()),
    RowKey("BabyAI-PickUpSeqPickUpLocal-v0", "english", "no_modification_test", ()),
    RowKey(paper.LEVEL, "english", "no_modification_test", SYNONYMS),
    RowKey("BabyAI-GoToFrench-v0", "french", "no_modification_test", ()),
)


def row_name(key: RowKey, training_level: str) -> str:
    """What a test changes, in words.

    Args:
        training_level: the level in which "no change" is played, in English.
    """
    level, language, test, actions = key
    parts = ["French"] if language == "french" else []
    if level != training_level:
        parts.append(LEVELS.get(level_name(level), level_name(level)))
    if actions:
        parts.append(actions_name(actions))
    base = test.removesuffix("_test")
    if base != "no_modification":
        parts.append(TESTS.get(base, base.replace("_", " ")))
    return ", ".join(parts) or NO_CHANGE


def actions_name(actions: tuple[str, ...]) -> str:
    """What a test with renamed actions is called."""
    return ACTIONS.get(actions, f"actions named {' '.join(actions)}")


def row_order(key: RowKey, training_level: str) -> tuple[Any, ...]:
    """A sort key: no change, other words, other levels, other actions, French, as in the paper's figure."""
    level, language, test, actions = key
    names, levels = list(TESTS), list(LEVELS)
    base, short = test.removesuffix("_test"), level_name(level)
    return (
        language != "english",
        list(ACTIONS).index(actions) + 1 if actions in ACTIONS else bool(actions) * 99,
        0 if level == training_level else levels.index(short) + 1 if short in levels else 99,
        names.index(base) if base in names else 99,
        key,
    )
