"""Prompts and phrases of every reachable state, read back by a parser of their own, beside what the vector holds."""

import inspect
import re
from collections import defaultdict

import pytest

from overcooked_text import prompts
from overcooked_text.tasks import TOMATO_LETTUCE_SALAD, TOMATO_SALAD
from tests.overcooked_text.kitchens import LETTUCE, SHORTEST, TOMATO, reachable

# also with a view in which everything is seen at once
EVERYWHERE = pytest.mark.parametrize(("level", "view_radius"), [(TOMATO, 2), (LETTUCE, 2), (TOMATO, 10), (LETTUCE, 10)])

# the order of the sentences is part of the pattern
PROMPT = re.compile(
    r"This kitchen has (?P<boards>one cutting board|two cutting boards) fixed to the counter\."
    r"( You can see (?P<home>[a-z, ]+) on (?P<tables>a table|different tables)\.)?"
    r"( On the (first )?cutting board is (?P<first>[a-z, ]+)\.)?"
    r"( On the second cutting board is (?P<second>[a-z, ]+)\.)?"
    r" (Your hand is empty|In your hand is (?P<hand>[a-z ]+|a bowl that contains [a-z, ]+?))"
    r"(, and you stand in front of the (?P<front>|first |second )cutting board)?\."
    r" Your goal is to serve this dish: a bowl that contains only chopped (?P<recipe>[a-z ]+)\."
    r" The best next step is to"
)
ARTICLE = re.compile("(an?) ([a-z]+)")


def items_told(text):
    """'a tomato, a lettuce and an onion' -> those three nouns"""
    for article, noun in ARTICLE.findall(text):
        assert article == ("an" if noun[0] in "aeiou" else "a")
    return [noun for _, noun in ARTICLE.findall(text)]


def thing_told(text):
    """(bowl or food, chopped foods in it or whether it is chopped)"""
    if text is None:
        return None
    if text.startswith("a bowl that contains chopped "):
        return "bowl", re.split(", | and ", text.removeprefix("a bowl that contains chopped "))
    if text == "an empty bowl":
        return "bowl", []
    article, state, food = text.split(" ")
    assert (article, state) in [("a", "chopped"), ("an", "unchopped")]
    return food, state == "chopped"


def facts(prompt):
    found = PROMPT.fullmatch(prompt)
    assert found, prompt
    home = items_told(found["home"] or "")
    assert found["tables"] == (None if not home else "a table" if len(home) == 1 else "different tables")
    fronts = {None: None, "": 0, "first ": 0, "second ": 1}
    return {
        "boards": {"one cutting board": 1, "two cutting boards": 2}[found["boards"]],
        "home": home,
        "on boards": [thing_told(found["first"]), thing_told(found["second"])],
        "hand": thing_told(found["hand"]),
        "front": fronts[found["front"]],
        "recipe": found["recipe"],
    }


def names(level, vector):
    """(cells and chops of the items, the agent's cell)"""
    if level == TOMATO:
        t_x, t_y, chops, b_x, b_y, _, _, _, _, x, y, *_ = vector
        return {"tomato": (t_x, t_y), "bowl": (b_x, b_y)}, {"tomato": chops}, (x, y)
    t_x, t_y, tomato, l_x, l_y, lettuce, o_x, o_y, onion, b_x, b_y, _, _, _, _, _, _, x, y, *_ = vector
    cells = {"tomato": (t_x, t_y), "lettuce": (l_x, l_y), "onion": (o_x, o_y), "bowl": (b_x, b_y)}
    return cells, {"tomato": tomato, "lettuce": lettuce, "onion": onion}, (x, y)


def thing_in(cell, cells, chops):
    foods = [food for food in chops if cells[food] == cell]
    if cells["bowl"] == cell:
        return "bowl", foods
    return (foods[0], chops[foods[0]] == 3) if foods else None


def expected(level, vector):
    cells, chops, agent = names(level, vector)
    home = {"tomato": (0, 5), "lettuce": (1, 6), "onion": (2, 6), "bowl": (6, 5)}
    return {
        "boards": {TOMATO: 1, LETTUCE: 2}[level],
        "home": [item for item in home if cells.get(item) == home[item]],
        "on boards": [thing_in((1, 0), cells, chops), thing_in((2, 0), cells, chops)],
        "hand": thing_in(agent, cells, chops),
        "front": {TOMATO: {(1, 1): 0}, LETTUCE: {(1, 1): 0, (2, 1): 1}}[level].get(agent),
        "recipe": {TOMATO: "tomato", LETTUCE: "tomato and lettuce"}[level],
    }


@EVERYWHERE
def test_every_state_is_told(level, view_radius):
    for state in reachable(level, view_radius).values():
        assert facts(state.prompt) == expected(level, state.observation), state.prompt


@EVERYWHERE
def test_observations_to_be_told_apart_read_differently(level, view_radius):
    told = defaultdict(set)
    for state in reachable(level, view_radius).values():
        told[repr(expected(level, state.observation))].add(state.prompt)
    assert all(len(prompts) == 1 for prompts in told.values())
    assert len(set.union(*told.values())) == len(told)


def test_something_of_everything_was_told():
    found = [facts(state.prompt) for state in reachable(LETTUCE).values()]
    assert {tuple(fact["home"]) for fact in found} >= {("tomato", "lettuce", "onion"), ("onion",), ("bowl",), ()}
    things = [("bowl", []), ("bowl", ["tomato", "lettuce", "onion"]), ("onion", False), ("lettuce", True), None]
    for places in (lambda fact: fact["hand"], lambda fact: fact["on boards"][0], lambda fact: fact["on boards"][1]):
        assert all(thing in [places(fact) for fact in found] for thing in things)
    assert {fact["front"] for fact in found} == {None, 0, 1}


@EVERYWHERE
def test_texts_are_functions_of_the_vector(level, view_radius):
    task = {TOMATO: TOMATO_SALAD, LETTUCE: TOMATO_LETTUCE_SALAD}[level]
    for state in reachable(level, view_radius).values():
        vector = list(state.observation)
        assert (prompts.prompt(task, vector), list(prompts.phrases(task, vector))) == (state.prompt, state.actions)
    for text in (prompts.prompt, prompts.phrases):  # no kitchen
        assert list(inspect.signature(text).parameters) == ["task", "vector"]


def test_chops_in_between_are_not_told():
    vectors = [[1, 0, chops, 0, 0, 1, 0, 3, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0] for chops in range(4)]
    told = [prompts.prompt(TOMATO_SALAD, vector) for vector in vectors]
    assert [text.count("an unchopped tomato") for text in told] == [1, 1, 1, 0]
    assert len(set(told)) == 2


# --- action phrases

PLAIN = {
    TOMATO: ["pick up the tomato", "take the bowl", "walk to the cutting board", "serve nothing", "chop nothing"],
    LETTUCE: [
        "pick up the tomato",
        "pick up the lettuce",
        "pick up the onion",
        "take the empty bowl",
        "walk to the first cutting board",
        "walk to the second cutting board",
        "serve nothing",
        "chop nothing",
    ],
}


def changes(level, vector):
    """Index -> phrase where it is not the plain one."""
    told, found = expected(level, vector), {}
    hand = told["hand"]
    boards = {TOMATO: {2: "cutting board"}, LETTUCE: {4: "first cutting board", 5: "second cutting board"}}[level]
    if level == LETTUCE and any(thing and thing[0] == "bowl" and thing[1] for thing in [hand, *told["on boards"]]):
        found[3] = "take the bowl"
    if hand is not None:
        found[{TOMATO: 3, LETTUCE: 6}[level]] = "serve the dish"
        if hand[0] == "bowl":
            foods = {TOMATO: ["tomato"], LETTUCE: ["tomato", "lettuce", "onion"]}[level]
            found |= {i: f"put the {food} in the bowl" for i, food in enumerate(foods)}
        if hand[0] == "bowl" or not hand[1]:
            found |= {i: f"put the {hand[0]} on the {board}" for i, board in boards.items()}
    in_front = None if told["front"] is None else told["on boards"][told["front"]]
    if in_front is not None and in_front[0] != "bowl":
        found[{TOMATO: 4, LETTUCE: 7}[level]] = f"chop the {in_front[0]}"
    return found


@EVERYWHERE
def test_phrases_of_every_state(level, view_radius):
    for state in reachable(level, view_radius).values():
        changed = changes(level, state.observation)
        assert state.actions == [changed.get(i, phrase) for i, phrase in enumerate(PLAIN[level])]


@pytest.mark.parametrize(
    ("task", "vector", "changed"),
    [
        # nothing in hand, nothing in view; the bowl at its home
        (TOMATO_SALAD, [0, 0, 0, 0, 0, 1, 0, 3, 0, 3, 1], {}),
        (TOMATO_SALAD, [0, 0, 0, 6, 5, 0, 0, 0, 0, 5, 5], {}),
        (
            TOMATO_SALAD,
            [1, 5, 0, 0, 0, 0, 0, 0, 0, 1, 5],
            {2: "put the tomato on the cutting board", 3: "serve the dish"},
        ),
        (TOMATO_SALAD, [1, 1, 3, 0, 0, 1, 0, 3, 0, 1, 1], {3: "serve the dish"}),
        (TOMATO_SALAD, [1, 0, 0, 0, 0, 1, 0, 3, 0, 1, 1], {4: "chop the tomato"}),
        (TOMATO_SALAD, [1, 0, 3, 0, 0, 1, 0, 3, 0, 1, 1], {4: "chop the tomato"}),
        (TOMATO_SALAD, [1, 0, 0, 0, 0, 1, 0, 3, 0, 3, 1], {}),  # not in front of it
        (TOMATO_SALAD, [1, 0, 3, 1, 0, 1, 0, 3, 0, 1, 1], {}),  # in a bowl on the board
        (
            TOMATO_SALAD,
            [5, 5, 3, 5, 5, 0, 0, 0, 0, 5, 5],
            {0: "put the tomato in the bowl", 2: "put the bowl on the cutting board", 3: "serve the dish"},
        ),
        (
            TOMATO_SALAD,
            [0, 0, 0, 5, 5, 0, 0, 0, 0, 5, 5],
            {0: "put the tomato in the bowl", 2: "put the bowl on the cutting board", 3: "serve the dish"},
        ),
        (
            TOMATO_LETTUCE_SALAD,
            [0, 5, 0, 1, 6, 0, 2, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 5],
            {
                4: "put the onion on the first cutting board",
                5: "put the onion on the second cutting board",
                6: "serve the dish",
            },
        ),
        # an empty bowl in hand before a chopped lettuce; the same bowl with an onion in it
        (
            TOMATO_LETTUCE_SALAD,
            [0, 0, 0, 2, 0, 3, 0, 0, 0, 2, 1, 1, 0, 2, 0, 3, 0, 2, 1],
            {
                0: "put the tomato in the bowl",
                1: "put the lettuce in the bowl",
                2: "put the onion in the bowl",
                4: "put the bowl on the first cutting board",
                5: "put the bowl on the second cutting board",
                6: "serve the dish",
                7: "chop the lettuce",
            },
        ),
        (
            TOMATO_LETTUCE_SALAD,
            [0, 0, 0, 2, 0, 0, 2, 1, 3, 2, 1, 1, 0, 2, 0, 3, 0, 2, 1],
            {
                0: "put the tomato in the bowl",
                1: "put the lettuce in the bowl",
                2: "put the onion in the bowl",
                3: "take the bowl",
                4: "put the bowl on the first cutting board",
                5: "put the bowl on the second cutting board",
                6: "serve the dish",
                7: "chop the lettuce",
            },
        ),
        # a bowl with tomato on the second board, chopped lettuce in hand; the bowl empty
        (
            TOMATO_LETTUCE_SALAD,
            [2, 0, 3, 1, 1, 3, 0, 0, 0, 2, 0, 1, 0, 2, 0, 3, 0, 1, 1],
            {3: "take the bowl", 6: "serve the dish"},
        ),
        (
            TOMATO_LETTUCE_SALAD,
            [0, 0, 0, 1, 1, 3, 0, 0, 0, 2, 0, 1, 0, 2, 0, 3, 0, 1, 1],
            {6: "serve the dish"},
        ),
    ],
)
def test_phrases(task, vector, changed):
    level = TOMATO if task is TOMATO_SALAD else LETTUCE
    bits = [0] * 7
    told = prompts.phrases(task, [*vector, *bits])
    assert list(told) == [changed.get(i, phrase) for i, phrase in enumerate(PLAIN[level])]


# --- how it reads


@EVERYWHERE
def test_action_phrases_continue_the_prompt(level, view_radius):
    bare_infinitive = re.compile("(pick up|take|put|walk to|serve|chop) ")
    for state in reachable(level, view_radius).values():
        assert state.prompt.endswith(" is to")
        assert all(bare_infinitive.match(phrase) for phrase in state.actions)
        assert len(set(state.actions)) == len(state.actions)
        assert "  " not in state.prompt


@pytest.mark.parametrize("level", [TOMATO, LETTUCE])
def test_nouns_of_the_best_actions_are_mentioned(level):
    states = reachable(level)
    here = next(iter(states))
    for action in SHORTEST[level]:
        prompt, phrase = states[here].prompt, states[here].actions[action]
        for noun in re.findall("tomato|lettuce|bowl|cutting board|dish", phrase):
            assert noun in prompt
        here = states[here].after[action].there
    assert not states[here].after  # served


def test_prompts_to_read():
    states = reachable(LETTUCE)
    here = next(iter(states))
    assert states[here].prompt == (
        "This kitchen has two cutting boards fixed to the counter. "
        "You can see a tomato, a lettuce and an onion on different tables. "
        "Your hand is empty. "
        "Your goal is to serve this dish: a bowl that contains only chopped tomato and lettuce. "
        "The best next step is to"
    )
    for action in SHORTEST[LETTUCE][:8]:
        here = states[here].after[action].there
    assert states[here].prompt == (
        "This kitchen has two cutting boards fixed to the counter. "
        "On the first cutting board is a chopped tomato. "
        "In your hand is a bowl that contains chopped lettuce, and you stand in front of the second cutting board. "
        "Your goal is to serve this dish: a bowl that contains only chopped tomato and lettuce. "
        "The best next step is to"
    )
