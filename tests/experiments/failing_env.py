"""An environment that raises where FAILING says so: it is the user's own, and has a defect."""

import os

import gymnasium as gym

from tests.experiments.toy_text_env import ToyKitchen


class FailingKitchen(ToyKitchen):
    """Nothing can be done about dish 7."""

    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed)
        if self.wanted == 7 and os.environ.get("FAILING") == "reset":
            raise ZeroDivisionError("the stove is off")
        return observation, info

    def step(self, action):
        if self.wanted == 7 and os.environ.get("FAILING") == "step":
            raise ZeroDivisionError("the stove is off")
        return super().step(action)


gym.register("FailingKitchen-v0", FailingKitchen, max_episode_steps=5)
