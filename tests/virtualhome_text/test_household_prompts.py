"""What prompts tell, read back sentence by sentence, and what is offered: in each row of the protocol's tables by hand,
and in every state that an episode can reach."""

import re
from collections import defaultdict

import pytest

from tests.virtualhome_text.states import ENTERTAINMENT, FOOD, distances, played, reachable
from virtualhome_text.entertainment import ENTERTAINMENT as ENTERTAINMENT_TASK
from virtualhome_text.entertainment import Observation as Entertainment
from virtualhome_text.food_preparation import FOOD_PREPARATION
from virtualhome_text.food_preparation import Observation as Food

EVERYWHERE = [(FOOD, False), (FOOD, True), (ENTERTAINMENT, False), (ENTERTAINMENT, True)]
NEXT = ", and the next thing to do is to"
GOALS = {
    FOOD: "Your goal is a pancake heated in the microwave" + NEXT,
    ENTERTAINMENT: "Your goal is to watch the TV with both the chips and the milk at hand" + NEXT,
}
ROOM = re.compile(
    "The apartment has a kitchen, a bathroom, a bedroom and a living room, "
    "and you are in the (kitchen|bathroom|bedroom|living room)"
)
NOUNS = re.compile("pancake|microwave|chips|milk|coffee table|TV|sofa")


def facts(prompt):
    """The facts of a prompt; a sentence that is not understood fails."""
    room, *sentences, goal = prompt.split(". ")
    told = defaultdict(set, room=ROOM.fullmatch(room)[1], goal=goal)
    for sentence in sentences:
        read(sentence, told)
    return dict(told)


def read(sentence, told):
    things = set(NOUNS.findall(sentence))
    if sentence == "There is nothing useful in sight here":
        told["sees"] = set()
    elif sentence.startswith(("You see only the ", "You see the ")):
        told["sees"] |= things
    elif found := re.fullmatch("(?:It|The microwave) is (open|closed)( and the pancake is inside)?", sentence):
        told["door"] = found[1]
        told["inside"] = bool(found[2])
    elif found := re.fullmatch("The TV is (on|off)", sentence):
        told["tv"] = found[1]
    elif sentence == "Your hands are empty":
        told["holds"] = set()
    elif sentence.startswith("You are holding "):
        told["holds"] = things
    elif sentence.startswith(("You are not next to ", "You are next to neither ")):
        told["far"] |= things
    elif found := re.fullmatch("You are next to (.*?)( but have not grabbed (?:it|them))", sentence):
        told["near"] |= things
        told["not grabbed"] |= things
    elif sentence.startswith("You are next to "):
        near, but_not, far = sentence.partition(" but not next to ")
        told["near"] |= set(NOUNS.findall(near))
        if but_not:
            told["far"] |= set(NOUNS.findall(far))
    elif found := re.fullmatch("You are sitting on the sofa, (facing|turned away from) the TV", sentence):
        told["sits"] = found[1]
        told["near"] |= {"sofa"}
    elif sentence == "You have sat on the sofa before":
        told["sat before"] = True
    elif found := re.fullmatch("The (chips are|milk is) on the coffee table( beside you)?", sentence):
        told["on table"] |= things & {"chips", "milk"}
        if found[2]:
            told["near"] |= things & {"chips", "milk"}
    else:
        raise AssertionError(f"not understood: {sentence}")


# --- the protocol's tables, row by row: actions that lead there, what is offered, what must be told

NONE, PANCAKE, CHIPS, MILK = set(), {"pancake"}, {"chips"}, {"milk"}
FOOD_IN_SIGHT = {"sees": {"pancake", "microwave"}}
FOOD_ROWS = [
    ([2], [0, 1, 3], {"room": "bathroom", "sees": NONE, "holds": NONE}),
    ([4, 6, 2], [0, 1, 3], {"room": "bathroom", "sees": NONE, "holds": PANCAKE}),
    ([3], [0, 1, 2], {"room": "bedroom", "sees": NONE, "holds": NONE}),
    ([4, 6, 3], [0, 1, 2], {"room": "bedroom", "sees": NONE, "holds": PANCAKE}),
    ([0], [1, 2, 3], {"room": "living room", "sees": NONE, "holds": NONE}),
    ([4, 6, 0], [1, 2, 3], {"room": "living room", "sees": NONE, "holds": PANCAKE}),
    # the end
    (
        [4, 6, 5, 8, 7, 9],
        [0, 2, 3],
        {"room": "kitchen", "inside": True, "door": "closed", "holds": NONE, "near": {"microwave"}},
    ),
    # holding it, near the microwave
    ([4, 6, 5], [0, 2, 3, 4, 7, 8, 9], {"door": "closed", "holds": PANCAKE, "near": {"microwave"}, **FOOD_IN_SIGHT}),
    ([4, 6, 5, 8], [0, 2, 3, 4, 7, 8, 9], {"door": "open", "holds": PANCAKE, "near": {"microwave"}, **FOOD_IN_SIGHT}),
    # holding it, elsewhere in the kitchen
    ([4, 6], [0, 2, 3, 4, 5], {"door": "closed", "holds": PANCAKE, "far": {"microwave"}, **FOOD_IN_SIGHT}),
    ([4, 6, 5, 8, 2, 1], [0, 2, 3, 4, 5], {"door": "open", "holds": PANCAKE, "far": {"microwave"}, **FOOD_IN_SIGHT}),
    # empty hands: near the pancake, the microwave, neither, both
    ([4], [0, 2, 3, 5, 6], {"door": "closed", "holds": NONE, "near": PANCAKE, "far": {"microwave"}, **FOOD_IN_SIGHT}),
    ([5, 8, 4], [0, 2, 3, 5, 6], {"door": "open", "holds": NONE, "near": PANCAKE, "inside": False, **FOOD_IN_SIGHT}),
    (
        [5],
        [0, 2, 3, 4, 8, 9],
        {"door": "closed", "holds": NONE, "near": {"microwave"}, "far": PANCAKE, **FOOD_IN_SIGHT},
    ),
    ([5, 8], [0, 2, 3, 4, 8, 9], {"door": "open", "holds": NONE, "near": {"microwave"}, "far": PANCAKE}),
    ([1], [0, 2, 3, 4, 5], {"room": "kitchen", "door": "closed", "holds": NONE, "far": {"pancake", "microwave"}}),
    ([4, 6, 5, 8, 7, 2, 1], [0, 2, 3, 4, 5], {"inside": True, "door": "open", "far": {"pancake", "microwave"}}),
    ([4, 6, 5, 8, 7], [0, 2, 3, 8, 9], {"inside": True, "holds": NONE, "near": {"pancake", "microwave"}}),
    ([4, 6, 5, 8, 7, 2, 1, 4], [0, 2, 3, 8, 9], {"inside": True, "near": {"pancake", "microwave"}}),
]

BOTH_ITEMS = {"chips", "milk"}
MILK_LEFT = [5, 10, 0, 6, 12, 1]  # on the coffee table; the kitchen has the chips only
CHIPS_LEFT = [4, 9, 0, 6, 11, 1]
BOTH_LEFT = [4, 9, 5, 10, 0, 6, 11, 12]  # the last action is not offered
TV_ON = [0, 7, 13]
FURNITURE = {"coffee table", "TV", "sofa"}
ENTERTAINMENT_ROWS = [
    ([2], [0, 1, 3], {"room": "bathroom", "sees": NONE, "holds": NONE}),
    ([4, 9, 2], [0, 1, 3], {"room": "bathroom", "sees": NONE, "holds": CHIPS}),
    ([5, 10, 2], [0, 1, 3], {"room": "bathroom", "sees": NONE, "holds": MILK}),
    ([4, 9, 5, 10, 3], [0, 1, 2], {"room": "bedroom", "sees": NONE, "holds": BOTH_ITEMS}),
    # the kitchen, both in sight
    ([4, 9, 5, 10], [0, 2, 3], {"room": "kitchen", "sees": BOTH_ITEMS, "holds": BOTH_ITEMS}),
    ([4, 9, 5], [0, 2, 3, 10], {"sees": BOTH_ITEMS, "near": MILK, "not grabbed": MILK, "holds": CHIPS}),
    ([4, 9], [0, 2, 3, 5], {"sees": BOTH_ITEMS, "far": MILK, "holds": CHIPS}),
    ([5, 10, 4], [0, 2, 3, 9], {"sees": BOTH_ITEMS, "near": CHIPS, "not grabbed": CHIPS, "holds": MILK}),
    ([5, 10], [0, 2, 3, 4], {"sees": BOTH_ITEMS, "far": CHIPS, "holds": MILK}),
    ([4], [0, 2, 3, 5, 9], {"sees": BOTH_ITEMS, "near": CHIPS, "not grabbed": CHIPS, "far": MILK, "holds": NONE}),
    ([5], [0, 2, 3, 4, 10], {"sees": BOTH_ITEMS, "near": MILK, "not grabbed": MILK, "far": CHIPS, "holds": NONE}),
    ([1], [0, 2, 3, 4, 5], {"sees": BOTH_ITEMS, "far": BOTH_ITEMS, "holds": NONE}),
    # the kitchen, one or none in sight
    ([*MILK_LEFT, 4, 9], [0, 2, 3], {"room": "kitchen", "sees": CHIPS, "holds": CHIPS}),
    ([*MILK_LEFT, 4], [0, 2, 3, 9], {"sees": CHIPS, "near": CHIPS, "not grabbed": CHIPS}),
    (MILK_LEFT, [0, 2, 3, 5], {"sees": CHIPS, "far": CHIPS}),
    ([*CHIPS_LEFT, 5, 10], [0, 2, 3], {"room": "kitchen", "sees": MILK, "holds": MILK}),
    ([*CHIPS_LEFT, 5], [0, 2, 3, 10], {"sees": MILK, "near": MILK, "not grabbed": MILK}),
    (CHIPS_LEFT, [0, 2, 3, 4], {"sees": MILK, "far": MILK}),
    ([*BOTH_LEFT, 1], [0, 2, 3], {"room": "kitchen", "sees": NONE}),
    # the living room: near none of the three, near the table
    ([0], [1, 2, 3, 6, 7, 8], {"room": "living room", "sees": FURNITURE, "far": FURNITURE, "holds": NONE}),
    ([4, 9, 0], [1, 2, 3, 6, 7, 8], {"sees": FURNITURE, "far": FURNITURE, "holds": CHIPS}),
    ([4, 9, 5, 10, 0], [1, 2, 3, 6, 7, 8], {"sees": FURNITURE, "far": FURNITURE, "holds": BOTH_ITEMS}),
    ([0, 6], [1, 2, 3], {"sees": FURNITURE, "near": {"coffee table"}, "holds": NONE}),
    (BOTH_LEFT, [1, 2, 3], {"holds": NONE, "on table": BOTH_ITEMS, "near": {"coffee table", "chips", "milk"}}),
    ([4, 9, 5, 10, 0, 6], [1, 2, 3, 7, 8, 11, 12], {"near": {"coffee table"}, "holds": BOTH_ITEMS}),
    ([4, 9, 0, 6], [1, 2, 3, 7, 8, 11], {"near": {"coffee table"}, "holds": CHIPS}),
    ([5, 10, 0, 6], [1, 2, 3, 7, 8, 12], {"near": {"coffee table"}, "holds": MILK}),
    ([4, 9, 5, 10, 0, 6, 12], [1, 2, 3, 7, 8], {"far": {"TV", "sofa"}, "holds": CHIPS, "on table": MILK}),
    ([4, 9, 5, 10, 0, 6, 11], [1, 2, 3, 7, 8], {"far": {"TV", "sofa"}, "holds": MILK, "on table": CHIPS}),
    # near the TV
    (TV_ON, [1, 2, 3, 6, 8], {"sees": FURNITURE, "far": {"sofa", "coffee table"}, "tv": "on", "holds": NONE}),
    ([4, 9, *TV_ON], [1, 2, 3, 6, 8], {"far": {"sofa", "coffee table"}, "tv": "on", "holds": CHIPS}),
    ([4, 9, 5, 10, 0, 6, 12, 7, 13], [1, 2, 3, 6, 8], {"tv": "on", "holds": CHIPS, "on table": MILK}),
    ([0, 7], [1, 2, 3, 6, 8, 13, 14], {"near": {"TV"}, "tv": "off", "holds": NONE}),
    ([4, 9, 5, 10, 0, 7], [1, 2, 3, 6, 8, 13, 14], {"near": {"TV"}, "tv": "off", "holds": BOTH_ITEMS}),
    # near the sofa
    ([*TV_ON, 8, 15], [1, 2, 3], {"sits": "facing", "tv": "on", "holds": NONE}),
    ([5, 10, *TV_ON, 8, 15], [1, 2, 3], {"sits": "facing", "tv": "on", "holds": MILK}),
    ([0, 8, 15], [1, 2, 3], {"sits": "facing", "tv": "off"}),
    ([*TV_ON, 8], [1, 2, 3, 6, 7, 15, 16], {"near": {"sofa"}, "tv": "on", "holds": NONE}),
    ([4, 9, *TV_ON, 8], [1, 2, 3, 6, 7, 15, 16], {"near": {"sofa"}, "tv": "on", "holds": CHIPS}),
    ([0, 8], [1, 2, 3, 6, 7], {"near": {"sofa"}, "tv": "off", "holds": NONE}),
    ([4, 9, 5, 10, 0, 6, 11, 8], [1, 2, 3, 6, 7], {"near": {"sofa"}, "holds": MILK, "on table": CHIPS}),
]


@pytest.mark.parametrize(
    ("level", "actions", "offered", "told"),
    [(FOOD, *row) for row in FOOD_ROWS] + [(ENTERTAINMENT, *row) for row in ENTERTAINMENT_ROWS],
)
def test_rows_of_the_protocol(level, actions, offered, told):
    info = played(level, actions)[4]
    assert info["action_ids"] == offered
    understood = facts(info["prompt"])
    assert {name: understood.get(name) for name in told} == told


def test_rows_that_no_episode_reaches():
    kitchen = {"in_kitchen": 1, "in_bathroom": 0, "in_bedroom": 0, "in_livingroom": 0}
    beside_both_closed = Food(**kitchen, **dict(zip(Food._fields[4:], [1, 1, 0, 1, 1, 0, 0], strict=True)))
    assert FOOD_PREPARATION.offered(beside_both_closed) == (0, 2, 3, 9)
    told = facts(FOOD_PREPARATION.prompt(beside_both_closed))
    assert (told["near"], told["holds"], told["door"]) == ({"pancake", "microwave"}, set(), "closed")

    beside_both = Entertainment(**kitchen, **dict.fromkeys(Entertainment._fields[4:], 0))
    beside_both = beside_both._replace(see_chips=1, close_to_chips=1, see_milk=1, close_to_milk=1)
    assert ENTERTAINMENT_TASK.offered(beside_both) == (0, 2, 3, 9, 10)
    told = facts(ENTERTAINMENT_TASK.prompt(beside_both))
    assert (told["near"], told["not grabbed"], told["holds"]) == (BOTH_ITEMS, BOTH_ITEMS, set())


# --- every state


def expected(level, household):
    """What the tables of the protocol want told, from the household itself."""
    room, near, items = household["room"], set(household["near"]), household["items"]
    held = {name for name, item in items.items() if item["place"] in ("right hand", "left hand")}
    told = {"room": room, "goal": GOALS[level], "holds": held}
    if level == FOOD and room == "kitchen":
        inside, door = items["pancake"]["place"] == "microwave", "open" if household["microwave_open"] else "closed"
        told |= {"inside": inside, "door": door}
        if inside and door == "closed":
            return told | {"sees": {"microwave"}, "near": {"microwave"}}
        told |= {"sees": {"pancake", "microwave"}}
        return told | closeness({"pancake", "microwave"} - held, near)
    if level == ENTERTAINMENT and room == "kitchen":
        seen = {name for name, item in items.items() if name in held or item["room"] == "kitchen"}
        told |= {"sees": seen, **closeness(seen - held, near)}
        return told | ({"not grabbed": told["near"]} if "near" in told else {})
    if level == ENTERTAINMENT and room == "living room":
        on_table = {name for name, item in items.items() if item["place"] == "coffee table"}
        told |= {"sees": FURNITURE, "tv": "on" if household["tv_on"] else "off"}
        if household["on_sofa"] and "sofa" in near:  # standing up does not show
            told |= {"sits": "facing" if household["facing_tv"] else "turned away from", "near": {"sofa"}}
        else:
            told |= closeness(FURNITURE, near) | ({"sat before": True} if household["on_sofa"] else {})
        if on_table:
            told["on table"] = on_table
        if on_table & near:
            told["near"] = told.get("near", set()) | on_table & near
        return told
    return told | {"sees": set()}


def closeness(names, near):
    return {title: found for title, found in (("near", names & near), ("far", names - near)) if found}


@pytest.mark.parametrize(("level", "every_action"), EVERYWHERE)
def test_every_state_is_told(level, every_action):
    for state in reachable(level, every_action).values():
        assert facts(state.prompt) == expected(level, state.household), state.prompt


@pytest.mark.parametrize(("level", "every_action"), EVERYWHERE)
def test_different_observations_read_differently(level, every_action):
    states = reachable(level, every_action).values()
    observations = {state.observation for state in states}
    assert len({state.prompt for state in states}) == len(observations)
    assert len({(state.observation, state.prompt, *state.actions) for state in states}) == len(observations)


@pytest.mark.parametrize(("level", "every_action"), EVERYWHERE)
def test_offered_actions_are_ascending_ids_with_their_phrases(level, every_action):
    phrases = {}
    for state in reachable(level, every_action).values():
        assert state.action_ids == sorted(set(state.action_ids))
        for number, phrase in zip(state.action_ids, state.actions, strict=True):
            assert phrases.setdefault(number, phrase) == phrase
    assert len(set(phrases.values())) == len(phrases) == {FOOD: 10, ENTERTAINMENT: 17}[level]


@pytest.mark.parametrize(("level", "every_action"), EVERYWHERE)
def test_action_phrases_continue_the_prompt(level, every_action):
    bare_infinitive = re.compile("(walk|grab|put|open|close|turn|sit|stand) ")
    for state in reachable(level, every_action).values():
        assert state.prompt.endswith(NEXT)
        assert all(bare_infinitive.match(phrase) for phrase in state.actions)


@pytest.mark.parametrize(("level", "every_action"), EVERYWHERE)
def test_nouns_keep_their_articles(level, every_action):
    for state in reachable(level, every_action).values():
        for text in (state.prompt, *state.actions):
            for noun in (*NOUNS.finditer(text), *re.finditer("kitchen|bathroom|bedroom|living room", text)):
                assert re.search(r"\b([Tt]he|a) $", text[: noun.start()]), text


@pytest.mark.parametrize("level", [FOOD, ENTERTAINMENT])
def test_nouns_of_the_best_actions_are_mentioned(level):
    states = reachable(level)
    steps = distances(states)
    seen = set()
    for key in steps:
        state = states[key]
        for action, there in state.after.items():
            if steps.get(there, len(states)) < steps[key]:
                phrase = state.actions[state.action_ids.index(action)]
                named = NOUNS.findall(phrase) or [phrase.removeprefix("walk to the ")]
                assert all(f"the {noun}" in state.prompt or f"a {noun}" in state.prompt for noun in named)
                seen.add(action)
    assert seen >= {FOOD: {1, 4, 5, 6, 7, 8, 9}, ENTERTAINMENT: {0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15}}[level]
