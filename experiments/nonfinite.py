"""Numbers that are not finite: gradient steps are skipped for them, what acts or is learnt from is refused.

A step is skipped where its loss or the norm of its gradient, before clipping, is not finite: neither weights nor
optimizer change, and no mean that is logged holds it. Several processes decide by numbers that are equal in all.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.errors import UserError

logger = logging.getLogger(__name__)


class NonFiniteError(UserError):
    """Numbers that are not finite leave nothing to go on with."""


class DivergedError(NonFiniteError):
    """They are the model's."""


def can_be_taken(loss: float, grad_norm: float) -> bool:
    """Whether the optimizer may make a gradient step of this loss and gradient norm."""
    return math.isfinite(loss) and math.isfinite(grad_norm)


class SkippedSteps:
    """Counts the gradient steps that are skipped, and ends the run where there are too many in a row.

    Args:
        limit: so many in a row end the run.
        speaks: False where another process says the same.

    Attributes:
        update: the update that runs, for what is said; None where a run has no updates but gradient steps alone.
    """

    def __init__(self, limit: int, *, speaks: bool = True) -> None:
        self.limit = limit
        self.speaks = speaks
        self.update: int | None = None
        self._counts: dict[str, int] = {}  # by part, those skipped since the part's last step that was taken
        self._since: dict[str, str] = {}

    @property
    def in_a_row(self) -> int:
        """Skipped since the last step that was taken. While there are any, the weights may be what is broken."""
        return max(self._counts.values(), default=0)

    def taken(self, loss: float, grad_norm: float, step: int, part: str = "") -> bool:
        """Count a gradient step; whether it was taken (`can_be_taken`).

        Args:
            step: number of the step, within the update if there is one.
            part: of the network, where each has an optimizer of its own: another part's good steps mend nothing.

        Raises:
            DivergedError: it is the last of `limit` in a row, of its part, that were not.
        """
        if can_be_taken(loss, grad_norm):
            self._counts[part] = 0
            return True
        where = f"gradient step {step}" if self.update is None else f"gradient step {step} of update {self.update}"
        what = f"the gradient's norm is {grad_norm}" if math.isfinite(loss) else f"the loss is {loss}"
        count = self._counts.get(part, 0) + 1
        if count == 1:
            self._since[part] = where
        self._counts[part] = count
        whose = f" of the {part}" if part else ""
        if self.speaks:
            logger.warning("%s is skipped, %s (%d in a row%s)", where, what, count, whose)
        if count >= self.limit:
            since = self._since[part]
            raise DivergedError(f"{count} gradient steps{whose} in a row were skipped, from {since} on: {what}")
        return False

    def get_state(self) -> dict[str, Any]:
        return {"in_a_row": dict(self._counts), "since": dict(self._since)}

    def set_state(self, state: dict[str, Any] | None) -> None:
        """Go on from `get_state`; None, of a checkpoint of version 0.3, means that nothing was skipped."""
        self._counts, self._since = ({}, {}) if state is None else (dict(state["in_a_row"]), dict(state["since"]))


def check_policy(log_probs: np.ndarray, values: np.ndarray | None, states: Sequence[Any]) -> None:
    """Refuse a policy that is none: sampling from it would choose an action by accident.

    Args:
        log_probs: (N, A), -inf where there is no candidate, or one that is never chosen.
        values: (N,), where the agent has any.
        states: N things, texts or vectors, that tell a user which state it is.

    Raises:
        DivergedError: a state has a log-probability that is no number, or no candidate at all, or such a value.
    """
    finite = np.isfinite(log_probs)
    no_policy = ~(finite | np.isneginf(log_probs)).all(axis=1) | ~finite.any(axis=1)
    wrong = no_policy if values is None else no_policy | ~np.isfinite(values)
    if wrong.any():
        first = int(np.argmax(wrong))
        log_policy = f"log-probabilities {log_probs[first].tolist()}"
        numbers = log_policy if values is None or no_policy[first] else f"the value {values[first]}"
        raise DivergedError(
            f"the model gives no finite numbers in {wrong.sum()} of {len(wrong)} states, e.g. {numbers} in the state "
            f"{states[first]!r}: its weights are broken, or its precision has too small a range"
        )


def check_rewards(rewards: np.ndarray, frames: Sequence[int]) -> None:
    """Refuse rewards (N,) that are no numbers.

    Args:
        frames: steps of every environment's present episode, without this one.

    Raises:
        NonFiniteError: naming environment and step.
    """
    for i, reward in enumerate(rewards):
        if not math.isfinite(reward):
            raise NonFiniteError(
                f"environment {i} of rl_script_args.name_environment gave the reward {reward} in step {frames[i] + 1} "
                "of its episode: mend this environment, or choose another"
            )
