"""The kitchen's state, and what one primitive step does to it: moving by a cell, or touching one."""

from __future__ import annotations

from enum import Enum
from typing import Any

from overcooked_text.tasks import BOWL, DELIVERY, HOMES, SIZE, START, Cell, Task

CHOPS = 3  # touches that chop a food
HAND = "hand"  # places of items that lie on no cell
IN_BOWL = "in the bowl"


class Event(Enum):
    """What a primitive step earns or costs beyond its own cost."""

    NOTHING = 0
    CHOPPED = 1  # a food of the recipe was chopped
    DELIVERED = 2
    WRONG_DELIVERY = 3


def access(counter: Cell) -> Cell:
    """The floor cell from which a counter is touched."""
    return min(max(counter[0], 1), SIZE - 2), min(max(counter[1], 1), SIZE - 2)


class Kitchen:
    """
    Attributes:
        agent: its cell.
        place: of each food and the bowl: the counter it lies on, HAND or IN_BOWL.
        chops: of each food, 0 to 3 (chopped).
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.agent: Cell = START
        self.place: dict[str, Cell | str] = {item: HOMES[item] for item in task.items}
        self.chops = dict.fromkeys(task.foods, 0)

    @property
    def held(self) -> str | None:
        """What is in hand, without a held bowl's contents."""
        return next((item for item, place in self.place.items() if place == HAND), None)

    @property
    def contents(self) -> tuple[str, ...]:
        """The foods in the bowl."""
        return tuple(food for food in self.task.foods if self.place[food] == IN_BOWL)

    def lying_on(self, counter: Cell) -> str | None:
        """What lies on a counter, without a bowl's contents."""
        return next((item for item, place in self.place.items() if place == counter), None)

    def cell(self, item: str) -> Cell:
        """Where an item is, be it in the hand or in the bowl."""
        place = self.place[item]
        if place == IN_BOWL:
            return self.cell(BOWL)
        return self.agent if isinstance(place, str) else place

    def chopped(self, item: str) -> bool:
        return self.chops.get(item) == CHOPS

    def step_towards(self, cell: Cell) -> None:
        """Move by one cell: along the column as long as the row differs, then along the row."""
        (row, column), (to_row, to_column) = self.agent, cell
        if row != to_row:
            self.agent = (row + (1 if to_row > row else -1), column)
        elif column != to_column:
            self.agent = (row, column + (1 if to_column > column else -1))

    def touch(self, counter: Cell) -> Event:
        """Do with a counter what the hand and the counter allow; often that is nothing."""
        held = self.held
        if counter == DELIVERY:
            return self._serve(held)
        lying = self.lying_on(counter)
        if held is None:
            return Event.NOTHING if lying is None else self._touch_item(lying, counter)
        self._use(held, lying, counter)
        return Event.NOTHING

    def _touch_item(self, lying: str, counter: Cell) -> Event:
        """With an empty hand: chop on a board what is not chopped, take everything else."""
        if counter not in self.task.boards or lying == BOWL or self.chopped(lying):
            self.place[lying] = HAND
            return Event.NOTHING
        self.chops[lying] += 1
        return Event.CHOPPED if self.chopped(lying) and lying in self.task.recipe else Event.NOTHING

    def _use(self, held: str, lying: str | None, counter: Cell) -> None:
        """With something in hand: put it on an empty board, or chopped food into the bowl."""
        on_board = counter in self.task.boards
        if lying is None:
            if on_board:
                self.place[held] = counter
        elif lying == BOWL and self.chopped(held):
            self.place[held] = IN_BOWL
            if on_board:  # from a counter the bowl is not taken
                self.place[BOWL] = HAND
        elif held == BOWL and on_board and self.chopped(lying):
            self.place[lying] = IN_BOWL

    def _serve(self, held: str | None) -> Event:
        if held is None:
            return Event.NOTHING
        served = (BOWL, *self.contents) if held == BOWL else (held,)
        if set(served) == {BOWL, *self.task.recipe}:
            self.place[BOWL] = DELIVERY
            return Event.DELIVERED
        for item in served:
            self.place[item] = HOMES[item]
            if item in self.chops:
                self.chops[item] = 0
        return Event.WRONG_DELIVERY

    def get_state(self) -> dict[str, Any]:
        """JSON-able."""
        place = {item: place if isinstance(place, str) else list(place) for item, place in self.place.items()}
        return {"agent": list(self.agent), "place": place, "chops": dict(self.chops)}

    def set_state(self, state: dict[str, Any]) -> None:
        self.agent = _cell(state["agent"])
        self.place = {item: place if isinstance(place, str) else _cell(place) for item, place in state["place"].items()}
        self.chops = dict(state["chops"])


def _cell(pair: list[int]) -> Cell:
    row, column = pair
    return row, column
