"""Entertainment: sit on the sofa before the running TV, with the chips and the milk in hand or on the coffee table."""

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
    see_chips: int
    close_to_chips: int
    hold_chips: int
    chips_on_coffeetable: int
    see_milk: int
    close_to_milk: int
    hold_milk: int
    milk_on_coffeetable: int
    see_tv: int
    close_to_tv: int
    is_face_tv: int
    is_tv_on: int
    see_sofa: int
    close_to_sofa: int
    is_sit_sofa: int
    see_coffeetable: int
    close_to_coffeetable: int


ACTIONS = (
    *WALKS_TO_ROOMS,
    Action("walk", ("chips",), "walk to the chips", "reach for the chips"),  # 4
    Action("walk", ("milk",), "walk to the milk", "reach for the milk"),
    Action("walk", ("coffee table",), "walk to the coffee table", "move to the coffee table"),
    Action("walk", ("TV",), "walk to the TV", "move to the TV"),
    Action("walk", ("sofa",), "walk to the sofa", "move to the sofa"),  # 8
    Action("grab", ("chips",), "grab the chips"),
    Action("grab", ("milk",), "grab the milk"),
    Action("put", ("chips", "coffee table"), "put the chips on the coffee table"),
    Action("put", ("milk", "coffee table"), "put the milk on the coffee table"),  # 12
    Action("turn_on", ("TV",), "turn on the TV"),
    Action("turn_off", ("TV",), "turn off the TV"),
    Action("sit", ("sofa",), "sit on the sofa", "take a seat on the sofa"),
    Action("stand_up", ("sofa",), "stand up from the sofa"),  # 16
)


def observe(household: Household) -> Observation:
    bits = room_bits(household)
    table, tv, sofa = (household.sees(name) for name in ("coffee table", "TV", "sofa"))
    for name in ("chips", "milk"):
        seen, item = household.sees(name), household.items[name]
        bits += [seen, seen and name in household.near, item.held, seen and table and item.place == "coffee table"]
    bits += [tv, tv and "TV" in household.near, tv and household.facing_tv, tv and household.tv_on]
    bits += [sofa, sofa and "sofa" in household.near, sofa and household.on_sofa]
    bits += [table, table and "coffee table" in household.near]
    return Observation(*map(int, bits))


def succeeded(now: Observation) -> bool:
    """What is held counts as close."""
    return bool(
        now.in_livingroom
        and now.is_face_tv
        and now.is_tv_on
        and now.is_sit_sofa
        and (now.close_to_milk or now.milk_on_coffeetable)
        and (now.close_to_chips or now.chips_on_coffeetable)
    )


def offered(now: Observation) -> tuple[int, ...]:
    if now.in_bathroom:
        return (0, 1, 3)
    if now.in_bedroom:
        return (0, 1, 2)
    if now.in_kitchen:
        return (0, 2, 3, *_offered_in_kitchen(now))
    return (1, 2, 3, *_offered_in_livingroom(now))


def _offered_in_kitchen(now: Observation) -> tuple[int, ...]:
    """As published, an item that lies there alone and not close offers the walk to the other one, which fails."""
    chips = () if now.hold_chips else (9,) if now.close_to_chips else (4,)
    milk = () if now.hold_milk else (10,) if now.close_to_milk else (5,)
    if now.see_chips and now.see_milk:
        return tuple(sorted(chips + milk))
    if now.see_chips:
        return (5,) if chips == (4,) else chips
    if now.see_milk:
        return (4,) if milk == (5,) else milk
    return ()


def _offered_in_livingroom(now: Observation) -> tuple[int, ...]:
    if now.close_to_coffeetable:
        if not (now.hold_chips or now.hold_milk):
            return ()
        # the second item is not put down beside the first
        put_chips = (11,) if now.hold_chips and not now.milk_on_coffeetable else ()
        put_milk = (12,) if now.hold_milk and not now.chips_on_coffeetable else ()
        return (7, 8, *put_chips, *put_milk)
    if now.close_to_tv:
        return (6, 8) if now.is_tv_on else (6, 8, 13, 14)
    if now.close_to_sofa:
        if now.is_sit_sofa:
            return ()
        return (6, 7, 15, 16) if now.is_tv_on else (6, 7)
    return (6, 7, 8)


def prompt(now: Observation) -> str:
    hands = what_you_hold([name for name, held in (("chips", now.hold_chips), ("milk", now.hold_milk)) if held])
    if now.in_kitchen:
        told = [_seen_in_kitchen(now), hands, *_closeness_in_kitchen(now)]
    elif now.in_livingroom:
        told = [
            f"You see the coffee table, the TV and the sofa. The TV is {'on' if now.is_tv_on else 'off'}.",
            _place_in_livingroom(now),
            hands,
            *_on_coffee_table(now),
        ]
    else:
        told = [NOTHING_IN_SIGHT, hands]
    goal = "Your goal is to watch the TV with both the chips and the milk at hand, and the next thing to do is to"
    return " ".join([where_you_are(now), *told, goal])


def _seen_in_kitchen(now: Observation) -> str:
    if now.see_chips and now.see_milk:
        return "You see the chips and the milk."
    if now.see_chips or now.see_milk:
        return f"You see only the {'chips' if now.see_chips else 'milk'}."
    return NOTHING_IN_SIGHT


def _closeness_in_kitchen(now: Observation) -> list[str]:
    """Of what is seen and not in hand."""
    lying = []
    if now.see_chips and not now.hold_chips:
        lying.append(("chips", now.close_to_chips))
    if now.see_milk and not now.hold_milk:
        lying.append(("milk", now.close_to_milk))
    near = " and ".join(f"the {name}" for name, close in lying if close)
    far = " or ".join(f"the {name}" for name, close in lying if not close)
    told = []
    if near:
        them = "it" if near == "the milk" else "them"
        told.append(f"You are next to {near} but have not grabbed {them}.")
    if far:
        told.append(f"You are not next to {far}.")
    return told


def _place_in_livingroom(now: Observation) -> str:
    sat = " You have sat on the sofa before." if now.is_sit_sofa else ""
    if now.close_to_coffeetable:
        return f"You are next to the coffee table but not next to the TV or the sofa.{sat}"
    if now.close_to_tv:
        return f"You are next to the TV but not next to the sofa or the coffee table.{sat}"
    if now.close_to_sofa:
        if now.is_sit_sofa:
            return f"You are sitting on the sofa, {'facing' if now.is_face_tv else 'turned away from'} the TV."
        return "You are next to the sofa but not next to the TV or the coffee table."
    return f"You are not next to the coffee table, the TV or the sofa.{sat}"


def _on_coffee_table(now: Observation) -> list[str]:
    told = []
    if now.chips_on_coffeetable:
        told.append(f"The chips are on the coffee table{' beside you' if now.close_to_chips else ''}.")
    if now.milk_on_coffeetable:
        told.append(f"The milk is on the coffee table{' beside you' if now.close_to_milk else ''}.")
    return told


ENTERTAINMENT = Task(
    name="entertainment",
    fixtures={"TV": "living room", "sofa": "living room", "coffee table": "living room"},
    items={"chips": "kitchen", "milk": "kitchen"},
    actions=ACTIONS,
    size=len(Observation._fields),
    observe=observe,
    succeeded=succeeded,
    offered=offered,
    prompt=prompt,
)
