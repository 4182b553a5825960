"""Runs module functions on the views they ask for. Functions that ask for the same view share its forward."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from lamorel.forwards import View
from lamorel.module_function import BaseModuleFunction
from lamorel.tokenization import TokenIds
from lamorel.ways import Ways


def run_functions(
    functions: Mapping[str, BaseModuleFunction],
    ways: Ways,
    contexts: Sequence[TokenIds],
    candidates: Sequence[Sequence[TokenIds]] | None,
    *,
    root_view: Callable[[bool], View],
    rows: int,
    kwargs: Mapping[str, Any],
) -> dict[str, list[torch.Tensor]]:
    """Results of every function, per context.

    Args:
        root_view: the view of these contexts' roots, with hidden states, with or without the model's adapters.
        rows: cap on the pairs of one forward.
        kwargs: handed to every function, whole.

    Returns:
        By name, per context: (K_c, ...) rows; (1, ...) for a `context_only` function or without candidates.
    """
    groups = [[()] for _ in contexts] if candidates is None else candidates
    pairs = [(context, ids) for context, group in enumerate(groups) for ids in group]
    results: dict[str, list[torch.Tensor]] = {}
    for kind in dict.fromkeys((f.context_only, f.adapters) for f in functions.values()):
        context_only, adapters = kind
        alike = {name: f for name, f in functions.items() if (f.context_only, f.adapters) == kind}
        if context_only:
            sizes = [1] * len(contexts)
            makers = [partial(root_view, adapters)]
        else:
            sizes = [len(group) for group in groups]
            makers = [partial(ways.forwards.pairs, contexts, pairs[i : i + rows]) for i in range(0, len(pairs), rows)]
        parts: dict[str, list[torch.Tensor]] = {name: [] for name in alike}
        for make in makers:
            with ways.adapters(adapters):
                view = make()
            for name, function in alike.items():
                parts[name].append(_call(name, function, view, kwargs))
        results |= {name: list(torch.cat(part).split(sizes)) for name, part in parts.items()}
    return {name: results[name] for name in functions}


def _call(name: str, function: BaseModuleFunction, view: View, kwargs: Mapping[str, Any]) -> torch.Tensor:
    result = function(view.forward_outputs, view.minibatch, view.tokenized_contexts, **kwargs)
    rows = len(view.tokenized_contexts)
    if not isinstance(result, torch.Tensor) or result.dim() == 0 or result.shape[0] != rows:
        found = tuple(result.shape) if isinstance(result, torch.Tensor) else type(result).__name__
        raise ValueError(f"module function {name!r} must return a tensor with {rows} rows, one per input; got {found}")
    return result
