"""Frames of the household, as text and as an image."""

from __future__ import annotations

from virtualhome_text.household import IN_HAND, ROOMS, Household


def write(household: Household, steps: int, max_steps: int) -> str:
    """Each room with what is in it, then hands and surroundings of the character (`you`), then the step."""
    lines = [f"{room:12}{', '.join(_contents(household, room))}".rstrip() for room in ROOMS]
    near = [name for name in (*household.fixtures, *household.items) if name in household.near]
    lines += [
        "",
        f"{'in hand':12}{', '.join(household.held()) or '-'}",
        f"{'next to':12}{', '.join(name for name in near if name not in household.held()) or '-'}",
        f"{'posture':12}{posture(household)}",
        f"{'step':12}{steps} of {max_steps}",
    ]
    return "\n".join(lines)


def posture(household: Household) -> str:
    return ("sitting" if household.sitting else "standing") + (", facing the TV" if household.facing_tv else "")


def fixture_label(household: Household, name: str) -> str:
    """The name, with what the fixture holds and whether it is open or on."""
    details = [item for item, state in household.items.items() if state.place == name]
    if name == "microwave":
        details.insert(0, "open" if household.microwave_open else "closed")
    if name == "TV":
        details.insert(0, "on" if household.tv_on else "off")
    return f"{name} ({', '.join(details)})" if details else name


def _contents(household: Household, room: str) -> list[str]:
    fixtures = [fixture_label(household, name) for name, place in household.fixtures.items() if place == room]
    loose = [
        name
        for name, item in household.items.items()
        if item.room == room and item.place not in (IN_HAND, *household.fixtures)
    ]
    return (["you"] if household.room == room else []) + fixtures + loose
