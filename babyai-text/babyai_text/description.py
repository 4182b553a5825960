"""Sentences for what a MiniGrid agent sees: the text observation of BabyAI-Text, in English and French.

The quirks of the published environment are kept, because language models were trained on exactly these words: the
article is always "a" ("You see a open red door"), French nouns are all feminine, and a held object keeps its English
words in French. A view is the `(view, view, 3)` array `gen_obs()["image"]`, indexed [column][row]; the agent sits in
the middle column of the last row and looks towards row 0.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from minigrid.core.constants import COLOR_TO_IDX, IDX_TO_COLOR, OBJECT_TO_IDX

from babyai_text.options import check_choice

EMPTY = OBJECT_TO_IDX["empty"]  # with "unseen" below it, the cells that hold nothing to speak of
WALL = OBJECT_TO_IDX["wall"]  # everything above it is an object, a door or a kind of ground
DOOR = OBJECT_TO_IDX["door"]

WALLS = ("published", "all")


class Language(NamedTuple):
    """Sentence forms and words of one language."""

    held: str
    wall: str
    thing: str
    door: str
    sides_and_ahead: str
    steps: tuple[str, str]  # for one, for several
    forward: str
    left: str
    right: str
    types: Mapping[str, str]
    colors: Mapping[str, str]
    states: tuple[str, str, str]  # of a door: open, closed, locked


LANGUAGES = {
    "english": Language(
        held="You carry a {color} {type}",
        wall="You see a wall {where}",
        thing="You see a {color} {type} {where}",
        door="You see a {state} {color} {type} {where}",
        sides_and_ahead="{side} and {ahead}",
        steps=("step", "steps"),
        forward="forward",
        left="left",
        right="right",
        types={name: name for name in OBJECT_TO_IDX},
        colors={name: name for name in IDX_TO_COLOR.values()},
        states=("open", "closed", "locked"),
    ),
    "french": Language(
        held="Tu portes une {english_type} {english_color}",
        wall="Tu vois un mur à {where}",
        thing="Tu vois une {type} {color} {where}",
        door="Tu vois une {type} {color} {state} {where}",
        sides_and_ahead="{side} et {ahead}",
        steps=("pas", "pas"),
        forward="devant",
        left="à gauche",
        right="à droite",
        types={
            "floor": "sol",
            "door": "porte",
            "key": "clef",
            "ball": "balle",
            "box": "boîte",
            "goal": "but",
            "lava": "lave",
            "agent": "agent",
        },
        colors={
            "red": "rouge",
            "green": "verte",
            "blue": "bleue",
            "purple": "violette",
            "yellow": "jaune",
            "grey": "grise",
        },
        states=("ouverte", "fermée", "fermée à clef"),
    ),
}


def describe(env: Any, language: str = "english", image: Any = None, *, walls: str = "published") -> list[str]:
    """What the agent of a MiniGrid environment holds and sees, one sentence per thing.

    Order: the held object; at most three walls (ahead, left, right); everything else in view, column by column from
    left to right and inside a column from the farthest row to the nearest.

    Args:
        env: any MiniGrid environment after `reset`, wrapped or not.
        language: "english" or "french".
        image: (view, view, 3) ints, the view as `gen_obs()["image"]` gives it; computed from `env` when None. Pass the
            one `step` returned: computing the view again costs as much as the step itself.
        walls: "published" mentions a wall only if nothing stands between it and the agent; "all" looks past objects
            and doors.

    Raises:
        ValueError: unknown `language` or `walls`.
    """
    check_choice("language", language, LANGUAGES)
    check_choice("walls", walls, WALLS)
    if image is None:
        image = env.unwrapped.gen_obs()["image"]
    view = image.tolist()  # plain ints: indexing numpy cell by cell is ten times slower
    middle, nearest = len(view) // 2, len(view) - 1

    sentences = []
    held_type, held_color, _ = view[middle][nearest]
    if held_type > EMPTY:
        sentences.append(_held(language, held_type, held_color))
    sentences += _walls_around(language, view, past_objects=walls == "all")
    for column, cells in enumerate(view):
        for row, (kind, color, state) in enumerate(cells):
            if kind > WALL and not (column == middle and row == nearest):
                sentences.append(_thing(language, kind, color, state, column - middle, nearest - row))
    return sentences


def _walls_around(language: str, view: Sequence[Sequence[Sequence[int]]], *, past_objects: bool) -> list[str]:
    """At most three sentences: the walls straight ahead, to the left and to the right of the agent."""
    middle, nearest = len(view) // 2, len(view) - 1
    lines = (
        (0, [cell[0] for cell in view[middle][-2::-1]]),
        (-1, [column[nearest][0] for column in view[middle - 1 :: -1]]),
        (1, [column[nearest][0] for column in view[middle + 1 :]]),
    )
    sentences = []
    for side, line in lines:
        distance = _distance_to_wall(line, past_objects=past_objects)
        if distance:
            sentences.append(_wall(language, side * distance, 0 if side else distance))
    return sentences


def _distance_to_wall(line: Sequence[int], *, past_objects: bool) -> int:
    """Steps to the wall at the end of `line`, the type codes met when walking away from the agent; 0 for none."""
    for distance, kind in enumerate(line, start=1):
        if kind == WALL:
            return distance
        if kind > WALL and not past_objects:
            return 0
    return 0


# There are a few thousand different sentences at most, so each is put together once.


@cache
def _held(language: str, kind: int, color: int) -> str:
    return LANGUAGES[language].held.format(**_words(language, kind, color))


@cache
def _wall(language: str, right: int, ahead: int) -> str:
    return LANGUAGES[language].wall.format(where=_where(language, right, ahead))


@cache
def _thing(language: str, kind: int, color: int, state: int, right: int, ahead: int) -> str:
    words = _words(language, kind, color) | {"where": _where(language, right, ahead)}
    if kind == DOOR:
        return LANGUAGES[language].door.format(state=LANGUAGES[language].states[state], **words)
    return LANGUAGES[language].thing.format(**words)


def _words(language: str, kind: int, color: int) -> dict[str, str]:
    # by name, as packages add their own kinds and colours to these two tables; their names are used in every language
    english_type = next(name for name, index in OBJECT_TO_IDX.items() if index == kind)
    english_color = next(name for name, index in COLOR_TO_IDX.items() if index == color)
    return {
        "type": LANGUAGES[language].types.get(english_type, english_type),
        "color": LANGUAGES[language].colors.get(english_color, english_color),
        "english_type": english_type,
        "english_color": english_color,
    }


def _where(language: str, right: int, ahead: int) -> str:
    """Position relative to the agent; `right` is negative to its left, one of the two is not 0."""
    words = LANGUAGES[language]

    def paces(count: int, direction: str) -> str:
        return f"{count} {words.steps[count > 1]} {direction}"

    side = paces(abs(right), words.left if right < 0 else words.right)
    if not ahead:
        return side
    if not right:
        return paces(ahead, words.forward)
    return words.sides_and_ahead.format(side=side, ahead=paces(ahead, words.forward))
