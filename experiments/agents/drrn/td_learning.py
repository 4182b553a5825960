"""What DRRN's Q-values are pulled to."""

from __future__ import annotations

from torch import Tensor


def td_targets(rewards: Tensor, next_values: Tensor, durations: Tensor, *, gamma: float) -> Tensor:
    """r + gamma^k max_a' Q(s', a'), the target of Q-learning (He et al. 2016, eq. 3); there is no target network.

    Args:
        rewards: (B,) already times `reward_scale`.
        next_values: (B,) largest Q-value of the next state's candidates, 0 where there is nothing to bootstrap from.
        durations: (B,) k, primitive steps of each action.
        gamma: discount per primitive step.
    """
    return rewards + gamma**durations * next_values
