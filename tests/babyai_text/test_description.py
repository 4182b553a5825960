"""`describe` against sentences written by hand and against the recorded ones."""

import subprocess
import sys
from pathlib import Path

import pytest
from minigrid.core.grid import Grid
from minigrid.core.mission import MissionSpace
from minigrid.core.world_object import Ball, Box, Door, Floor, Goal, Key, Lava, Wall
from minigrid.minigrid_env import MiniGridEnv
from minigrid.wrappers import FullyObsWrapper

from babyai_text import describe

GOLDEN = Path(__file__).parents[1] / "golden"


class Scene(MiniGridEnv):
    """An 11x11 field without outer walls; the agent stands at (5, 8) and looks up, towards smaller y."""

    def __init__(self, things, held=None, **options):
        self.things, self.held = things, held
        space = MissionSpace(mission_func=lambda: "look")
        super().__init__(mission_space=space, grid_size=11, **options)
        self.reset()
        self.carrying = held

    def _gen_grid(self, width, height):
        self.grid = Grid(width, height)
        for position, thing in self.things.items():
            self.grid.set(*position, thing)
        self.agent_pos, self.agent_dir = (5, 8), 3


def test_english_forms():
    env = Scene({(5, 7): Key("red"), (5, 4): Ball("grey"), (3, 8): Box("blue"), (4, 7): Ball("green")})
    # columns from left to right (x = 3, 4, 5), in a column the farthest first
    assert describe(env) == [
        "You see a blue box 2 steps left",
        "You see a green ball 1 step left and 1 step forward",
        "You see a grey ball 4 steps forward",
        "You see a red key 1 step forward",
    ]


def test_french_forms():
    env = Scene({(5, 7): Key("red"), (5, 4): Ball("grey"), (6, 8): Box("blue"), (3, 6): Ball("purple")})
    assert describe(env, language="french") == [
        "Tu vois une balle violette 2 pas à gauche et 2 pas devant",
        "Tu vois une balle grise 4 pas devant",
        "Tu vois une clef rouge 1 pas devant",
        "Tu vois une boîte bleue 1 pas à droite",
    ]


def test_door_states_keep_the_article_a():
    doors = {(4, 7): Door("yellow", is_open=True), (5, 7): Door("green"), (6, 7): Door("red", is_locked=True)}
    assert describe(Scene(doors)) == [
        "You see a open yellow door 1 step left and 1 step forward",
        "You see a closed green door 1 step forward",
        "You see a locked red door 1 step right and 1 step forward",
    ]
    assert describe(Scene(doors), "french") == [
        "Tu vois une porte jaune ouverte 1 pas à gauche et 1 pas devant",
        "Tu vois une porte verte fermée 1 pas devant",
        "Tu vois une porte rouge fermée à clef 1 pas à droite et 1 pas devant",
    ]


def test_held_object_comes_first_and_stays_english_in_french():
    env = Scene({(5, 7): Ball("blue")}, held=Key("purple"))
    assert describe(env) == ["You carry a purple key", "You see a blue ball 1 step forward"]
    assert describe(env, "french") == ["Tu portes une key purple", "Tu vois une balle bleue 1 pas devant"]


def test_ground_reads_like_an_object():
    env = Scene({(4, 8): Floor("blue"), (5, 7): Goal(), (6, 8): Lava()})
    assert describe(env) == [
        "You see a blue floor 1 step left",
        "You see a green goal 1 step forward",
        "You see a red lava 1 step right",
    ]
    assert describe(env, "french") == [
        "Tu vois une sol bleue 1 pas à gauche",
        "Tu vois une but verte 1 pas devant",
        "Tu vois une lave rouge 1 pas à droite",
    ]


def test_what_lies_under_the_agent_is_not_described():
    assert describe(Scene({(5, 8): Door("red", is_open=True)})) == []


def test_three_walls_ahead_left_right():
    env = Scene({(5, 5): Wall(), (4, 8): Wall(), (8, 8): Wall(), (6, 5): Wall()})
    assert describe(env) == [
        "You see a wall 3 steps forward",
        "You see a wall 1 step left",
        "You see a wall 3 steps right",
    ]
    assert describe(env, "french") == [
        "Tu vois un mur à 3 pas devant",
        "Tu vois un mur à 1 pas à gauche",
        "Tu vois un mur à 3 pas à droite",
    ]


@pytest.mark.parametrize("thing", [Ball("red"), Door("red", is_open=True), Floor("red"), Goal(), Lava()])
def test_anything_on_the_way_hides_a_published_wall(thing):
    env = Scene({(5, 6): thing, (5, 4): Wall(), (6, 8): thing, (7, 8): Wall(), (3, 8): Wall()})
    assert [sentence for sentence in describe(env) if "wall" in sentence] == ["You see a wall 2 steps left"]
    # "all" looks past it, and adds at most these three sentences
    assert describe(env, walls="all")[:3] == [
        "You see a wall 4 steps forward",
        "You see a wall 2 steps left",
        "You see a wall 2 steps right",
    ]
    assert describe(env, walls="all")[3:] == describe(env)[1:]


def test_other_view_sizes():
    things = {(5, 6): Wall(), (4, 8): Ball("red"), (2, 8): Wall(), (8, 8): Wall()}
    assert describe(Scene(things, agent_view_size=3)) == [
        "You see a wall 2 steps forward",
        "You see a red ball 1 step left",
    ]
    assert describe(Scene(things, agent_view_size=9)) == [
        "You see a wall 2 steps forward",
        "You see a wall 3 steps right",
        "You see a red ball 1 step left",
    ]


def test_see_through_walls():
    things = {(x, 6): Wall() for x in range(11)} | {(5, 5): Key("red")}
    assert describe(Scene(things)) == ["You see a wall 2 steps forward"]
    assert describe(Scene(things, see_through_walls=True)) == [
        "You see a wall 2 steps forward",
        "You see a red key 3 steps forward",
    ]


def test_image_replaces_the_view_and_wrappers_do_not_matter():
    env = Scene({(5, 7): Key("red")})
    assert describe(FullyObsWrapper(env)) == ["You see a red key 1 step forward"]

    env.gen_obs = None  # calling it would raise
    image = Scene({(5, 6): Ball("red")}).gen_obs()["image"]
    assert describe(env, image=image) == ["You see a red ball 2 steps forward"]


def test_wrong_choices_name_the_right_ones():
    env = Scene({})
    with pytest.raises(ValueError, match=r"language must be one of 'english', 'french', got 'German'"):
        describe(env, "German")
    with pytest.raises(ValueError, match=r"walls must be one of 'published', 'all', got True"):
        describe(env, walls=True)


def test_recorded_descriptions():
    command = [sys.executable, GOLDEN / "check_descriptions.py", "--next", GOLDEN / "descriptions.jsonl.gz"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stdout.endswith("800/800 match\n"), result.stdout + result.stderr


def test_torch_is_never_imported():
    script = (
        "import sys, babyai_text; babyai_text.make('BabyAI-GoToLocal-v0').reset(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
