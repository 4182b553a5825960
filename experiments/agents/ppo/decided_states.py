"""Decide repeated states once while the weights do not change."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from experiments.agents.ppo.base_ppo_agent import Decision
from experiments.prompters import TextState

_MOST = 20_000  # states; one takes some kilobytes


class DecidedStates:
    """Maps states to a `Decision` and caches the decision of each state.

    Args:
        decide: the policy; its decision for a state must not depend on the other states of a call or on earlier
            calls.
    """

    def __init__(self, decide: Callable[[list[TextState]], Decision]) -> None:
        self._decide = decide
        self._known: dict[tuple[str, ...], Decision] = {}  # of one state each

    def __call__(self, states: Sequence[TextState]) -> Decision:
        keys = [(state.prompt, *state.candidates) for state in states]
        if len(self._known) > _MOST:
            self._known.clear()
        new = {key: state for key, state in zip(keys, states, strict=True) if key not in self._known}
        if new:
            self._known.update(zip(new, split(self._decide(list(new.values()))), strict=True))
        return join([self._known[key] for key in keys])


def split(decision: Decision) -> list[Decision]:
    """One decision for each of its states."""
    features = [None] * len(decision.values) if decision.features is None else decision.features.split(1)
    rows = zip(decision.log_probs.split(1), decision.values.split(1), features, strict=True)
    return [Decision(*row) for row in rows]


def join(states: Sequence[Decision]) -> Decision:
    """The decisions of N >= 1 states, one state each, as one."""
    log_probs = pad_sequence([state.log_probs[0] for state in states], batch_first=True, padding_value=-torch.inf)
    features = [state.features for state in states if state.features is not None]
    return Decision(log_probs, torch.cat([state.values for state in states]), torch.cat(features) if features else None)
