"""Prompt and action phrases: functions of the observation vector alone, so that they remember nothing out of view.

A prompt ends in a clause that every action phrase continues, a space between them.
"""

from __future__ import annotations

from collections.abc import Sequence

from overcooked_text.observation import Facts, Thing, read
from overcooked_text.tasks import BOWL, Task

NUMBERS = ("zero", "one", "two")
ORDINALS = ("first ", "second ")


def prompt(task: Task, vector: Sequence[int]) -> str:
    """What the agent sees and holds, its goal, and the beginning of a sentence about its next step."""
    facts = read(task, vector)
    sentences = [_boards(task), *_at_home(facts), *_on_boards(task, facts), _agent(task, facts), _goal(task)]
    return " ".join([*sentences, "The best next step is to"])


def phrases(task: Task, vector: Sequence[int]) -> tuple[str, ...]:
    """What each macro-action is called in this situation, by its id; infinitives without "to"."""
    facts = read(task, vector)
    holds_bowl = facts.hand is not None and facts.hand.bowl
    full_bowl = any(thing and thing.bowl and thing.foods for thing in (facts.hand, *facts.on_boards))
    # only the tomato-lettuce salad, where a filled bowl may have to be put down, tells the two apart
    bowl = "empty bowl" if len(task.boards) > 1 and not full_bowl else "bowl"
    return (
        *(f"put the {food} in the bowl" if holds_bowl else f"pick up the {food}" for food in task.foods),
        f"take the {bowl}",
        *(_to_board(facts.hand, _board(task, i)) for i in range(len(task.boards))),
        "serve nothing" if facts.hand is None else "serve the dish",
        _chop(facts),
    )


def _to_board(hand: Thing | None, board: str) -> str:
    if hand is None or (hand.chopped and not hand.bowl):
        return f"walk to the {board}"
    return f"put the {BOWL if hand.bowl else hand.foods[0]} on the {board}"


def _chop(facts: Facts) -> str:
    thing = None if facts.board is None else facts.on_boards[facts.board]
    return "chop nothing" if thing is None or thing.bowl else f"chop the {thing.foods[0]}"


def _board(task: Task, index: int) -> str:
    return "cutting board" if len(task.boards) == 1 else f"{ORDINALS[index]}cutting board"


def _boards(task: Task) -> str:
    number = len(task.boards)
    return f"This kitchen has {NUMBERS[number]} cutting board{'s' if number > 1 else ''} fixed to the counter."


def _at_home(facts: Facts) -> list[str]:
    items = [_a(item) for item in facts.at_home]
    if not items:
        return []
    return [f"You can see {_listed(items)} on {'a table' if len(items) == 1 else 'different tables'}."]


def _on_boards(task: Task, facts: Facts) -> list[str]:
    return [f"On the {_board(task, i)} is {_told(thing)}." for i, thing in enumerate(facts.on_boards) if thing]


def _agent(task: Task, facts: Facts) -> str:
    holding = f"In your hand is {_told(facts.hand)}" if facts.hand else "Your hand is empty"
    return (
        f"{holding}."
        if facts.board is None
        else f"{holding}, and you stand in front of the {_board(task, facts.board)}."
    )


def _goal(task: Task) -> str:
    return f"Your goal is to serve this dish: a bowl that contains only chopped {_listed(task.recipe)}."


def _told(thing: Thing) -> str:
    if not thing.bowl:
        return f"a chopped {thing.foods[0]}" if thing.chopped else f"an unchopped {thing.foods[0]}"
    return f"a bowl that contains chopped {_listed(thing.foods)}" if thing.foods else "an empty bowl"


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
