"""Overcooked as text: macro-actions in a small kitchen, told in sentences. Importing it registers its tasks."""

import gymnasium as gym

from overcooked_text.env import TomatoLettuceSalad, TomatoSalad

__all__ = ["TomatoLettuceSalad", "TomatoSalad"]

for _task in ("TomatoSalad", "TomatoLettuceSalad"):
    # the passive checker would take most of a step's time; check_env does its work in the tests
    gym.register(f"OvercookedText-{_task}-v0", f"overcooked_text.env:{_task}", disable_env_checker=True)
