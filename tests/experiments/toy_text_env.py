"""An environment as other packages bring them: it writes its own prompt and offers other actions in every state."""

import gymnasium as gym
import numpy as np


class ToyKitchen(gym.Env):
    """Two to four dishes are on offer; the one that the prompt names ends the episode with reward 1.

    Even dishes take two primitive steps. A wrong dish changes the offer.
    """

    def __init__(self):
        self.observation_space = gym.spaces.Box(0, 9, (1,), np.int64)
        self.action_space = gym.spaces.Discrete(10)

    def _tell(self, duration=1):
        count = int(self.np_random.integers(2, 5))
        self.offered = [int(d) for d in self.np_random.permutation(10)[:count]]
        self.wanted = self.offered[int(self.np_random.integers(count))]
        info = {
            "prompt": f"Goal of the agent: go to {self.wanted}",
            "actions": [f"go to {dish}" for dish in self.offered],
            "action_ids": list(self.offered),
            "duration": duration,
        }
        return np.array([self.wanted]), info

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._tell()

    def step(self, action):
        assert action in self.offered, "an action that is not on offer"
        right = int(action) == self.wanted
        observation, info = self._tell(duration=1 + (int(action) % 2 == 0))
        return observation, float(right), right, False, info


gym.register("ToyKitchen-v0", ToyKitchen, max_episode_steps=5)
