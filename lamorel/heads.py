"""Runs module functions on the views they ask for. Functions that ask for the same view share its forward."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch

from lamorel.forwards import Forwards, Root, View
from lamorel.module_function import BaseModuleFunction
from lamorel.tokenization import TokenIds


def run_functions(
    functions: Mapping[str, BaseModuleFunction],
    forwards: Forwards,
    contexts: Sequence[TokenIds],
    candidates: Sequence[Sequence[TokenIds]] | None,
    *,
    root: Root | None,
    rows_per_forward: int,
    kwargs: Mapping[str, Any],
) -> dict[str, list[torch.Tensor]]:
    """Results of every function, per context.

    Args:
        root: the root step of these contexts with hidden states, if it has been made.
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
            makers = [partial(_root_view, forwards, contexts, root if adapters else None)]
        else:
            sizes = [len(group) for group in groups]
            slices = [pairs[i : i + rows_per_forward] for i in range(0, len(pairs), rows_per_forward)]
            makers = [partial(forwards.pairs, contexts, rows) for rows in slices]
        parts: dict[str, list[torch.Tensor]] = {name: [] for name in alike}
        for make in makers:
            view = make() if adapters else _without_adapters(forwards.model, make)
            for name, function in alike.items():
                parts[name].append(_call(name, function, view, kwargs))
        results |= {name: list(torch.cat(part).split(sizes)) for name, part in parts.items()}
    return {name: results[name] for name in functions}


def _root_view(forwards: Forwards, contexts: Sequence[TokenIds], root: Root | None) -> View:
    return (root or forwards.root(contexts, use_cache=False, hidden_states=True)).view


def _without_adapters(model: Any, make: Callable[[], View]) -> View:
    """A view of the base model: peft adapters, where there are any, disabled, and no gradient into the model."""
    with torch.no_grad(), model.disable_adapter() if hasattr(model, "peft_config") else nullcontext():
        return make()


def _call(name: str, function: BaseModuleFunction, view: View, kwargs: Mapping[str, Any]) -> torch.Tensor:
    result = function(view.forward_outputs, view.minibatch, view.tokenized_contexts, **kwargs)
    rows = len(view.tokenized_contexts)
    if not isinstance(result, torch.Tensor) or result.dim() == 0 or result.shape[0] != rows:
        found = tuple(result.shape) if isinstance(result, torch.Tensor) else type(result).__name__
        raise ValueError(f"module function {name!r} must return a tensor with {rows} rows, one per input; got {found}")
    return result
