"""Cloning whose loss is not finite in chosen gradient steps; as a script in one process of several.

SPOILT_STEPS=2,5 torchrun ... spoiling.py <options of clm_behavioral-cloning.py>
"""

import math
import os

from experiments.clm_behavioral_cloning import main
from experiments.cloning.loss import CloningLoss
from experiments.cloning.training import Loop


def spoil(steps, *, patch=setattr):
    """In the steps of `steps` (step: what is added to every loss; NaN stands for a gradient of NaN, too)."""
    learn, forward = Loop.learn, CloningLoss.forward

    def spoilt_learn(self, prompts, actions):
        self.learner.loss.spoilt_by = steps.get(self.step + 1, 0.0)
        learn(self, prompts, actions)

    def spoilt_forward(self, prompts, actions):
        loss = forward(self, prompts, actions)
        by = getattr(self, "spoilt_by", 0.0) if loss.requires_grad else 0.0
        return loss * math.nan if math.isnan(by) else loss + by

    patch(Loop, "learn", spoilt_learn)
    patch(CloningLoss, "forward", spoilt_forward)


if __name__ == "__main__":
    if os.environ["RANK"] == "1":  # the first process's own share is finite
        spoil(dict(zip(map(int, os.environ["SPOILT_STEPS"].split(",")), (math.nan, math.inf), strict=True)))
    main()
