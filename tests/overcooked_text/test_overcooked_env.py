"""The environments' contract: spaces, info, ends, errors, options, saved states; successes and quirks by hand."""

import json
import math
import random
import subprocess
import sys
import warnings
from collections import defaultdict

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.wrappers import RecordEpisodeStatistics

from babyai_text.vector import make_vec_from
from overcooked_text import TomatoSalad
from tests.overcooked_text.kitchens import LETTUCE, SHORTEST, TOMATO, cost, played, reachable

BOTH = pytest.mark.parametrize("level", [TOMATO, LETTUCE])


@BOTH
@pytest.mark.parametrize("render_mode", [None, "ansi", "rgb_array"])
def test_gymnasium_finds_nothing_to_complain_of(level, render_mode):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(level, render_mode=render_mode).unwrapped)


@BOTH
def test_spaces(level):
    env = gym.make(level)
    foods, boards = {TOMATO: (1, 1), LETTUCE: (3, 2)}[level]
    assert env.action_space == gym.spaces.Discrete({TOMATO: 5, LETTUCE: 8}[level])
    high = [6, 6, 3] * foods + [6, 6] * (3 + boards) + [1] * 7
    assert env.observation_space == gym.spaces.Box(0, np.array(high), dtype=np.int64)
    assert all(env.observation_space.contains(np.array(state.observation)) for state in reachable(level).values())


@pytest.mark.parametrize(
    ("level", "first"),
    [
        (TOMATO, [0, 5, 0, 0, 0, 0, 0, 0, 0, 1, 4, 1, 0, 0, 0, 0, 0, 0]),
        (LETTUCE, [0, 5, 0, 1, 6, 0, 2, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 1, 0, 0, 0]),
    ],
)
def test_reset(level, first):
    observation, info = gym.make(level).reset(seed=5)
    assert (observation.tolist(), observation.dtype) == (first, np.int64)
    sums = {"discounted_return", "primitive_steps"}
    assert info.keys() == {"prompt", "actions", "action_ids", "duration", *sums}
    assert info["action_ids"] == list(range(len(info["actions"])))
    assert (info["duration"], info["discounted_return"], info["primitive_steps"]) == (1, 0.0, 0)


@pytest.mark.parametrize(
    ("level", "durations", "discounted"),
    [
        # to the tomato 2, to the board 5, chop 3 (0.2 in step 9), take 1, to the bowl 8 and both touches 2, to the
        # delivery 6 and 1 (1.0 in step 27): 0.2 * 0.99**9 + 0.99**27 - cost(28) = 0.18270 + 0.76234 - 0.02453
        (TOMATO, [2, 5, 3, 1, 10, 7], 0.2 * 0.99**9 + 0.99**27),
        # 2, 5, 3 (0.2 in step 9), lettuce 5, second board 6, chop 3 (0.2 in step 23), bowl 7 + 1, lettuce of the second
        # board 7 + 1, tomato of the first 2, delivery 3 (1.0 in step 44)
        (LETTUCE, [2, 5, 3, 5, 6, 3, 8, 8, 2, 3], 0.2 * 0.99**9 + 0.2 * 0.99**23 + 0.99**44),
    ],
)
def test_shortest_success(level, durations, discounted):
    env = gym.make(level)
    env.reset(seed=0)
    taken = []
    for action in SHORTEST[level]:
        _, reward, terminated, truncated, info = env.step(action)
        taken.append(info["duration"])
        assert (terminated, truncated) == (len(taken) == len(durations), False)
    assert taken == durations
    assert reward == pytest.approx(0.99 ** (durations[-1] - 1) - cost(durations[-1]))
    steps = sum(durations)
    assert (info["discounted_return"], info["primitive_steps"]) == (
        pytest.approx(discounted - cost(steps), abs=1e-12),
        steps,
    )
    # as measured on the published dynamics
    assert (steps, round(info["discounted_return"], 4)) == {TOMATO: (28, 0.9205), LETTUCE: (45, 0.9477)}[level]
    with pytest.raises(gym.error.ResetNeeded, match="call reset"):
        env.unwrapped.step(0)


# --- ends


def test_a_macro_action_is_finished_beyond_the_step_limit():
    env = gym.make(TOMATO)
    env.reset()
    ends = [env.step(action) for action in [0, 3] * 15]  # 2 steps, then 7 each: 198 after the 29th, 205 after the 30th
    assert [end[2:4] for end in ends] == [(False, False)] * 29 + [(False, True)]
    assert ends[-1][4]["primitive_steps"] == 205
    with pytest.raises(gym.error.ResetNeeded):
        env.step(0)
    env.reset()
    assert env.step(0)[2:4] == (False, False)


@pytest.mark.parametrize(
    ("max_steps", "ends"),
    [
        (29, (6, True, False)),
        (28, (6, True, True)),  # the 28th step serves
        (22, (6, True, True)),  # beyond the limit
        (21, (5, False, True)),  # after 21 steps the limit is reached
    ],
)
def test_success_and_step_limit(max_steps, ends):
    env = gym.make(TOMATO, max_steps=max_steps)
    env.reset()
    actions, terminated, truncated, number = iter(SHORTEST[TOMATO]), False, False, 0
    while not (terminated or truncated):
        _, _, terminated, truncated, info = env.step(next(actions))
        number += 1
    assert (number, terminated, truncated) == ends
    assert info["primitive_steps"] == {6: 28, 5: 21}[number]


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
    assert ends[-1][1]["primitive_steps"] == 3 + 1 + 1  # there, then nothing to do


# --- quirks of the published environment


def test_chopping_again_pays_more_than_a_wrong_delivery_costs():
    loop = [0, 2, 4, 0, 3]
    # 2 + 5 + 3 + 1 + 3 steps; the later loops begin with 7 instead of 2. The limit is there to see the return
    info = played(TOMATO, loop * 3, max_steps=14 + 19 + 19)[4]
    chops, wrongs = [9, 28, 47], [13, 32, 51]
    discounted = sum(0.2 * 0.99**step for step in chops) - sum(0.1 * 0.99**step for step in wrongs) - cost(52)
    assert (info["discounted_return"], info["primitive_steps"]) == (pytest.approx(discounted, abs=1e-12), 52)
    assert round(discounted, 4) == 0.1975  # as measured on the published environment


def test_chopped_food_on_a_board_is_still_offered_for_chopping():
    assert played(TOMATO, [0, 2, 4])[4]["actions"][4] == "chop the tomato"


def test_chopped_food_in_hand_is_put_on_the_board_by_walking_there():
    *_, info = played(LETTUCE, [0, 4, 7, 0])
    assert info["actions"][4:6] == ["walk to the first cutting board", "walk to the second cutting board"]
    assert played(LETTUCE, [0, 4, 7, 0, 5])[0][:3].tolist() == [2, 0, 3]


def test_what_is_out_of_view_is_forgotten():
    # the tomato chopped on the board, or at home: from (5, 5) both are the same
    chopped, at_home = played(TOMATO, [0, 2, 4, 1]), played(TOMATO, [1])
    assert data_equivalence(chopped[0], at_home[0])
    assert (chopped[4]["prompt"], chopped[4]["actions"]) == (at_home[4]["prompt"], at_home[4]["actions"])


# --- errors and options


@BOTH
@pytest.mark.parametrize("action", [-1, 8, 1.0, None, "0"])
def test_an_action_that_is_no_id_is_refused(level, action):
    env = gym.make(level)
    env.reset()
    last = {TOMATO: 4, LETTUCE: 7}[level]
    before = env.unwrapped.get_state()
    with pytest.raises(ValueError, match=f"a whole number from 0 to {last}, got"):
        env.step(action)
    assert env.unwrapped.get_state() == before
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
        ("view_radius", 0),
        ("view_radius", 2.0),
        ("max_steps", 0),
        ("max_steps", True),
        ("max_steps", None),
        ("chop_reward", "0.2"),
        ("chop_reward", math.inf),
        ("delivery_reward", None),
        ("delivery_reward", math.nan),
        ("wrong_delivery_penalty", -0.1),  # a penalty is given without its sign
        ("step_cost", -0.001),
        ("step_cost", False),
        ("render_mode", "human"),
    ],
)
def test_a_value_that_is_not_allowed_is_named(option, value):
    with pytest.raises(ValueError, match=f"^{option} must be .*{value!r}"):
        TomatoSalad(**{option: value})


def test_wide_view():
    observation, _ = gym.make(TOMATO, view_radius=10).reset()
    assert observation.tolist() == [0, 5, 0, 6, 5, 1, 0, 3, 0, 1, 4, 1, 0, 0, 0, 0, 0, 0]
    observation, info = gym.make(LETTUCE, view_radius=np.int64(10)).reset()
    assert observation.tolist()[:19] == [0, 5, 0, 1, 6, 0, 2, 6, 0, 6, 5, 1, 0, 2, 0, 3, 0, 1, 4]
    assert "You can see a tomato, a lettuce, an onion and a bowl on different tables." in info["prompt"]


def test_view_of_one_cell_needs_a_longer_walk_to_food_in_the_bowl():
    tomato_in_bowl_on_board = [0, 2, 4, 1, 0, 2, 3]
    # at the delivery: from two rows away the wider view shows the bowl at once
    assert played(TOMATO, [*tomato_in_bowl_on_board, 0])[4]["duration"] == 1
    observation, *_, info = played(TOMATO, [*tomato_in_bowl_on_board, 0], view_radius=1)
    assert (observation[9:11].tolist(), info["duration"]) == ([2, 1], 2)


def test_rewards_and_costs():
    options = {"chop_reward": 2, "delivery_reward": 30.0, "wrong_delivery_penalty": 4, "step_cost": 0.0}
    assert played(TOMATO, [0, 2, 4], **options)[1] == pytest.approx(2 * 0.99**2)
    assert played(TOMATO, [0, 3], **options)[1] == pytest.approx(-4 * 0.99**6)
    assert played(TOMATO, SHORTEST[TOMATO], **options)[1] == pytest.approx(30 * 0.99**6)
    assert played(TOMATO, [0], step_cost=0.5)[1] == pytest.approx(-0.5 - 0.99 * 0.5)


# --- saved states


@BOTH
def test_a_restored_environment_has_the_same_present_and_future(level):
    draws = np.random.default_rng(3)
    for _ in range(20):
        env = gym.make(level).unwrapped
        returned = env.reset()
        for action in draws.integers(0, env.action_space.n, draws.integers(0, 15)).tolist():
            returned = env.step(action)
        saved = json.loads(json.dumps(env.get_state()))
        fresh = gym.make(level).unwrapped
        assert data_equivalence(fresh.set_state(saved), (returned[0], returned[-1]))
        assert fresh.get_state() == saved
        for action in draws.integers(0, env.action_space.n, 100).tolist():
            there, here = fresh.step(action), env.step(action)
            assert data_equivalence(there, here)
            if here[2] or here[3]:
                break
        assert here[2] or here[3]


def test_a_saved_state_does_not_change_with_the_episode():
    env = gym.make(TOMATO).unwrapped
    env.reset()
    saved = env.get_state()
    written = json.dumps(saved)
    for action in SHORTEST[TOMATO]:
        env.step(action)
    env.set_state(saved)
    env.step(0)
    assert json.dumps(saved) == written


def test_a_saved_end_is_an_end():
    env = gym.make(TOMATO).unwrapped
    env.reset()
    for action in SHORTEST[TOMATO]:
        *_, info = env.step(action)
    _, restored = env.set_state(json.loads(json.dumps(env.get_state())))
    assert restored == info
    with pytest.raises(gym.error.ResetNeeded):
        env.step(0)


def test_a_state_of_the_other_task_is_refused():
    env = gym.make(LETTUCE).unwrapped
    env.reset()
    with pytest.raises(ValueError, match="saved in tomato-lettuce salad, it does not fit tomato salad"):
        gym.make(TOMATO).unwrapped.set_state(env.get_state())


# --- manners


def test_seeds_change_nothing_and_the_global_generators_are_left_alone():
    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist()
    assert data_equivalence(played(LETTUCE, SHORTEST[LETTUCE]), played(LETTUCE, SHORTEST[LETTUCE]))
    env = gym.make(LETTUCE)
    assert data_equivalence(env.reset(seed=1), env.reset(seed=2))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_the_package_needs_only_gymnasium_and_numpy_and_prints_nothing():
    code = (
        "import sys, gymnasium, overcooked_text\n"
        f"env = gymnasium.make({LETTUCE!r}, render_mode='rgb_array')\n"
        "env.reset(seed=0), env.step(0), env.render(), env.close()\n"
        "foreign = {'torch', 'PIL', 'matplotlib', 'babyai_text', 'virtualhome_text', 'experiments', 'lamorel'}\n"
        "sys.exit(str(foreign & {name.split('.')[0] for name in sys.modules}) if foreign & set(sys.modules) else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_vector_environment():
    envs = make_vec_from([lambda: gym.make(TOMATO)] * 2, seeds=[0, 1])
    envs.reset()
    for step in range(6):
        observations, rewards, terminated, _, infos = envs.step(np.array([SHORTEST[TOMATO][step], 1]))
    assert (terminated.tolist(), rewards[0] > 0.9) == ([True, False], True)
    assert infos["final_info"]["primitive_steps"][0] == 28
    assert observations[0].tolist()[9:11] == [1, 4]  # the next episode
    saved = json.loads(json.dumps(envs.get_state()))
    after = envs.step(np.array([0, 0]))
    envs.set_state(saved)
    assert data_equivalence(envs.step(np.array([0, 0])), after)


# --- rates of the uniform policy


UNIFORM = {TOMATO: (0.447, -0.096), LETTUCE: (0.011, -0.231)}  # success, return; of 3,000 published episodes each


@BOTH
def test_exact_rates_of_the_uniform_policy(level):
    """Success and mean discounted return, summed over all states and primitive steps; the README has them."""
    states = reachable(level)
    probability = defaultdict(float, {(0, next(iter(states))): 1.0})
    success = returned = 0.0
    for step in range(200):
        for here in [key for at, key in probability if at == step]:
            weight = probability.pop((step, here)) / len(states[here].after)
            for move in states[here].after:
                returned += weight * 0.99**step * move.reward
                if move.success:
                    success += weight
                else:
                    probability[step + move.duration, move.there] += weight
    published, _ = UNIFORM[level]
    assert success == pytest.approx(published, abs=3 * math.sqrt(published * (1 - published) / 3000))
    assert (round(success, 4), round(returned, 4)) == {TOMATO: (0.442, -0.0964), LETTUCE: (0.0102, -0.228)}[level]


@pytest.mark.slow
@BOTH
def test_rates_of_the_uniform_policy(level):
    env, draws = gym.make(level), np.random.default_rng(7)
    successes, returns = [], []
    for _ in range(3000):
        env.reset()
        ended = False
        while not ended:
            _, _, terminated, truncated, info = env.step(draws.integers(env.action_space.n))
            ended = terminated or truncated
        successes.append(terminated)
        returns.append(info["discounted_return"])
    success, mean = UNIFORM[level]
    assert np.mean(successes) == pytest.approx(success, abs=3 * math.sqrt(success * (1 - success) / 3000))
    assert np.mean(returns) == pytest.approx(mean, abs=3 * np.std(returns) / math.sqrt(3000))
