"""VirtualHome as text: two household tasks, told in sentences. Importing it registers its tasks."""

import gymnasium as gym

from virtualhome_text.env import Entertainment, FoodPreparation

__all__ = ["Entertainment", "FoodPreparation"]

for _task in ("FoodPreparation", "Entertainment"):
    # the passive checker would take most of a step's time; check_env does its work in the tests
    gym.register(f"VirtualHomeText-{_task}-v0", f"virtualhome_text.env:{_task}", disable_env_checker=True)
