"""Checks of options: each error names the option, what it may be and what it was."""

from collections.abc import Iterable
from operator import index
from typing import Any


def check_choice(name: str, value: Any, allowed: Iterable[Any]) -> None:
    """Raise ValueError, naming the allowed values, unless `value` is one of them."""
    allowed = tuple(allowed)
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def whole_number(name: str, value: Any, least: int, most: int | None = None) -> int:
    """`value` as a plain int; ValueError unless it is whole (8.0 and True are not) and from `least` to `most`."""
    try:
        number = None if isinstance(value, bool) else index(value)
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} must be a whole number {bounds}, got {value!r}")
    return number


def step_limit(max_steps: Any) -> int | None:
    """The option `max_steps`, checked: minigrid takes 0 and less, and then ends every episode at its first step."""
    return None if max_steps is None else whole_number("max_steps", max_steps, least=1)
