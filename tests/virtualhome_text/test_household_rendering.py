"""Frames: their form, and that whoever looks can tell the states apart."""

from pathlib import Path
from textwrap import indent

import gymnasium as gym
import numpy as np
import pytest

from tests.virtualhome_text.states import ENTERTAINMENT, FOOD, reachable


def frames(level, render_mode):
    """(what shows of a state, its frame as bytes) of every reachable state."""
    env = gym.make(level, render_mode=render_mode).unwrapped
    env.reset()
    episode = env.get_state()
    for state in reachable(level, every_action=True).values():
        env.set_state(episode | {"household": state.household})
        frame = env.render()
        yield what_shows(state.household), frame.tobytes() if render_mode == "rgb_array" else frame


def what_shows(household):
    items = {name: item["place"] for name, item in household["items"].items()}
    hidden = ("items", "on_sofa")  # on_sofa stays after standing up
    return repr([items, {name: value for name, value in household.items() if name not in hidden}])


@pytest.mark.parametrize("render_mode", ["ansi", "rgb_array"])
@pytest.mark.parametrize("level", [FOOD, ENTERTAINMENT])
def test_different_states_look_different(level, render_mode):
    pairs = set(frames(level, render_mode))
    assert len(pairs) == len({shown for shown, _ in pairs}) == len({frame for _, frame in pairs})


def test_image():
    env = gym.make(ENTERTAINMENT, render_mode="rgb_array")
    env.reset()
    frame = env.render()
    assert (frame.shape, frame.dtype) == ((408, 480, 3), np.uint8)
    env.step(2)
    assert (env.render() != frame).any()
    assert gym.make(ENTERTAINMENT).unwrapped.render() is None


def test_text_frame():
    env = gym.make(ENTERTAINMENT, render_mode="ansi")
    env.reset()
    for action in [5, 10, 4, 9, 0, 6, 11, 7, 13]:
        env.step(action)
    assert env.render() == (
        "kitchen\n"
        "bathroom\n"
        "bedroom\n"
        "living room you, TV (on), sofa, coffee table (chips)\n"
        "right hand  milk\n"
        "left hand   -\n"
        "next to     TV\n"
        "posture     standing\n"
        "step        9 of 50"
    )
    env = gym.make(FOOD, render_mode="ansi", max_steps=7)
    env.reset()
    env.step(4)
    assert env.render().splitlines()[0] == "kitchen     you, microwave (closed), pancake"
    assert env.render().splitlines()[6:] == ["next to     pancake", "posture     standing", "step        1 of 7"]


def test_readme_shows_what_comes_out():
    readme = (Path(__file__).parents[2] / "virtualhome-text" / "README.md").read_text(encoding="utf-8")
    env = gym.make(ENTERTAINMENT, render_mode="ansi")
    env.reset()
    for action in [5, 10, 4, 9, 0, 6, 11, 7]:
        info = env.step(action)[4]
    assert indent(env.render(), "    ") in readme
    assert info["prompt"] in readme.replace("\n> ", " ")
    assert info["action_ids"] == [1, 2, 3, 6, 8, 13, 14]
