"""The apartment as a small state machine: where everything is, and what each action does to it.

Both tasks of TWOSOME (Tan et al. 2024, arXiv 2401.14151) play in one apartment of VirtualHome's evolving graph. Only
the objects listed by a task matter in it; furniture that merely carries them is left out, because nothing else stands
on it. An action that cannot be done changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

ROOMS = ("kitchen", "bathroom", "bedroom", "living room")
HANDS = ("right hand", "left hand")  # in the order in which they take things
AT_HOME = "home"  # where an item lies at first


@dataclass
class Item:
    """A thing that can be carried.

    Attributes:
        room: the room it is tagged with, which is stale while it is carried: the room before the last walk.
        place: AT_HOME, one of HANDS, or the fixture that it was put in or on.
    """

    room: str
    place: str = AT_HOME

    @property
    def held(self) -> bool:
        return self.place in HANDS

    @property
    def at_home(self) -> bool:
        return self.place == AT_HOME


class Household:
    """The whole state of the apartment, and the actions.

    Args:
        fixtures: object that stays where it is -> its room.
        items: object that can be carried -> its room.

    Attributes:
        near: what the character is close to.
        on_sofa: set by sitting down; standing up does not clear it, as published.
    """

    def __init__(self, fixtures: Mapping[str, str], items: Mapping[str, str]) -> None:
        self.fixtures = fixtures
        self.items = {name: Item(room) for name, room in items.items()}
        self.room = "kitchen"
        self.near: set[str] = set()
        self.sitting = False
        self.on_sofa = False
        self.facing_tv = False
        self.microwave_open = False
        self.tv_on = False

    def held(self) -> list[str]:
        return [name for name, item in self.items.items() if item.held]

    def sees(self, name: str) -> bool:
        """Whether a room or an object is in sight. Rooms are, always; an item in the microwave if that is open."""
        if name in self.fixtures:
            return self.fixtures[name] == self.room
        if name not in self.items:
            return True
        item = self.items[name]
        if item.held:
            return True
        if item.place == "microwave":
            return self.microwave_open and self.sees("microwave")
        return item.room == self.room

    def can_reach(self, name: str) -> bool:
        """Close in the loose sense that actions ask for: being close to what an item was put in or on is enough.

        VirtualHome also lets a fixture count as close by way of the items put there. Here whoever is close to such an
        item is close to the fixture as well: walking to the one, or putting it down, always brings the other along.
        """
        return name in self.near or (name in self.items and self.items[name].place in self.near)

    def act(self, verb: str, names: tuple[str, ...]) -> bool:
        """Do what an action says to the things it names. False: it cannot be done, and nothing has changed."""
        if not all(self.sees(name) for name in names):
            return False
        return getattr(self, f"_{verb}")(*names)

    def _walk(self, goal: str) -> bool:
        if self.sitting:
            return False
        held = self.held()
        before = self.room
        if goal in ROOMS:
            self.room, self.near = goal, set()
        elif goal in self.fixtures:
            self.room, self.near = self.fixtures[goal], {goal}
            if goal == "microwave":
                self.near.update(name for name, item in self.items.items() if item.place == "microwave")
        else:
            item = self.items[goal]
            self.room, self.near = item.room, {goal}
            if item.place in self.fixtures:
                self.near.add(item.place)
        self.near.update(held)
        self.facing_tv = False
        for name in held:
            self.items[name].room = before
        return True

    def _grab(self, name: str) -> bool:
        item = self.items[name]
        free = self._free_hands()
        if item.held or not self.can_reach(name) or not free:
            return False
        item.place = free[0]
        self.near.add(name)
        return True

    def _put(self, name: str, destination: str) -> bool:
        item = self.items[name]
        if not item.held or not self.can_reach(destination):
            return False
        if destination == "microwave" and not self.microwave_open:
            return False
        item.place = destination
        return True

    def _open(self, name: str) -> bool:
        if self.microwave_open or not self.can_reach(name) or not self._free_hands():
            return False
        self.microwave_open = True
        return True

    def _close(self, name: str) -> bool:
        if not self.microwave_open or not self.can_reach(name):
            return False
        self.microwave_open = False
        return True

    def _turn_on(self, name: str) -> bool:
        return self._switch(name, True)

    def _turn_off(self, name: str) -> bool:
        return self._switch(name, False)

    def _switch(self, name: str, on: bool) -> bool:
        if self.tv_on == on or not self.can_reach(name) or not self._free_hands():
            return False
        self.tv_on = on
        return True

    def _sit(self, name: str) -> bool:
        if self.sitting or not self.can_reach(name):
            return False
        self.sitting = self.on_sofa = self.facing_tv = True
        return True

    def _stand_up(self, _: str) -> bool:
        was_sitting, self.sitting = self.sitting, False
        return was_sitting

    def _free_hands(self) -> list[str]:
        return [hand for hand in HANDS if all(item.place != hand for item in self.items.values())]

    FLAGS = ("sitting", "on_sofa", "facing_tv", "microwave_open", "tv_on")

    def get_state(self) -> dict[str, Any]:
        """JSON-able; equal for equal states."""
        items = {name: asdict(item) for name, item in self.items.items()}
        flags = {name: getattr(self, name) for name in self.FLAGS}
        return {"room": self.room, "near": sorted(self.near), "items": items, **flags}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over a state of `get_state`, from a household with the same objects."""
        self.room = state["room"]
        self.near = set(state["near"])
        self.items = {name: Item(**item) for name, item in state["items"].items()}
        for name in self.FLAGS:
            setattr(self, name, state[name])
