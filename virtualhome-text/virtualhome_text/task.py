"""What makes a task, and the sentences that both tasks share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from virtualhome_text.household import ROOMS, Household

WORDINGS = ("2023-10", "2023-09")


class Action(NamedTuple):
    """One action: what it does in the household, and its phrase in the wordings of October and September 2023."""

    verb: str
    names: tuple[str, ...]
    phrase: str
    older_phrase: str = ""  # empty where it was the same

    def worded(self, wording: str) -> str:
        return self.older_phrase or self.phrase if wording == "2023-09" else self.phrase


WALKS_TO_ROOMS = (  # ids 0 to 3
    Action("walk", ("living room",), "walk to the living room"),
    Action("walk", ("kitchen",), "walk to the kitchen"),
    Action("walk", ("bathroom",), "walk to the bathroom"),
    Action("walk", ("bedroom",), "walk to the bedroom"),
)


@dataclass(frozen=True, eq=False)
class Task:
    """A task in the household. An observation is a named tuple of bits; offered actions and prompt follow from it.

    Attributes:
        fixtures, items: object -> its room at first, see `Household`.
        actions: position = global id.
        observe: the observation of a household.
        size: bits of an observation.
        succeeded: whether an observation earns the reward of 1 and ends the episode.
        offered: ascending ids of the actions that the policy chooses from.
        prompt: what the policy reads; an action phrase continues its last sentence after one space.
    """

    name: str
    fixtures: Mapping[str, str]
    items: Mapping[str, str]
    actions: tuple[Action, ...]
    size: int
    observe: Callable[[Household], Any]
    succeeded: Callable[[Any], bool]
    offered: Callable[[Any], tuple[int, ...]]
    prompt: Callable[[Any], str]


def room_bits(household: Household) -> list[bool]:
    """in_kitchen, in_bathroom, in_bedroom, in_livingroom: how every observation begins."""
    return [household.room == room for room in ROOMS]


def where_you_are(observation: Any) -> str:
    """The sentence that every prompt begins with."""
    return (
        "The apartment has a kitchen, a bathroom, a bedroom and a living room, and you are in the "
        f"{ROOMS[observation[:4].index(1)]}."
    )


def what_you_hold(names: Iterable[str]) -> str:
    held = " and ".join(f"the {name}" for name in names)
    return f"You are holding {held}." if held else "Your hands are empty."


NOTHING_IN_SIGHT = "There is nothing useful in sight here."
