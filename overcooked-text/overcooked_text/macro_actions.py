"""Macro-actions: each is a generator that takes one primitive step in the kitchen whenever it is asked for the next.

What it yields is the step's Event. Every macro-action takes at least one step; where it has nothing to do it idles.
"""

from __future__ import annotations

from collections.abc import Iterator

from overcooked_text.kitchen import CHOPS, IN_BOWL, Event, Kitchen, access
from overcooked_text.tasks import BOWL, DELIVERY, Cell, Task

Steps = Iterator[Event]


def number_of(task: Task) -> int:
    """How many macro-actions a task has; see `macro_action` for their order."""
    return len(task.foods) + len(task.boards) + 3


def macro_action(kitchen: Kitchen, index: int, view_radius: int) -> Steps:
    """The macro-action of a global id: get each food, get the bowl, go to each board, deliver, chop."""
    foods, boards = kitchen.task.foods, kitchen.task.boards
    if index < len(foods):
        return get_food(kitchen, foods[index], view_radius)
    index -= len(foods)
    if index == 0:
        return get_bowl(kitchen)
    if index <= len(boards):
        return bring(kitchen, boards[index - 1])
    return bring(kitchen, DELIVERY) if index == len(boards) + 1 else chop(kitchen)


def bring(kitchen: Kitchen, counter: Cell) -> Steps:
    """Go to a board or to the delivery, and touch it only if there is something in hand."""
    if kitchen.held is None:
        yield from _arrive(kitchen, counter)
    else:
        yield from _walk(kitchen, counter)
        yield kitchen.touch(counter)


def get_food(kitchen: Kitchen, food: str, view_radius: int) -> Steps:
    """Take a food; one that is in hand or seen in the bowl is left there, and one to be chopped is only walked to."""
    if kitchen.place[food] == IN_BOWL:
        while not in_view(kitchen.agent, kitchen.cell(BOWL), view_radius):
            yield _step_towards(kitchen, kitchen.cell(BOWL))
        yield Event.NOTHING
    elif kitchen.held == food:
        yield Event.NOTHING
    elif kitchen.place[food] in kitchen.task.boards and not kitchen.chopped(food):
        yield from _arrive(kitchen, kitchen.cell(food))
    else:
        counter = kitchen.cell(food)
        yield from _walk(kitchen, counter)
        yield kitchen.touch(counter)


def get_bowl(kitchen: Kitchen) -> Steps:
    """Take the bowl; chopped food in hand is put into it first, other food keeps the agent from it."""
    held, counter = kitchen.held, kitchen.cell(BOWL)
    if held == BOWL:
        yield Event.NOTHING
        return
    yield from _walk(kitchen, counter)
    if held is None:
        yield kitchen.touch(counter)
    elif kitchen.chopped(held):
        yield kitchen.touch(counter)
        # the bowl of a board comes to hand with the first touch
        yield Event.NOTHING if kitchen.held == BOWL else kitchen.touch(counter)
    else:
        yield Event.NOTHING


def chop(kitchen: Kitchen) -> Steps:
    """Chop what lies on the board in front of the agent."""
    for board in kitchen.task.boards:
        lying = kitchen.lying_on(board)
        if kitchen.agent == access(board) and lying in kitchen.task.foods and not kitchen.chopped(lying):
            for _ in range(CHOPS):
                yield kitchen.touch(board)
            return
    yield Event.NOTHING


def in_view(agent: Cell, cell: Cell, view_radius: int) -> bool:
    """Whether the agent sees a cell: a square around it, as far as `view_radius` cells."""
    return max(abs(agent[0] - cell[0]), abs(agent[1] - cell[1])) <= view_radius


def _step_towards(kitchen: Kitchen, counter: Cell) -> Event:
    kitchen.step_towards(access(counter))
    return Event.NOTHING


def _walk(kitchen: Kitchen, counter: Cell) -> Steps:
    while kitchen.agent != access(counter):
        yield _step_towards(kitchen, counter)


def _arrive(kitchen: Kitchen, counter: Cell) -> Steps:
    if kitchen.agent == access(counter):
        yield Event.NOTHING
    yield from _walk(kitchen, counter)
