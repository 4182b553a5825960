"""Frames of the household, as text and as an image.

Both show everything but what never shows in a home: stale room tags and whether the sofa was sat on before.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from virtualhome_text.household import HANDS, ROOMS, Household

SIZE = (480, 408)  # width and height in pixels: four rooms of 240 x 180 and a line of text
ROOM = (240, 180)
CORNERS = {"kitchen": (0, 0), "bathroom": (240, 0), "living room": (0, 180), "bedroom": (240, 180)}
FLOORS = {"kitchen": "#f6ead2", "bathroom": "#dcebf2", "living room": "#e6efd9", "bedroom": "#ebe2f0"}

# left, top, right, bottom in the room
FIXTURES = {
    "microwave": (150, 30, 220, 74),
    "TV": (20, 30, 90, 70),
    "sofa": (20, 120, 110, 160),
    "coffee table": (150, 80, 225, 110),
}
# centre at home in the room, and as what it is drawn
ITEMS = {"pancake": (45, 60), "chips": (45, 60), "milk": (105, 60)}
INK, NEAR = "#222222", "#d6336c"


def write(household: Household, steps: int, max_steps: int) -> str:
    """Each room with what is in it; then hands and surroundings of the character, called you; then the step."""
    near = [name for name in (*household.fixtures, *household.items) if name in household.near]
    in_hands = {item.place: name for name, item in household.items.items() if item.held}
    rows = {room: ", ".join(_contents(household, room)) for room in ROOMS}
    rows |= {hand: in_hands.get(hand, "-") for hand in HANDS}
    rows["next to"] = ", ".join(name for name in near if name not in household.held()) or "-"
    rows["posture"] = _posture(household)
    rows["step"] = f"{steps} of {max_steps}"
    return "\n".join(f"{title:12}{text}".rstrip() for title, text in rows.items())


def _posture(household: Household) -> str:
    return ("sitting" if household.sitting else "standing") + (", facing the TV" if household.facing_tv else "")


def _contents(household: Household, room: str) -> list[str]:
    fixtures = [_labelled(household, name) for name, place in household.fixtures.items() if place == room]
    loose = [name for name, item in household.items.items() if item.room == room and item.at_home]
    return (["you"] if household.room == room else []) + fixtures + loose


def _labelled(household: Household, name: str) -> str:
    """A fixture's name, with what it holds and whether it is open or on."""
    details = [item for item, state in household.items.items() if state.place == name]
    if name == "microwave":
        details.insert(0, "open" if household.microwave_open else "closed")
    if name == "TV":
        details.insert(0, "on" if household.tv_on else "off")
    return f"{name} ({', '.join(details)})" if details else name


def draw(household: Household, steps: int, max_steps: int) -> np.ndarray:
    """The rooms from above, uint8 of shape (408, 480, 3). What the character is next to has a red frame."""
    from PIL import Image, ImageDraw, ImageFont  # only who wants images needs it

    image = Image.new("RGB", SIZE, "white")
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(12)
    for room, (x, y) in CORNERS.items():
        pen.rectangle((x, y, x + ROOM[0] - 1, y + ROOM[1] - 1), fill=FLOORS[room], outline=INK, width=3)
        pen.text((x + 10, y + 6), room, INK, font)
    for name, room in household.fixtures.items():
        _fixture(pen, font, household, name, CORNERS[room])
    x, y = _character(pen, household)
    for name, item in household.items.items():
        if item.held:
            place: tuple[int, ...] = (x + (17 if item.place == HANDS[0] else -17), y + 6)
        elif item.at_home:
            place = _moved(ITEMS[name], CORNERS[item.room])
            pen.text((place[0], place[1] - 16), name, INK, font, anchor="mb")
        else:
            left, top, right, bottom = _moved(FIXTURES[item.place], CORNERS[household.fixtures[item.place]])
            # beside one another where two lie on one fixture
            share = (1 + list(household.items).index(name)) / (1 + len(household.items))
            place = (round(left + share * (right - left)), (top + bottom) // 2)
        _item(pen, name, place)
        if name in household.near and not item.held:
            pen.rectangle(_box(place, 14), outline=NEAR, width=2)
    text = f"step {steps} of {max_steps}, {_posture(household)}"
    pen.text((10, SIZE[1] - 34), text + f", holding {' and '.join(household.held()) or 'nothing'}", INK, font)
    return np.asarray(image).copy()


def _fixture(pen: Any, font: Any, household: Household, name: str, corner: tuple[int, int]) -> None:
    box = _moved(FIXTURES[name], corner)
    fill = {"microwave": "#9aa0a6", "TV": "#111111", "sofa": "#4c7a9e", "coffee table": "#a9713f"}[name]
    if name == "TV" and household.tv_on:
        fill = "#7fd4ff"
    pen.rectangle(box, fill=fill, outline=NEAR if name in household.near else INK, width=3)
    if name == "microwave":
        left, top, right, bottom = box
        inside = (left + 8, top + 8, right - 8, bottom - 8)
        pen.rectangle(inside, fill="#fff3b0" if household.microwave_open else "#4a4e53", outline=INK)
        if household.microwave_open:  # the door hangs out
            pen.line((left + 3, bottom, left - 14, bottom + 18), fill=INK, width=4)
    if name == "sofa":
        pen.line((box[0], box[3] - 10, box[2], box[3] - 10), fill=INK, width=2)
    pen.text((box[0], box[3] + 2), name, INK, font)


def _character(pen: Any, household: Household) -> tuple[int, ...]:
    """Draws it, and returns where it is."""
    corner = CORNERS[household.room]
    where = _moved((120, 135), corner)
    at = [name for name in FIXTURES if name in household.near]
    lying = [name for name in household.items if name in household.near and household.items[name].at_home]
    if household.sitting:
        where = _moved((65, 135), corner)
    elif at:
        left, top, right, bottom = _moved(FIXTURES[at[0]], corner)
        where = (right + 18, (top + bottom) // 2) if at[0] == "sofa" else ((left + right) // 2, bottom + 32)
    elif lying:
        where = _moved((ITEMS[lying[0]][0], ITEMS[lying[0]][1] + 40), corner)
    x, y = where
    pen.ellipse(_box(where, 10), fill="#e8b48a", outline=INK, width=2)
    if household.facing_tv:
        pen.line((x, y, x - 4, y - 22), fill=INK, width=2)
    return where


def _item(pen: Any, name: str, place: tuple[int, ...]) -> None:
    x, y = place
    if name == "pancake":
        pen.ellipse((x - 10, y - 6, x + 10, y + 6), fill="#d9933d", outline=INK)
    elif name == "chips":
        pen.polygon([(x - 8, y + 9), (x + 8, y + 9), (x + 5, y - 9), (x - 5, y - 9)], fill="#e03131", outline=INK)
    else:
        pen.rectangle((x - 6, y - 10, x + 6, y + 10), fill="#ffffff", outline=INK)
        pen.line((x - 6, y - 3, x + 6, y - 3), fill="#1c7ed6", width=3)


def _moved(where: tuple[int, ...], corner: tuple[int, int]) -> tuple[int, ...]:
    return tuple(number + corner[i % 2] for i, number in enumerate(where))


def _box(centre: tuple[int, ...], radius: int) -> tuple[int, int, int, int]:
    return centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius
