"""Every state that an episode can reach, found by breadth-first search through the public interface."""

import json
from collections import deque
from functools import cache
from typing import NamedTuple

import gymnasium as gym

import overcooked_text  # noqa: F401 (registers its tasks)

TOMATO, LETTUCE = "OvercookedText-TomatoSalad-v0", "OvercookedText-TomatoLettuceSalad-v0"
SHORTEST = {TOMATO: [0, 2, 4, 0, 1, 3], LETTUCE: [0, 4, 7, 1, 5, 7, 3, 1, 0, 6]}


class Move(NamedTuple):
    reward: float
    success: bool
    duration: int
    there: str  # key of the next state


class State(NamedTuple):
    kitchen: dict
    observation: tuple[int, ...]
    prompt: str
    actions: list[str]
    after: list[Move]  # of each action; of none at the end of an episode


@cache
def reachable(level, view_radius=2):
    """JSON of a state -> State, the first one first."""
    env = gym.make(level, max_steps=10**6, view_radius=view_radius).unwrapped
    observation, info = env.reset()
    start = env.get_state()
    found = {}
    waiting = deque([(start["kitchen"], observation, info, False)])
    while waiting:
        kitchen, observation, info, success = waiting.popleft()
        here = json.dumps(kitchen)
        if here in found:
            continue
        found[here] = State(kitchen, tuple(observation.tolist()), info["prompt"], info["actions"], [])
        for action in [] if success else info["action_ids"]:
            env.set_state(start | {"kitchen": kitchen})
            observation, reward, terminated, _, info_there = env.step(action)
            there = env.get_state()["kitchen"]
            found[here].after.append(Move(reward, terminated, info_there["duration"], json.dumps(there)))
            waiting.append((there, observation, info_there, terminated))
    return found


def played(level, actions, **options):
    """The last return of `step` after these actions."""
    env = gym.make(level, **options)
    env.reset(seed=0)
    for action in actions[:-1]:
        env.step(action)
    return env.step(actions[-1])


def cost(steps, each=0.001):
    """What primitive steps cost, discounted: each * (1 + 0.99 + 0.99**2 + ...)."""
    return each * (1 - 0.99**steps) / (1 - 0.99)
