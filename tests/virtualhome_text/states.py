"""Every state that an episode can reach, found by breadth-first search through the public interface."""

import json
from collections import deque
from functools import cache
from typing import NamedTuple

import gymnasium as gym

import virtualhome_text  # noqa: F401 (registers its tasks)

FOOD, ENTERTAINMENT = "VirtualHomeText-FoodPreparation-v0", "VirtualHomeText-Entertainment-v0"


class State(NamedTuple):
    household: dict
    observation: tuple[int, ...]
    prompt: str
    actions: list[str]
    action_ids: list[int]
    reward: float  # 1: the episode ends here
    after: dict[int, str]  # action -> key of the next state


@cache
def reachable(level, every_action=False):
    """JSON of a state -> State; by the offered actions, or by all of them. An episode's end leads nowhere."""
    env = gym.make(level, max_steps=10**6).unwrapped
    observation, info = env.reset()
    found = {}
    waiting = deque([(env.get_state(), observation, info, 0.0)])
    while waiting:
        saved, observation, info, reward = waiting.popleft()
        here = json.dumps(saved["household"])
        if here in found:
            continue
        found[here] = State(saved["household"], tuple(observation.tolist()), *texts(info), reward, {})
        for action in () if reward else range(env.action_space.n) if every_action else info["action_ids"]:
            env.set_state(saved)
            observation, reward_there, _, _, info_there = env.step(action)
            there = env.get_state()
            found[here].after[action] = json.dumps(there["household"])
            waiting.append((there, observation, info_there, reward_there))
    return found


def texts(info):
    return info["prompt"], info["actions"], info["action_ids"]


def played(level, actions, **options):
    """The last return of `step` after these actions; of `reset` without any."""
    env = gym.make(level, **options)
    returned = env.reset(seed=0)
    for action in actions:
        returned = env.step(action)
    return returned


def distances(states):
    """Key -> steps to the nearest success by offered actions, of the states that have one."""
    found = {key: 0 for key, state in states.items() if state.reward}
    while True:
        new = {
            key: 1 + min(found[there] for there in state.after.values() if there in found)
            for key, state in states.items()
            if key not in found and any(there in found for there in state.after.values())
        }
        if not new:
            return found
        found |= new
