"""Frames: their form, and that whoever looks can tell the states apart."""

from pathlib import Path
from textwrap import indent

import gymnasium as gym
import numpy as np
import pytest

from tests.overcooked_text.kitchens import LETTUCE, SHORTEST, TOMATO, reachable


@pytest.mark.parametrize("render_mode", ["ansi", "rgb_array"])
@pytest.mark.parametrize("level", [TOMATO, LETTUCE])
def test_different_states_look_different(level, render_mode):
    env = gym.make(level, render_mode=render_mode).unwrapped
    env.reset()
    episode = env.get_state()
    frames = set()
    for state in reachable(level).values():
        env.set_state(episode | {"kitchen": state.kitchen})
        frame = env.render()
        frames.add(frame.tobytes() if render_mode == "rgb_array" else frame)
    assert len(frames) == len(reachable(level))


@pytest.mark.parametrize("render_mode", ["ansi", "rgb_array"])
@pytest.mark.parametrize("place", [[1, 0], "hand"])
def test_every_chop_is_seen(render_mode, place):
    env = gym.make(TOMATO, render_mode=render_mode).unwrapped
    env.reset()
    episode = env.get_state()
    frames = []
    for chops in range(4):
        kitchen = {"agent": [1, 1], "place": {"tomato": place, "bowl": [6, 5]}, "chops": {"tomato": chops}}
        env.set_state(episode | {"kitchen": kitchen})
        frames.append(env.render())
    assert all(not np.array_equal(frames[i], frames[j]) for i in range(4) for j in range(i))


def test_image():
    env = gym.make(LETTUCE, render_mode="rgb_array")
    env.reset()
    frame = env.render()
    assert (frame.shape, frame.dtype) == ((224, 224, 3), np.uint8)
    pixels = frame.reshape(7, 32, 7, 32, 3)
    counter, floor = pixels[0, 16, 0, 16], pixels[3, 16, 3, 16]
    assert (counter != floor).any()
    # something stands out in the cells of the items, the boards, the delivery and the agent
    for row, column in [(0, 5), (1, 6), (2, 6), (6, 5), (1, 0), (2, 0), (3, 0)]:
        assert (pixels[row, :, column] != pixels[0, :, 0]).any()
    assert (pixels[1, :, 4] != pixels[3, :, 3]).any()
    assert (pixels[4, :, 0] == pixels[0, :, 0]).all()  # an empty counter
    before = frame.copy()
    env.step(0)
    after = env.render().reshape(7, 32, 7, 32, 3)
    assert (frame == before).all()  # a frame that was handed out is not drawn over
    assert (after[0, :, 5] == after[0, :, 0]).all()  # taken
    assert gym.make(LETTUCE).unwrapped.render() is None


def test_text_frame():
    env = gym.make(LETTUCE, render_mode="ansi")
    env.reset()
    for action in SHORTEST[LETTUCE][:8]:
        env.step(action)
    assert env.render() == (
        "#     #     #     #     #     #     #\n"
        "=t    .     .     .     .     .     #\n"
        "=     @Ul   .     .     .     .     #O\n"
        ">     .     .     .     .     .     #\n"
        "#     .     .     .     .     .     #\n"
        "#     .     .     .     .     .     #\n"
        "#     #     #     #     #     #     #\n"
        "\n"
        "# counter  = board  > delivery  @ agent  U bowl  T L O tomato lettuce onion, t l o chopped\n"
        "step 40 of 200"
    )


def test_readme_shows_what_comes_out():
    readme = (Path(__file__).parents[2] / "overcooked-text" / "README.md").read_text(encoding="utf-8")
    env = gym.make(LETTUCE, render_mode="ansi")
    env.reset()
    for action in SHORTEST[LETTUCE][:8]:
        info = env.step(action)[4]
    assert indent(env.render(), "    ").replace("\n    \n", "\n\n") in readme
    assert info["prompt"] in readme.replace("\n> ", " ")
    assert all(f"`{phrase}`" in readme for phrase in info["actions"])
