"""Macro-actions: each rule by hand, and all of them in every reachable state against another form of the rules."""

import heapq

import pytest

from overcooked_text.kitchen import Event, Kitchen
from overcooked_text.tasks import TOMATO_SALAD
from tests.overcooked_text.closed_form import jumps
from tests.overcooked_text.kitchens import LETTUCE, TOMATO, cost, played, reachable

# vectors, tomato salad: tomato row, column, chops; bowl; board; delivery; agent
# tomato-lettuce salad: tomato, lettuce, onion, each with chops; bowl; first, second board; delivery; agent
TASK_BITS = {TOMATO: [1, 0, 0, 0, 0, 0, 0], LETTUCE: [0, 0, 0, 1, 0, 0, 0]}
CHOP, RIGHT, WRONG = 0.2, 1.0, -0.1

AT_BOARD = [1, 0, 3, 0, 1, 1]  # board, delivery and agent as seen in front of the (first) board of the tomato salad
AT_BOARDS = [1, 0, 2, 0, 3, 0]  # both boards and the delivery
UNSEEN = [0, 0, 0]


@pytest.mark.parametrize(
    ("actions", "duration", "bonus", "seen"),
    [
        # get, from the start (1, 4): one to the right, one touch
        ([0], 2, 0, [1, 5, 0, 0, 0, 0, 0, 0, 0, 1, 5]),
        ([0, 0], 1, 0, [1, 5, 0, 0, 0, 0, 0, 0, 0, 1, 5]),  # in hand already
        ([1], 6, 0, [0, 0, 0, 5, 5, 0, 0, 0, 0, 5, 5]),  # four down, one right, one touch
        ([1, 1], 1, 0, [0, 0, 0, 5, 5, 0, 0, 0, 0, 5, 5]),
        ([1, 0], 5, 0, [0, 5, 0, 1, 5, 0, 0, 0, 0, 1, 5]),  # four up and a touch that does nothing: the hand is full
        ([0, 1], 5, 0, [5, 5, 0, 6, 5, 0, 0, 0, 0, 5, 5]),  # four down, idle: tomato not chopped
        ([0, 1, 1], 1, 0, [5, 5, 0, 6, 5, 0, 0, 0, 0, 5, 5]),
        # board and delivery with an empty hand: no touch
        ([2], 3, 0, [0, 0, 0, 0, 0, *AT_BOARD]),
        ([2, 2], 1, 0, [0, 0, 0, 0, 0, *AT_BOARD]),
        ([3], 5, 0, [0, 0, 0, 0, 0, 1, 0, 3, 0, 3, 1]),
        ([3, 3], 1, 0, [0, 0, 0, 0, 0, 1, 0, 3, 0, 3, 1]),
        # chop: nothing there; after placing (four left, one touch) three touches; chopped already
        ([4], 1, 0, [0, 5, 0, 0, 0, 0, 0, 0, 0, 1, 4]),
        ([2, 4], 1, 0, [0, 0, 0, 0, 0, *AT_BOARD]),
        ([0, 2], 5, 0, [1, 0, 0, 0, 0, *AT_BOARD]),
        ([0, 2, 4], 3, CHOP, [1, 0, 3, 0, 0, *AT_BOARD]),
        ([0, 2, 4, 4], 1, 0, [1, 0, 3, 0, 0, *AT_BOARD]),
        ([0, 2, 3, 4], 1, 0, [1, 0, 0, 0, 0, 1, 0, 3, 0, 3, 1]),  # not in front of the board
        # what lies on the board
        ([0, 2, 0], 1, 0, [1, 0, 0, 0, 0, *AT_BOARD]),  # not chopped: getting it does not chop it
        ([0, 2, 1, 0], 8, 0, [1, 0, 0, 1, 1, *AT_BOARD]),  # the same from afar, with the bowl
        ([0, 2, 1, 2], 9, 0, [1, 0, 0, 1, 1, *AT_BOARD]),  # the bowl cannot be put on it, either
        ([0, 2, 1, 2, 4], 3, 0, [1, 0, 0, 1, 1, *AT_BOARD]),  # three touches with a full hand
        ([0, 2, 4, 0], 1, 0, [1, 1, 3, 0, 0, *AT_BOARD]),  # chopped: taken
        ([0, 2, 4, 0, 2], 1, 0, [1, 0, 3, 0, 0, *AT_BOARD]),  # and put back
        ([0, 2, 4, 1, 0], 9, 0, [1, 1, 3, 1, 1, *AT_BOARD]),  # eight steps, then it goes into the held bowl
        ([0, 2, 4, 1, 2], 9, 0, [1, 1, 3, 1, 1, *AT_BOARD]),
        ([0, 2, 4, 1, 0, 0], 1, 0, [1, 1, 3, 1, 1, *AT_BOARD]),  # in the held bowl
        ([1, 2], 9, 0, [0, 0, 0, 1, 0, *AT_BOARD]),  # an empty bowl on the board
        ([1, 2, 1], 1, 0, [0, 0, 0, 1, 1, *AT_BOARD]),
        ([1, 2, 4], 1, 0, [0, 0, 0, 1, 0, *AT_BOARD]),  # is nothing to chop
        ([1, 2, 0, 2], 5, 0, [1, 1, 0, 1, 0, *AT_BOARD]),  # and takes nothing that is not chopped
        ([1, 2, 0, 1], 5, 0, [1, 1, 0, 1, 0, *AT_BOARD]),  # four steps, idle
        ([0, 2, 4, 1, 0, 2], 1, 0, [1, 0, 3, 1, 0, *AT_BOARD]),  # a bowl with contents
        ([0, 2, 4, 1, 0, 2, 0], 1, 0, [1, 0, 3, 1, 0, *AT_BOARD]),  # which are seen in it
        ([0, 2, 4, 1, 0, 2, 1], 1, 0, [1, 1, 3, 1, 1, *AT_BOARD]),
        # chopped food in hand: eight steps, into the bowl, pick that up
        ([0, 2, 4, 0, 1], 10, 0, [5, 5, 3, 5, 5, 0, 0, 0, 0, 5, 5]),
        # deliveries: two down, four left, one touch; everything goes home, the next time to be chopped again
        ([0, 3], 7, WRONG, [0, 0, 0, 0, 0, 1, 0, 3, 0, 3, 1]),
        ([0, 3, 0], 7, 0, [1, 5, 0, 0, 0, 0, 0, 0, 0, 1, 5]),
        ([1, 3], 7, WRONG, [0, 0, 0, 0, 0, 1, 0, 3, 0, 3, 1]),
        ([1, 3, 1], 7, 0, [0, 0, 0, 5, 5, 0, 0, 0, 0, 5, 5]),
        ([0, 2, 4, 0, 3], 3, WRONG, [0, 0, 0, 0, 0, 1, 0, 3, 0, 3, 1]),
        ([0, 2, 4, 0, 3, 0], 7, 0, [1, 5, 0, 0, 0, 0, 0, 0, 0, 1, 5]),
        ([0, 2, 4, 0, 1, 3], 7, RIGHT, [3, 0, 3, 3, 0, 1, 0, 3, 0, 3, 1]),
    ],
)
def test_tomato_salad(actions, duration, bonus, seen):
    check(TOMATO, actions, duration, bonus, seen)


BOARDS_SEEN_AT_FIRST, BOARDS_SEEN_AT_SECOND = [*AT_BOARDS, 1, 1], [*AT_BOARDS, 2, 1]


@pytest.mark.parametrize(
    ("actions", "duration", "bonus", "seen"),
    [
        # one right, one touch: three foods in view, one of them in hand
        ([1], 2, 0, [0, 5, 0, 1, 5, 0, 2, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 5]),
        ([2], 3, 0, [0, 5, 0, 1, 6, 0, 2, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 5]),
        ([2, 1], 2, 0, [0, 5, 0, 1, 6, 0, 1, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 5]),  # the hand is full
        # onions earn nothing: five steps to the first board (one up, four left, touch is the sixth)
        ([2, 4], 6, 0, [*UNSEEN, *UNSEEN, 1, 0, 0, 0, 0, *BOARDS_SEEN_AT_FIRST]),
        ([2, 4, 7], 3, 0, [*UNSEEN, *UNSEEN, 1, 0, 3, 0, 0, *BOARDS_SEEN_AT_FIRST]),
        ([1, 5], 6, 0, [*UNSEEN, 2, 0, 0, *UNSEEN, 0, 0, *BOARDS_SEEN_AT_SECOND]),
        ([1, 5, 7], 3, CHOP, [*UNSEEN, 2, 0, 3, *UNSEEN, 0, 0, *BOARDS_SEEN_AT_SECOND]),
        ([0, 4, 7, 0, 5], 2, 0, [2, 0, 3, *UNSEEN, *UNSEEN, 0, 0, *BOARDS_SEEN_AT_SECOND]),  # to the other board
        # a board with food takes no other food
        ([0, 4, 1, 4], 5, 0, [1, 0, 0, 1, 1, 0, *UNSEEN, 0, 0, *BOARDS_SEEN_AT_FIRST]),
        ([0, 4, 7, 1, 4], 5, 0, [1, 0, 3, 1, 1, 0, *UNSEEN, 0, 0, *BOARDS_SEEN_AT_FIRST]),
        ([0, 4, 7, 0, 5, 1, 4, 7, 1, 5], 2, 0, [2, 0, 3, 2, 1, 3, *UNSEEN, 0, 0, *BOARDS_SEEN_AT_SECOND]),
        # chopped tomato in hand, the bowl on the second board: one down, the bowl comes to hand with the touch, idle
        ([3, 5, 0, 4, 7, 0, 3], 3, 0, [2, 1, 3, *UNSEEN, *UNSEEN, 2, 1, *BOARDS_SEEN_AT_SECOND]),
        ([3, 5, 0, 4, 7, 0, 5], 2, 0, [2, 1, 3, *UNSEEN, *UNSEEN, 2, 1, *BOARDS_SEEN_AT_SECOND]),
        # the same, and on: bowl with tomato to the board again, lettuce, then the tomato: its bowl comes into view from
        # (2, 2), one down and three left; idle
        (
            [3, 5, 0, 4, 7, 0, 5, 5, 1, 0],
            5,
            0,
            [2, 0, 3, 2, 2, 0, *UNSEEN, 2, 0, *AT_BOARDS, 2, 2],
        ),
        # served with a food too few, one too many, and right
        ([0, 4, 7, 0, 3, 6], 7, WRONG, [*UNSEEN, *UNSEEN, *UNSEEN, 0, 0, *AT_BOARDS, 3, 1]),
        (
            [0, 4, 7, 1, 5, 7, 3, 1, 0, 5, 2, 4, 7, 2, 5, 6],
            2,
            WRONG,
            [*UNSEEN, *UNSEEN, *UNSEEN, 0, 0, *AT_BOARDS, 3, 1],
        ),
        ([0, 4, 7, 1, 5, 7, 3, 1, 0, 6], 3, RIGHT, [3, 0, 3, 3, 0, 3, *UNSEEN, 3, 0, *AT_BOARDS, 3, 1]),
    ],
)
def test_tomato_lettuce_salad(actions, duration, bonus, seen):
    check(LETTUCE, actions, duration, bonus, seen)


def check(level, actions, duration, bonus, seen):
    """All that a macro-action earns or pays beyond its steps comes with its last one."""
    observation, reward, terminated, truncated, info = played(level, actions)
    assert observation.tolist() == seen + TASK_BITS[level]
    assert info["duration"] == duration
    assert reward == pytest.approx(bonus * 0.99 ** (duration - 1) - cost(duration), abs=1e-12)
    assert (terminated, truncated) == (bonus == RIGHT, False)


def test_after_a_wrong_bowl_everything_is_at_home_and_whole():
    wrong = [0, 4, 7, 0, 3, 6]
    again = played(LETTUCE, [*wrong, 3])[0].tolist()
    assert again[9:11] == [5, 5]  # the bowl, taken from its counter, without the tomato
    assert played(LETTUCE, [*wrong, 0])[0].tolist()[:3] == [1, 5, 0]


def test_touches_that_no_macro_action_makes():
    kitchen = Kitchen(TOMATO_SALAD)
    kitchen.set_state({"agent": [5, 5], "place": {"tomato": "hand", "bowl": [6, 5]}, "chops": {"tomato": 3}})
    assert kitchen.touch((6, 5)) is Event.NOTHING
    assert (kitchen.held, kitchen.contents, kitchen.place["bowl"]) == (None, ("tomato",), (6, 5))
    assert kitchen.touch((3, 0)) is Event.NOTHING  # nothing to serve
    kitchen.touch((6, 5))
    assert (kitchen.held, kitchen.contents) == ("bowl", ("tomato",))
    kitchen.touch((6, 5))  # an empty counter
    assert kitchen.held == "bowl"


@pytest.mark.parametrize(("level", "states", "observations"), [(TOMATO, 24, 21), (LETTUCE, 1156, 801)])
def test_number_of_reachable_states_before_success(level, states, observations):
    found = [state for state in reachable(level).values() if state.after]
    assert (len(found), len({state.observation for state in found})) == (states, observations)


@pytest.mark.parametrize(("level", "radius"), [(TOMATO, 1), (TOMATO, 2), (LETTUCE, 1), (LETTUCE, 2), (LETTUCE, 10)])
def test_every_action_in_every_state_does_what_the_closed_form_says(level, radius):
    states = reachable(level, radius)
    first = next(iter(states))
    twins, waiting = {first: jumps(level, radius)}, [first]
    while waiting:
        here = waiting.pop()
        assert list(states[here].observation) == twins[here].vector()
        for action, move in enumerate(states[here].after):
            twin = twins[here].copy()
            reward, duration, success = twin.macro(action)
            assert (duration, success) == (move.duration, move.success)
            assert reward == pytest.approx(move.reward, abs=1e-12)
            if move.there not in twins:
                twins[move.there] = twin
                waiting.append(move.there)
            else:
                assert twin.vector() == twins[move.there].vector()
    assert twins.keys() == states.keys()


@pytest.mark.parametrize(("level", "steps"), [(TOMATO, 28), (LETTUCE, 45)])
def test_no_success_takes_fewer_primitive_steps(level, steps):
    states = reachable(level)
    waiting, done = [(0, next(iter(states)))], set()
    while waiting:
        taken, here = heapq.heappop(waiting)
        if not states[here].after:
            assert taken == steps
            return
        if here not in done:
            done.add(here)
            for move in states[here].after:
                heapq.heappush(waiting, (taken + move.duration, move.there))
    pytest.fail("no success is reachable")


@pytest.mark.parametrize("level", [TOMATO, LETTUCE])
def test_longest_macro_action(level):
    durations = [move.duration for state in reachable(level).values() for move in state.after]
    assert (min(durations), max(durations)) == (1, 10)
