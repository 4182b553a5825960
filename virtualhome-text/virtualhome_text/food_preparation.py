"""Food preparation: put the pancake into the microwave and close its door."""

from __future__ import annotations

from typing import NamedTuple

from virtualhome_text.household import Household
from virtualhome_text.task import (
    NOTHING_IN_SIGHT,
    WALKS_TO_ROOMS,
    Action,
    Task,
    room_bits,
    what_you_hold,
    where_you_are,
)


class Observation(NamedTuple):
    """Bits; all that tell of an object are 0 while it is out of sight."""

    in_kitchen: int
    in_bathroom: int
    in_bedroom: int
    in_livingroom: int
    see_pancake: int
    close_to_pancake: int
    hold_pancake: int
    see_microwave: int
    close_to_microwave: int
    is_microwave_open: int
    pancake_in_microwave: int


ACTIONS = (
    *WALKS_TO_ROOMS,
    Action("walk", ("pancake",), "walk to the pancake", "reach for the pancake"),  # 4
    Action("walk", ("microwave",), "walk to the microwave", "move to the microwave"),
    Action("grab", ("pancake",), "grab the pancake"),
    Action("put", ("pancake", "microwave"), "put the pancake in the microwave"),
    Action("open", ("microwave",), "open the microwave"),  # 8
    Action("close", ("microwave",), "close the microwave"),
)


def observe(household: Household) -> Observation:
    pancake, microwave = household.sees("pancake"), household.sees("microwave")
    item = household.items["pancake"]
    bits = [
        pancake,
        pancake and "pancake" in household.near,
        item.held,
        microwave,
        microwave and "microwave" in household.near,
        microwave and household.microwave_open,
        pancake and microwave and item.place == "microwave",
    ]
    return Observation(*map(int, room_bits(household) + bits))


def succeeded(now: Observation) -> bool:
    """In the kitchen the pancake is out of sight only behind the microwave's closed door."""
    return bool(now.in_kitchen and not now.see_pancake)


def offered(now: Observation) -> tuple[int, ...]:
    if now.in_bathroom:
        return (0, 1, 3)
    if now.in_bedroom:
        return (0, 1, 2)
    if now.in_livingroom:
        return (1, 2, 3)
    return (0, 2, 3, *_offered_in_kitchen(now))


def _offered_in_kitchen(now: Observation) -> tuple[int, ...]:
    if not now.see_pancake:
        return ()
    if now.hold_pancake:
        return (4, 7, 8, 9) if now.close_to_microwave else (4, 5)
    if now.close_to_pancake and now.close_to_microwave:
        return (8, 9) if now.is_microwave_open else (9,)
    if now.close_to_pancake:
        return (5, 6)
    if now.close_to_microwave:
        return (4, 8, 9)
    return (4, 5)


def prompt(now: Observation) -> str:
    told = [where_you_are(now)]
    if not now.in_kitchen:
        told.append(NOTHING_IN_SIGHT)
    elif not now.see_pancake:
        told.append("You see the microwave. It is closed and the pancake is inside.")
    else:
        told.append(f"You see the pancake and the microwave. The microwave is {_door(now)}.")
    told.append(what_you_hold(["pancake"] if now.hold_pancake else []))
    if now.in_kitchen:
        told.append(_closeness(now))
    told.append("Your goal is a pancake heated in the microwave, and the next thing to do is to")
    return " ".join(told)


def _door(now: Observation) -> str:
    if now.pancake_in_microwave:
        return "open and the pancake is inside"
    return "open" if now.is_microwave_open else "closed"


def _closeness(now: Observation) -> str:
    if now.hold_pancake or not now.see_pancake:  # then only the microwave is left to walk to
        return "You are next to the microwave." if now.close_to_microwave else "You are not next to the microwave."
    if now.close_to_pancake and now.close_to_microwave:
        return "You are next to both the pancake and the microwave."
    if now.close_to_pancake:
        return "You are next to the pancake but not next to the microwave."
    if now.close_to_microwave:
        return "You are next to the microwave but not next to the pancake."
    return "You are next to neither the pancake nor the microwave."


FOOD_PREPARATION = Task(
    name="food preparation",
    fixtures={"microwave": "kitchen"},
    items={"pancake": "kitchen"},
    actions=ACTIONS,
    size=len(Observation._fields),
    observe=observe,
    succeeded=succeeded,
    offered=offered,
    prompt=prompt,
)
