"""The environments' contract: spaces, info, ends, errors, options, saved states; successes and quirks by hand."""

import json
import random
import subprocess
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.wrappers import RecordEpisodeStatistics

from tests.virtualhome_text.states import ENTERTAINMENT, FOOD, distances, played, reachable
from virtualhome_text import FoodPreparation
from virtualhome_text.household import Household

BOTH = pytest.mark.parametrize("level", [FOOD, ENTERTAINMENT])
SHORTEST = {FOOD: [4, 6, 5, 8, 7, 9], ENTERTAINMENT: [0, 7, 13, 1, 4, 9, 5, 10, 0, 8, 15]}
LIVING_ROOM = [0, 0, 0, 1]


@BOTH
@pytest.mark.parametrize("render_mode", [None, "ansi", "rgb_array"])
def test_gymnasium_finds_nothing_to_complain_of(level, render_mode):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(level, render_mode=render_mode).unwrapped)


# 0.95**5 = 0.7737809375, 0.95**10 = 0.5987369392383787
@pytest.mark.parametrize(("level", "discounted"), [(FOOD, 0.7737809375), (ENTERTAINMENT, 0.5987369392383787)])
def test_shortest_success(level, discounted):
    env = gym.make(level)
    _, info = env.reset(seed=0)
    assert (info["duration"], info["succeed"], info["discounted_return"], info["primitive_steps"]) == (1, True, 0.0, 0)
    *before, last = SHORTEST[level]
    for action in before:
        assert action in info["action_ids"]
        _, reward, terminated, truncated, info = env.step(action)
        assert (reward, terminated, truncated, info["succeed"], info["duration"]) == (0.0, False, False, True, 1)
    _, reward, terminated, truncated, info = env.step(last)
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert info["discounted_return"] == pytest.approx(discounted, abs=1e-12)
    assert info["primitive_steps"] == len(before) + 1
    with pytest.raises(gym.error.ResetNeeded, match="call reset"):
        env.unwrapped.step(0)


@BOTH
def test_no_success_is_shorter(level):
    states = reachable(level, every_action=True)
    reached, steps = {next(iter(states))}, 0
    while not any(states[key].reward for key in reached):
        reached, steps = {after for key in reached for after in states[key].after.values()}, steps + 1
    assert steps == {FOOD: 6, ENTERTAINMENT: 11}[level]


@pytest.mark.parametrize(
    ("level", "every_action", "states", "observations"),
    # by offered actions as counted on the simulator itself
    [(FOOD, False, 45, 18), (ENTERTAINMENT, False, 315, 97), (FOOD, True, 51, 18), (ENTERTAINMENT, True, 814, 209)],
)
def test_number_of_reachable_states_before_success(level, every_action, states, observations):
    found = [state for state in reachable(level, every_action).values() if not state.reward]
    assert (len(found), len({state.observation for state in found})) == (states, observations)


# --- ends


@BOTH
def test_step_limit_truncates(level):
    env = gym.make(level)
    env.reset()
    ends = [env.step(2)[2:4] for _ in range(50)]
    assert ends == [(False, False)] * 49 + [(False, True)]
    with pytest.raises(gym.error.ResetNeeded):
        env.step(2)
    env.reset()
    assert env.step(2)[2:4] == (False, False)


@BOTH
def test_success_on_the_last_step_sets_both_flags(level):
    steps = len(SHORTEST[level])
    _, reward, terminated, truncated, info = played(level, SHORTEST[level], max_steps=steps)
    assert (reward, terminated, truncated, info["primitive_steps"]) == (1.0, True, True, steps)


def test_failed_episode_returns_nothing():
    info = played(FOOD, [2, 2, 2], max_steps=3)[4]
    assert (info["discounted_return"], info["primitive_steps"]) == (0.0, 3)


@BOTH
def test_gymnasiums_wrappers_count_an_episode_and_cut_it_short(level):
    """RecordEpisodeStatistics has info["episode"] for itself; under a TimeLimit, too, the episode's sums are told."""
    env = RecordEpisodeStatistics(gym.make(level))
    env.reset()
    rewards, ended = [], False
    while not ended:
        _, reward, terminated, truncated, info = env.step(2)
        rewards, ended = [*rewards, reward], terminated or truncated
    assert (info["episode"]["r"], info["episode"]["l"]) == (pytest.approx(sum(rewards)), len(rewards))
    env = gym.make(level, max_episode_steps=3)
    env.reset()
    ends = [env.step(2)[3:] for _ in range(3)]
    assert [truncated for truncated, _ in ends] == [False, False, True]
    assert ends[-1][1]["primitive_steps"] == 3


# --- quirks of the published environment


def test_walking_to_the_pancake_in_hand_leads_to_the_room_before():
    bedroom_then_kitchen = [4, 6, 3, 1]
    observation, _, _, _, info = played(FOOD, bedroom_then_kitchen)
    assert observation.tolist() == [1, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0]
    assert 4 in info["action_ids"]
    observation, _, _, _, info = played(FOOD, [*bedroom_then_kitchen, 4])
    assert observation.tolist() == [0, 0, 1, 0, 1, 1, 1, 0, 0, 0, 0]
    assert info["succeed"]
    # its room is the kitchen now, the one before that walk
    assert played(FOOD, [*bedroom_then_kitchen, 4, 4])[0].tolist()[:4] == [1, 0, 0, 0]


def test_lonely_milk_offers_only_the_walk_to_the_chips_which_fails():
    chips_on_table_then_kitchen = [4, 9, 0, 6, 11, 1]
    observation, _, _, _, info = played(ENTERTAINMENT, chips_on_table_then_kitchen)
    assert info["action_ids"] == [0, 2, 3, 4]
    after, _, _, _, info = played(ENTERTAINMENT, [*chips_on_table_then_kitchen, 4])
    assert (after.tolist(), info["succeed"]) == (observation.tolist(), False)


def test_an_item_left_on_the_table_before_the_other_is_fetched_is_a_dead_end():
    states = reachable(ENTERTAINMENT)
    succeeding = distances(states)
    here = next(iter(states))
    for action in [4, 9, 0, 6, 11]:
        assert here in succeeding
        here = states[here].after[action]
    assert here not in succeeding


def test_sitting_is_a_trap():
    env = gym.make(ENTERTAINMENT)
    env.reset()
    for action in [0, 7, 13, 8, 15]:
        before, reward, *_, info = env.step(action)
    assert (reward, info["succeed"], info["action_ids"]) == (0.0, True, [1, 2, 3])
    for step in range(6, 51):
        observation, reward, terminated, truncated, info = env.step(1 + step % 3)
        assert (observation.tolist(), reward, info["succeed"]) == (before.tolist(), 0.0, False)
        assert (terminated, truncated) == (False, step == 50)


def test_standing_up_is_offered_only_to_those_who_stand():
    _, _, _, _, info = played(ENTERTAINMENT, [0, 7, 13, 8])
    assert info["action_ids"] == [1, 2, 3, 6, 7, 15, 16]
    assert not played(ENTERTAINMENT, [0, 7, 13, 8, 16])[4]["succeed"]


def test_the_sofa_remembers_who_sat_on_it():
    # chips, milk, TV, sofa: [see, close, held, on table] twice, [see, close, faced, on], [see, close, sat on], table
    stood_up = played(ENTERTAINMENT, [0, 8, 15, 16])
    assert stood_up[4]["succeed"]
    assert stood_up[0].tolist() == [*LIVING_ROOM, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 1, 1, 1, 1, 0]
    assert stood_up[4]["action_ids"] == [1, 2, 3]
    back_again = played(ENTERTAINMENT, [0, 8, 15, 16, 1, 0])
    assert back_again[0].tolist() == [*LIVING_ROOM, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, 1, 0]


def test_table_with_empty_hands_offers_only_the_way_out():
    assert played(ENTERTAINMENT, [0, 6])[4]["action_ids"] == [1, 2, 3]


def test_full_hands_cannot_switch_the_tv_on():
    at_the_tv = [4, 9, 5, 10, 0, 7]
    assert played(ENTERTAINMENT, at_the_tv)[4]["action_ids"] == [1, 2, 3, 6, 8, 13, 14]
    observation, _, _, _, info = played(ENTERTAINMENT, [*at_the_tv, 13])
    assert (observation[15], info["succeed"]) == (0, False)
    observation, _, _, _, info = played(ENTERTAINMENT, [4, 9, 0, 7, 13])
    assert (observation[15], info["succeed"]) == (1, True)


@pytest.mark.parametrize(
    ("level", "actions"),
    [
        (FOOD, [7]),  # not in hand
        (FOOD, [6]),  # not close
        (FOOD, [4, 6, 5, 7]),  # closed
        (FOOD, [5, 9]),  # closed already
        (FOOD, [5, 8, 8]),  # open already
        (FOOD, [2, 5]),  # out of sight
        (FOOD, [4, 6, 6]),  # in hand already
        (ENTERTAINMENT, [0, 7, 14]),  # off already
        (ENTERTAINMENT, [0, 15]),  # not close
        (ENTERTAINMENT, [4, 9, 0, 11]),  # not close to the table
        (ENTERTAINMENT, [0, 8, 15, 15]),  # sits already
    ],
)
def test_what_cannot_be_done_changes_nothing(level, actions):
    *before, last = actions
    env = gym.make(level).unwrapped
    env.reset()
    for action in before:
        env.step(action)
    household = env.get_state()["household"]
    assert not env.step(last)[4]["succeed"]
    assert env.get_state()["household"] == household


def test_an_item_can_be_grabbed_through_the_table_it_lies_on():
    on_the_table = [4, 9, 0, 6, 11]
    observation, *_ = played(ENTERTAINMENT, [*on_the_table, 8, 6])
    assert observation.tolist()[4:8] == [1, 0, 0, 1]  # seen, not close itself, on the table
    observation, *_, info = played(ENTERTAINMENT, [*on_the_table, 8, 6, 9])
    assert (info["succeed"], observation.tolist()[4:8]) == (True, [1, 1, 1, 0])


def test_the_microwave_opens_to_a_free_hand_and_closes_without():
    home = Household({"microwave": "kitchen"}, {"chips": "kitchen", "milk": "kitchen", "pancake": "kitchen"})
    for name in ("chips", "milk"):
        assert home.act("walk", (name,))
        assert home.act("grab", (name,))
    assert home.act("walk", ("pancake",))
    assert not home.act("grab", ("pancake",))
    assert home.act("walk", ("microwave",))
    assert not home.act("open", ("microwave",))
    home.microwave_open = True
    assert home.act("close", ("microwave",))
    home.microwave_open = True
    assert home.act("put", ("chips", "microwave"))
    assert home.act("close", ("microwave",))
    assert home.act("open", ("microwave",))


# --- errors and options


@BOTH
@pytest.mark.parametrize("action", [-1, 17, 1.0, None, "0"])
def test_an_action_that_is_no_id_is_refused(level, action):
    env = gym.make(level)
    env.reset()
    last = {FOOD: 9, ENTERTAINMENT: 16}[level]
    with pytest.raises(ValueError, match=f"a whole number from 0 to {last}, got"):
        env.step(action)
    env.step(np.int64(last))  # the episode goes on


@BOTH
def test_step_and_state_need_a_reset(level):
    with pytest.raises(gym.error.ResetNeeded):
        gym.make(level).step(0)
    with pytest.raises(gym.error.ResetNeeded, match="call reset"):
        gym.make(level).unwrapped.step(0)
    with pytest.raises(gym.error.ResetNeeded, match="call reset"):
        gym.make(level).unwrapped.get_state()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("wording", "2023"),
        ("wording", None),
        ("max_steps", 0),
        ("max_steps", 2.5),
        ("max_steps", True),
        ("max_steps", None),
        ("render_mode", "human"),
    ],
)
def test_a_value_that_is_not_allowed_is_named(option, value):
    with pytest.raises(ValueError, match=f"^{option} must be .*{value!r}"):
        FoodPreparation(**{option: value})


def test_older_wording():
    new, old = (
        {a: phrase for s in states.values() for a, phrase in zip(s.action_ids, s.actions, strict=True)}
        for states in map(reachable, (FOOD, ENTERTAINMENT))
    )
    assert {i: new[i] for i in range(4, 10)} == {
        4: "walk to the pancake",
        5: "walk to the microwave",
        6: "grab the pancake",
        7: "put the pancake in the microwave",
        8: "open the microwave",
        9: "close the microwave",
    }
    assert list(map(old.get, range(17))) == [
        "walk to the living room",
        "walk to the kitchen",
        "walk to the bathroom",
        "walk to the bedroom",
        "walk to the chips",
        "walk to the milk",
        "walk to the coffee table",
        "walk to the TV",
        "walk to the sofa",
        "grab the chips",
        "grab the milk",
        "put the chips on the coffee table",
        "put the milk on the coffee table",
        "turn on the TV",
        "turn off the TV",
        "sit on the sofa",
        "stand up from the sofa",
    ]


def phrases(level, actions, wording):
    info = played(level, actions, wording=wording)[4]
    return dict(zip(info["action_ids"], info["actions"], strict=True)), info["prompt"]


@pytest.mark.parametrize(
    ("level", "actions", "older"),
    [
        (FOOD, [1], {4: "reach for the pancake", 5: "move to the microwave"}),
        (ENTERTAINMENT, [1], {4: "reach for the chips", 5: "reach for the milk"}),
        (ENTERTAINMENT, [0], {6: "move to the coffee table", 7: "move to the TV", 8: "move to the sofa"}),
        (
            ENTERTAINMENT,
            [0, 7, 13, 8],
            {6: "move to the coffee table", 7: "move to the TV", 15: "take a seat on the sofa"},
        ),
    ],
)
def test_wording_of_september_2023(level, actions, older):
    then, prompt_then = phrases(level, actions, "2023-09")
    now, prompt_now = phrases(level, actions, "2023-10")
    assert then == now | older
    assert list(then) == list(now)
    assert set(older.values()).isdisjoint(now.values())
    assert prompt_then == prompt_now


# --- saved states


@BOTH
def test_a_restored_environment_has_the_same_present_and_future(level):
    draws = np.random.default_rng(3)
    for _ in range(20):
        env = gym.make(level, max_steps=30).unwrapped
        returned = env.reset()
        for action in draws.integers(0, env.action_space.n, draws.integers(0, 30)).tolist():
            returned = env.step(action)
        saved = json.loads(json.dumps(env.get_state()))
        fresh = gym.make(level, max_steps=30).unwrapped
        assert data_equivalence(fresh.set_state(saved), (returned[0], returned[-1]))
        assert fresh.get_state() == saved
        for action in draws.integers(0, env.action_space.n, 30).tolist():
            there, here = fresh.step(action), env.step(action)
            assert data_equivalence(there, here)
            if here[2] or here[3]:
                break


def test_an_ended_episode_is_saved_as_ended():
    env, fresh = gym.make(FOOD).unwrapped, gym.make(FOOD).unwrapped
    env.reset()
    for action in SHORTEST[FOOD]:
        env.step(action)
    _, info = fresh.set_state(env.get_state())
    assert info["primitive_steps"] == 6
    with pytest.raises(gym.error.ResetNeeded):
        fresh.step(0)


def test_a_state_of_the_other_task_is_refused():
    food, entertainment = gym.make(FOOD).unwrapped, gym.make(ENTERTAINMENT).unwrapped
    food.reset()
    entertainment.reset()
    before = entertainment.get_state()
    with pytest.raises(ValueError, match="saved in food preparation, it does not fit entertainment"):
        entertainment.set_state(food.get_state())
    assert entertainment.get_state() == before


# --- what is not touched


@BOTH
def test_global_generators_and_the_terminal_are_left_alone(level, capsys):
    random.seed(5)
    np.random.seed(5)
    plain, numpys = random.getstate(), np.random.get_state()
    env = gym.make(level, render_mode="rgb_array")
    env.reset(seed=1)
    env.step(4)
    env.render()
    env.close()
    assert random.getstate() == plain
    assert data_equivalence(np.random.get_state(), numpys)
    assert capsys.readouterr() == ("", "")


def test_seeds_and_changed_infos_change_nothing():
    env = gym.make(ENTERTAINMENT)
    observation, first = env.reset(seed=1)
    first["actions"].clear()
    first["action_ids"].clear()
    observation[:] = 7
    _, again = env.reset(seed=2)
    assert again["action_ids"] == [0, 2, 3, 4, 5]
    assert len(again["actions"]) == 5


def test_neither_torch_nor_the_drawing_library_is_imported():
    code = (
        "import sys, virtualhome_text; sys.exit(bool({'torch', 'PIL', 'experiments', 'babyai_text'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- rates


@pytest.mark.parametrize(("level", "success"), [(FOOD, 0.0150), (ENTERTAINMENT, 0.0030)])
def test_exact_success_of_the_uniform_policy(level, success):
    """All its probability followed for 50 steps. Published, from samples: 0.017 and 0.0036."""
    states = reachable(level)
    at, won = {next(iter(states)): 1.0}, 0.0
    for _ in range(50):
        then: dict[str, float] = {}
        for key, probability in at.items():
            after = states[key].after
            for there in after.values():
                then[there] = then.get(there, 0.0) + probability / len(after)
        won += sum(probability for key, probability in then.items() if states[key].reward)
        at = {key: probability for key, probability in then.items() if not states[key].reward}
    assert won == pytest.approx(success, abs=5e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("level", "published"), [(FOOD, 0.017), (ENTERTAINMENT, 0.0036)])
def test_success_of_random_offered_actions(level, published):
    episodes = 3000
    draws = np.random.default_rng(0)
    env = gym.make(level)
    successes = 0
    for _ in range(episodes):
        _, info = env.reset()
        ended = False
        while not ended:
            _, reward, terminated, truncated, info = env.step(draws.choice(info["action_ids"]))
            ended = terminated or truncated
        successes += reward > 0
    standard_error = (published * (1 - published) / episodes) ** 0.5
    assert abs(successes / episodes - published) < 3 * standard_error
