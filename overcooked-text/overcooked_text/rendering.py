"""Frames of the kitchen, as text and as an image. Unlike observations they show everything."""

from __future__ import annotations

import numpy as np

from overcooked_text.kitchen import CHOPS, HAND, IN_BOWL, Kitchen
from overcooked_text.tasks import BOWL, DELIVERY, SIZE, Cell, Task

LEGEND = "# counter  = board  > delivery  @ agent  U bowl  T L O tomato lettuce onion, t l o chopped"
LETTERS = {"tomato": "T", "lettuce": "L", "onion": "O", BOWL: "U"}

CELL_PIXELS = 32
FLOOR, COUNTER, EDGE = (222, 214, 196), (133, 104, 78), (96, 74, 54)
BOARD, CUT, SERVED_HERE, ARROW = (226, 178, 108), (60, 40, 25), (70, 110, 90), (240, 240, 220)
AGENT, FACE, RIM, CHINA = (50, 90, 170), (245, 215, 185), (120, 130, 140), (248, 248, 248)
COLOURS = {"tomato": (214, 48, 38), "lettuce": (96, 180, 50), "onion": (160, 90, 170)}
HEARTS = {"tomato": (40, 120, 40), "lettuce": (200, 235, 140), "onion": (235, 215, 240)}

Colour = tuple[int, int, int]
Point = tuple[float, float]  # row and column in cells, the middle of cell (0, 0) at (0.5, 0.5)


def write(kitchen: Kitchen, steps: int, max_steps: int) -> str:
    """The kitchen from above. After the symbol of a board, counter or agent is what lies there or is in hand.

    A bowl's contents follow its letter; a food that is not chopped yet has a mark for each chop.
    """
    rows = ["".join(_symbols(kitchen, (x, y)).ljust(6) for y in range(SIZE)).rstrip() for x in range(SIZE)]
    return "\n".join([*rows, "", LEGEND, f"step {steps} of {max_steps}"])


def _symbols(kitchen: Kitchen, cell: Cell) -> str:
    place: Cell | str = HAND if cell == kitchen.agent else cell
    items = [item for item in (BOWL, *kitchen.task.foods) if kitchen.place[item] == place]
    if BOWL in items:
        items += kitchen.contents
    return _ground(kitchen, cell) + "".join(_letter(kitchen, item) for item in items)


def _ground(kitchen: Kitchen, cell: Cell) -> str:
    if cell == kitchen.agent:
        return "@"
    if cell in kitchen.task.boards:
        return "="
    if cell == DELIVERY:
        return ">"
    return "#" if _is_counter(cell) else "."


def _letter(kitchen: Kitchen, item: str) -> str:
    letter = LETTERS[item]
    return letter.lower() if kitchen.chopped(item) else letter + "'" * kitchen.chops.get(item, 0)


def _is_counter(cell: Cell) -> bool:
    return min(cell) == 0 or max(cell) == SIZE - 1


def draw(kitchen: Kitchen) -> np.ndarray:
    """The kitchen from above: uint8, height x width x 3."""
    image = _room(kitchen.task)
    row, column = kitchen.agent
    _disc(image, (row + 0.45, column + 0.4), 0.33, AGENT)
    _disc(image, (row + 0.35, column + 0.4), 0.17, FACE)
    for item in (BOWL, *kitchen.task.foods):  # contents over their bowl
        place = kitchen.place[item]
        if place == HAND:
            _item(image, kitchen, item, (row + 0.68, column + 0.68), 0.62)
        elif not isinstance(place, str):
            _item(image, kitchen, item, (place[0] + 0.5, place[1] + 0.5), 1.0)
    return image


def _room(task: Task) -> np.ndarray:
    image = np.empty((SIZE * CELL_PIXELS, SIZE * CELL_PIXELS, 3), np.uint8)
    image[:] = FLOOR
    for cell in ((x, y) for x in range(SIZE) for y in range(SIZE) if _is_counter((x, y))):
        _box(image, (cell[0] + 0.5, cell[1] + 0.5), (0.5, 0.5), EDGE)
        _box(image, (cell[0] + 0.5, cell[1] + 0.5), (0.46, 0.46), COUNTER)
    for row, column in task.boards:
        _box(image, (row + 0.5, column + 0.5), (0.3, 0.42), BOARD)
    row, column = DELIVERY
    _box(image, (row + 0.5, column + 0.5), (0.46, 0.46), SERVED_HERE)
    for i in range(3):  # an arrow out of the kitchen
        _box(image, (row + 0.5, column + 0.2 + 0.1 * i), (0.08 + 0.1 * i, 0.06), ARROW)
    _box(image, (row + 0.5, column + 0.65), (0.1, 0.2), ARROW)
    return image


def _item(image: np.ndarray, kitchen: Kitchen, item: str, middle: Point, size: float) -> None:
    if item == BOWL:
        _disc(image, middle, 0.44 * size, RIM)
        _disc(image, middle, 0.37 * size, CHINA)
        for food, turn in zip(kitchen.contents, (0, 2, 4), strict=False):
            angle = np.pi * turn / 3
            place = (middle[0] - 0.19 * size * np.cos(angle), middle[1] + 0.19 * size * np.sin(angle))
            _food(image, food, CHOPS, place, 0.5 * size)
    elif kitchen.place[item] != IN_BOWL:
        _food(image, item, kitchen.chops[item], middle, size)


def _food(image: np.ndarray, food: str, chops: int, middle: Point, size: float) -> None:
    """Whole, with a cut for each chop, or in four pieces."""
    row, column = middle
    if chops == CHOPS:
        for down, right in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
            piece = (row + 0.16 * size * down, column + 0.16 * size * right)
            _box(image, piece, (0.12 * size, 0.12 * size), COLOURS[food])
            _box(image, piece, (0.05 * size, 0.05 * size), HEARTS[food])
        return
    _disc(image, middle, 0.3 * size, COLOURS[food])
    _disc(image, middle, 0.12 * size, HEARTS[food])
    for cut in range(chops):
        _box(image, (row, column + (0.3 * cut - 0.15) * size), (0.3 * size, 0.03 * size), CUT)


def _disc(image: np.ndarray, middle: Point, radius: float, colour: Colour) -> None:
    rows, columns = _around(image, middle, (radius, radius))
    row, column = np.ogrid[rows, columns]
    inside = ((row + 0.5) / CELL_PIXELS - middle[0]) ** 2 + ((column + 0.5) / CELL_PIXELS - middle[1]) ** 2
    image[rows, columns][inside <= radius**2] = colour


def _box(image: np.ndarray, middle: Point, half: Point, colour: Colour) -> None:
    image[_around(image, middle, half)] = colour


def _around(image: np.ndarray, middle: Point, half: Point) -> tuple[slice, slice]:
    rows, columns = (
        slice(max(round((at - by) * CELL_PIXELS), 0), min(round((at + by) * CELL_PIXELS), length))
        for at, by, length in zip(middle, half, image.shape[:2], strict=True)
    )
    return rows, columns
