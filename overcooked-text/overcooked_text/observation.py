"""Observation vectors: what the agent sees of the kitchen, and what a vector tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from overcooked_text.kitchen import CHOPS, Kitchen, access
from overcooked_text.macro_actions import in_view
from overcooked_text.tasks import BOWL, DELIVERY, HOMES, SIZE, TASK_NUMBERS, Cell, Task

UNSEEN = (0, 0)  # a corner, where nothing ever is


def observe(kitchen: Kitchen, view_radius: int) -> tuple[int, ...]:
    """The state as integers; what is further away than `view_radius` rows or columns is zeros.

    Row, column and chops of each food; row and column of the bowl, each board, the delivery and the agent; a one at
    the task's number among seven.
    """
    task, vector = kitchen.task, []
    for food in task.foods:
        cell = kitchen.cell(food)
        vector += [*cell, kitchen.chops[food]] if in_view(kitchen.agent, cell, view_radius) else [*UNSEEN, 0]
    for cell in (kitchen.cell(BOWL), *task.boards, DELIVERY, kitchen.agent):
        vector += cell if in_view(kitchen.agent, cell, view_radius) else UNSEEN
    return (*vector, *(int(number == task.number) for number in range(TASK_NUMBERS)))


def highest(task: Task) -> tuple[int, ...]:
    """The largest value of each entry; the smallest is 0."""
    cell = (SIZE - 1, SIZE - 1)
    cells = cell * (1 + len(task.boards) + 2)
    return (*(*cell, CHOPS) * len(task.foods), *cells, *(1,) * TASK_NUMBERS)


class Thing(NamedTuple):
    """What is in hand or on a board: a food, or the bowl with the foods in it (all chopped)."""

    bowl: bool
    foods: tuple[str, ...]
    chopped: bool = True


class Facts(NamedTuple):
    """What a vector tells.

    Attributes:
        at_home: items seen where they were at the beginning.
        on_boards: what is seen on each board, None where nothing is.
        hand: what is in hand.
        board: index of the board the agent stands in front of.
    """

    at_home: tuple[str, ...]
    on_boards: tuple[Thing | None, ...]
    hand: Thing | None
    board: int | None


def read(task: Task, vector: Sequence[int]) -> Facts:
    """What an observation vector of `task` tells."""
    start = 3 * len(task.foods)
    cells: dict[str, Cell] = {food: (vector[3 * i], vector[3 * i + 1]) for i, food in enumerate(task.foods)}
    cells[BOWL] = (vector[start], vector[start + 1])
    chopped = {food: vector[3 * i + 2] == CHOPS for i, food in enumerate(task.foods)}
    start += 2 * (1 + len(task.boards) + 1)
    agent = (vector[start], vector[start + 1])

    def thing_at(cell: Cell) -> Thing | None:
        foods = tuple(food for food in task.foods if cells[food] == cell)
        if cells[BOWL] == cell:
            return Thing(True, foods)
        return Thing(False, foods, chopped[foods[0]]) if foods else None

    return Facts(
        at_home=tuple(item for item in task.items if cells[item] == HOMES[item]),
        on_boards=tuple(thing_at(board) for board in task.boards),
        hand=thing_at(agent),  # items lie on counters only, so what is in the agent's cell is in its hand
        board=next((i for i, board in enumerate(task.boards) if access(board) == agent), None),
    )
