"""Prompts, word for word."""

import pytest
from gymnasium.vector import VectorEnv

from experiments.environments import split_infos
from experiments.errors import UserError
from experiments.prompters.environment_prompter import EnvironmentPrompter
from experiments.prompters.french_prompter import FrenchPrompter, translate_mission
from experiments.prompters.glam_prompter import GlamPrompter, environment_action_ids

NAMES = ["turn left", "go forward"]


def info(*sentences):
    return {"descriptions": list(sentences)}


def test_english_prompt_word_for_word():
    prompter = GlamPrompter(NAMES, [0, 2], nbr_obs=3)
    prompter.reset("go to the red ball")
    prompter.observe(None, info("You see a wall 2 steps left", "You see a red ball 1 step forward"))
    assert prompter.state().prompt == (
        "Possible action of the agent: turn left, go forward \n Goal of the agent: go to the red ball "
        "\n Observation 0: You see a wall 2 steps left, You see a red ball 1 step forward, \n Action 0: "
    )
    prompter.observe(None, info("You see a red ball 1 step right"), action=0)
    assert prompter.state().prompt == (
        "Possible action of the agent: turn left, go forward \n Goal of the agent: go to the red ball "
        "\n Observation 0: You see a wall 2 steps left, You see a red ball 1 step forward, \n Action 0: turn left "
        "\n Observation 1: You see a red ball 1 step right, \n Action 1: "
    )
    assert prompter.state().candidates == NAMES
    assert prompter.state().action_ids == [0, 2]


def test_the_window_slides_and_its_indices_restart():
    prompter = GlamPrompter(NAMES, [0, 2], nbr_obs=2)
    prompter.reset("g")
    prompter.observe(None, info("first"))
    prompter.observe(None, info("second"), action=0)
    prompter.observe(None, info("third"), action=1)
    assert prompter.state().prompt.endswith(
        "\n Observation 0: second, \n Action 0: go forward \n Observation 1: third, \n Action 1: "
    )
    assert "first" not in prompter.state().prompt
    prompter.reset("h")
    prompter.observe(None, info("new"))
    assert prompter.state().prompt.endswith("\n Goal of the agent: h \n Observation 0: new, \n Action 0: ")


def test_one_observation_keeps_no_action():
    prompter = GlamPrompter(NAMES, [0, 2], nbr_obs=1)
    prompter.reset("g")
    prompter.observe(None, info("a"))
    prompter.observe(None, info("b"), action=1)
    assert prompter.state().prompt.endswith("\n Observation 0: b, \n Action 0: ")


def test_saved_state_goes_on():
    first, second = (GlamPrompter(NAMES, [0, 2], nbr_obs=3) for _ in range(2))
    first.reset("g")
    first.observe(None, info("a"))
    first.observe(None, info("b"), action=1)
    second.set_state(first.get_state())
    for prompter in (first, second):
        prompter.observe(None, info("c"), action=0)
    assert first.state() == second.state()


@pytest.mark.parametrize(
    ("english", "french"),
    [
        ("go to the red ball", "aller à la balle rouge"),
        ("go to a grey key", "aller à une clef grise"),
        ("pick up a purple box", "attraper une boîte violette"),
        ("open the door", "ouvrir la porte"),
        ("open the yellow door", "ouvrir la porte jaune"),
        ("put the blue key next to a green box", "mettre la clef bleue à côté de une boîte verte"),
        ("pick up a red key, then go to the blue ball", "attraper une clef rouge, puis aller à la balle bleue"),
        (
            "go to the blue ball after you pick up a red key",
            "aller à la balle bleue après avoir fait: attraper une clef rouge",
        ),
    ],
)
def test_french_missions(english, french):
    assert translate_mission(english) == french


def test_a_mission_without_french_form_is_named():
    with pytest.raises(UserError, match="dance with the ball"):
        translate_mission("dance with the ball")


def test_french_prompt():
    prompter = FrenchPrompter(["tourner à gauche", "aller tout droit"], [0, 2], nbr_obs=3)
    prompter.reset("go to a red ball")
    prompter.observe(None, info("Tu vois un mur à 2 pas devant"))
    assert prompter.state().prompt == (
        "Actions possibles pour l'agent: tourner à gauche, aller tout droit \n But de l'agent: aller à une balle rouge "
        "\n Observation 0: Tu vois un mur à 2 pas devant, \n Action 0: "
    )


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["turn_left", "turn_right", "go_forward"], [0, 1, 2]),
        ([*"abcdef", "sleep", "think"], [0, 1, 2, 3, 4, 5, 6, 6]),  # from the seventh on a no-op
        (["rotate_left", "rotate_right", "move_ahead", "take", "release", "switch"], [0, 1, 2, 3, 4, 5]),
        (["turn_left", "go_forward"], [0, 2]),  # a canonical name means itself wherever it stands
        (["turn_right", "jump"], [1, 6]),  # position 1 is taken by turn_right under its own name
    ],
)  # fmt: skip
def test_environment_action_ids(names, ids):
    assert environment_action_ids(names) == ids


def test_an_environment_that_writes_its_own_prompt():
    prompter = EnvironmentPrompter(["a", "b"], [0, 1])
    prompter.reset("")
    prompter.observe(
        None, {"prompt": "You are hungry. You", "actions": ["eat", "walk", "sit"], "action_ids": [4, 7, 9]}
    )
    assert tuple(prompter.state()) == ("You are hungry. You", ["eat", "walk", "sit"], [4, 7, 9])
    prompter.observe(None, {"prompt": "no list"}, action=1)
    assert tuple(prompter.state()) == ("no list", ["a", "b"], [0, 1])
    copy = EnvironmentPrompter(["a", "b"], [0, 1])
    copy.set_state(prompter.get_state())
    assert copy.state() == prompter.state()


def test_an_info_that_is_a_dict_reaches_its_environment_as_one():
    """The second of two environments ends its episode and tells its sums, as gymnasium puts such an info together."""
    envs = VectorEnv()
    envs.num_envs = 2
    infos = envs._add_info({}, {"prompt": "a"}, 0)
    infos = envs._add_info(infos, {"prompt": "b", "episode": {"r": 0.5, "l": 3}}, 1)
    assert split_infos(infos, 2) == [{"prompt": "a"}, {"prompt": "b", "episode": {"r": 0.5, "l": 3}}]
