"""The two tasks: which foods and boards the kitchen has, and what is to be served."""

from dataclasses import dataclass

Cell = tuple[int, int]  # row from the top, column from the left, both 0 to 6; the border is counters, the rest is floor

SIZE = 7
START = (1, 4)
BOWL = "bowl"
HOMES: dict[str, Cell] = {"tomato": (0, 5), "lettuce": (1, 6), "onion": (2, 6), BOWL: (6, 5)}
DELIVERY = (3, 0)


@dataclass(frozen=True)
class Task:
    """
    Attributes:
        number: place of the task's one in the seven last entries of an observation.
        foods: in the order of observations, sentences and actions.
        boards: cells of the cutting boards.
        recipe: the foods that the served bowl must contain, chopped, and no other.
    """

    name: str
    number: int
    foods: tuple[str, ...]
    boards: tuple[Cell, ...]
    recipe: tuple[str, ...]

    @property
    def items(self) -> tuple[str, ...]:
        return (*self.foods, BOWL)


TASK_NUMBERS = 7  # of which these are two
TOMATO_SALAD = Task("tomato salad", 0, ("tomato",), ((1, 0),), ("tomato",))
TOMATO_LETTUCE_SALAD = Task(
    "tomato-lettuce salad", 3, ("tomato", "lettuce", "onion"), ((1, 0), (2, 0)), ("tomato", "lettuce")
)
