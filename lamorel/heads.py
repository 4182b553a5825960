"""Runs module functions on the views they ask for. Functions that ask for the same view share its forward."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch

from lamorel.forwards import View
from lamorel.module_function import BaseModuleFunction


class Kind(NamedTuple):
    """Which view a function asks for; see `BaseModuleFunction`."""

    context_only: bool
    adapters: bool
    right_padded: bool

    @classmethod
    def of(cls, function: BaseModuleFunction) -> "Kind":
        return cls(function.context_only, function.adapters, function.right_padded)


Views = Callable[[Kind], Iterator[View]]  # the views of all rows, in order


def run_functions(
    functions: Mapping[str, BaseModuleFunction],
    views: Views,
    *,
    sizes: Sequence[int],
    adapters: Callable[[bool], AbstractContextManager[Any]],
    kwargs: Mapping[str, Any],
) -> dict[str, list[torch.Tensor]]:
    """Results of every function, per context.

    Args:
        views: runs the model; called once per kind of function.
        sizes: per context its K_c candidates, 1 without candidates.
        adapters: a context within which the model's adapters are active, or not.
        kwargs: handed to every function, whole.

    Returns:
        By name, per context: (K_c, ...) rows; (1, ...) for a `context_only` function.
    """
    results: dict[str, list[torch.Tensor]] = {}
    for kind in dict.fromkeys(map(Kind.of, functions.values())):
        alike = {name: f for name, f in functions.items() if Kind.of(f) == kind}
        parts: dict[str, list[torch.Tensor]] = {name: [] for name in alike}
        of_kind = views(kind)
        while True:
            with adapters(kind.adapters):  # around the model alone: a function's own parameters are always trained
                view = next(of_kind, None)
            if view is None:
                break
            for name, function in alike.items():
                parts[name].append(_call(name, function, view, kwargs))
        rows = [1] * len(sizes) if kind.context_only else list(sizes)
        results |= {name: list(_joined(name, part).split(rows)) for name, part in parts.items()}
    return {name: results[name] for name in functions}


def _joined(name: str, parts: list[torch.Tensor]) -> torch.Tensor:
    shapes = sorted({tuple(part.shape[1:]) for part in parts})
    if len(shapes) > 1:
        raise ValueError(
            f"module function {name!r} must return rows of one shape for every minibatch; got {shapes[0]} and "
            f"{shapes[1]}: reduce what depends on the padding"
        )
    return torch.cat(parts)


def _call(name: str, function: BaseModuleFunction, view: View, kwargs: Mapping[str, Any]) -> torch.Tensor:
    result = function(view.forward_outputs, view.minibatch, view.tokenized_contexts, **kwargs)
    rows = len(view.tokenized_contexts)
    if not isinstance(result, torch.Tensor) or result.dim() == 0 or result.shape[0] != rows:
        found = tuple(result.shape) if isinstance(result, torch.Tensor) else type(result).__name__
        raise ValueError(f"module function {name!r} must return a tensor with {rows} rows, one per input; got {found}")
    return result
