"""Levels: recorded episodes, the order of random draws, what missions may name, and when they succeed."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gymnasium.utils import seeding
from minigrid.core.grid import Grid
from minigrid.core.world_object import Ball, Box, Key
from minigrid.envs.babyai.core.verifier import (
    ActionInstr,
    AfterInstr,
    BeforeInstr,
    GoToInstr,
    ObjDesc,
    PickupInstr,
    PutNextInstr,
)
from minigrid.utils.baby_ai_bot import BabyAIBot

import babyai_text
from babyai_text.levels import HELD_OUT, TASKS

GOLDEN = Path(__file__).parents[1] / "golden"
LEFT, RIGHT, FORWARD, PICKUP, DROP, TOGGLE, DONE = range(7)
TRAIN, TEST = "BabyAI-MixedTrainLocal-v0", "BabyAI-MixedTestLocal-v0"
SEQUENCES = [
    "BabyAI-PickUpSeqGoToLocal-v0",
    "BabyAI-PickUpThenGoToLocal-v0",
    "BabyAI-GoToAfterPickUpLocal-v0",
    "BabyAI-PickUpSeqPickUpLocal-v0",
]


def room(env):
    """Everything that the random draws decide."""
    core = env.unwrapped
    things = [(*divmod(k, core.width), o.type, o.color) for k, o in enumerate(core.grid.grid) if o and o.type != "wall"]
    return core.mission, core.width, tuple(map(int, core.agent_pos)), int(core.agent_dir), things


def named_pairs(instr):
    if isinstance(instr, ActionInstr):
        descs = [getattr(instr, role) for role in ("desc", "desc_move", "desc_fixed") if hasattr(instr, role)]
        return [(desc.type, desc.color) for desc in descs]
    return named_pairs(instr.instr_a) + named_pairs(instr.instr_b)


def test_recorded_resets():
    command = [sys.executable, GOLDEN / "check_resets.py", GOLDEN / "resets.jsonl.gz"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stdout.endswith("192/192 match\n"), result.stdout + result.stderr


# --- which task, and when it is drawn


@pytest.mark.parametrize("seed", range(8))
def test_per_episode_draws_the_task_before_everything_else(seed):
    mixed = babyai_text.make(TRAIN)
    mixed.reset(seed=seed)
    generator = seeding.np_random(seed)[0]
    task = TASKS[generator.integers(0, 5)]
    assert mixed.unwrapped.task == task

    # a fixed task consumes no draw: from here on it sees the same generator, hence the same room
    fixed = babyai_text.make(TRAIN, task_kind=task)
    fixed.unwrapped.np_random = generator
    fixed.reset()
    assert room(fixed) == room(mixed)


def test_per_episode_mixes_all_tasks_within_one_instance():
    env = babyai_text.make(TRAIN)
    env.reset(seed=0)
    tasks = []
    for _ in range(200):
        env.reset()
        tasks.append(env.unwrapped.task)
    # 40 expected of each, standard deviation sqrt(200 * 0.2 * 0.8) = 5.7
    assert all(20 <= tasks.count(task) <= 60 for task in TASKS)


def test_per_instance_draws_the_task_once_and_again_when_seeded():
    env = babyai_text.make(TRAIN, task_kind="per_instance")
    by_seed = {}
    for seed in range(12):
        env.reset(seed=seed)
        by_seed[seed] = env.unwrapped.task
        assert by_seed[seed] == TASKS[seeding.np_random(seed)[0].integers(0, 5)]
        for _ in range(5):
            env.reset()
            assert env.unwrapped.task == by_seed[seed]
    assert len(set(by_seed.values())) > 1


@pytest.mark.parametrize(
    ("task", "verb", "max_steps", "width"),
    [
        ("goto", "go to", 64, 8),
        ("pickup", "pick up", 64, 8),
        ("open", "open the", 128, 15),
        ("putnext", "put", 128, 8),
        ("pick up seq go to", "", 128, 8),
    ],
)
def test_fixed_tasks(task, verb, max_steps, width):
    env = babyai_text.make(TRAIN, task_kind=task)
    for seed in range(5):
        env.reset(seed=seed)
        core = env.unwrapped
        assert core.mission.startswith(verb)
        assert (core.max_steps, core.width, core.task) == (max_steps, width, task)
    if task == "pick up seq go to":
        assert ", then go to" in core.mission or " after you pick up" in core.mission


@pytest.mark.parametrize("num_dists", [1, 4, 8])
def test_num_dists_counts_by_task(num_dists):
    def loose_objects(task):
        env = babyai_text.make(TRAIN, task_kind=task, num_dists=num_dists)
        env.reset(seed=1)
        return sum(thing is not None and thing.type in ("key", "ball", "box") for thing in env.unwrapped.grid.grid)

    extra = {task: loose_objects(task) - num_dists for task in TASKS}
    assert extra == {"goto": 1, "pickup": 1, "open": 1, "putnext": 2, "pick up seq go to": 2}


def test_objects_of_go_to_local_s8n16():
    env = babyai_text.make("BabyAI-GoToLocalS8N16-v0")
    env.reset(seed=0)
    assert sum(thing is not None and thing.type != "wall" for thing in env.unwrapped.grid.grid) == 16
    assert (env.unwrapped.width, env.unwrapped.max_steps) == (8, 64)


def test_wrong_options_name_the_right_ones():
    with pytest.raises(ValueError, match=r"task_kind must be one of 'per_episode', 'per_instance', 'goto', .*got 'go'"):
        babyai_text.make(TRAIN, task_kind="go")
    for num_dists in (17, -1, True, 8.0, "8", None):
        with pytest.raises(ValueError, match=f"num_dists must be a whole number from 0 to 16, got {num_dists!r}$"):
            babyai_text.make(TEST, num_dists=num_dists)
    assert babyai_text.make(TEST, num_dists=np.int64(3)).unwrapped.num_dists == 3


# --- what missions may name


@pytest.mark.parametrize("level", [TRAIN, *SEQUENCES])
def test_training_missions_never_name_held_out_pairs_but_rooms_hold_them(level):
    env = babyai_text.make(level)
    env.reset(seed=0)
    lying_around = set()
    for _ in range(60):
        assert not set(named_pairs(env.unwrapped.instrs)) & HELD_OUT
        lying_around |= {(kind, color) for *_, kind, color in room(env)[-1]}
        env.reset()
    assert {("box", "yellow"), ("key", "red"), ("ball", "green")} <= lying_around


def test_test_missions_name_held_out_pairs_only():
    env = babyai_text.make(TEST)
    env.reset(seed=0)
    named = set()
    for _ in range(60):
        named |= set(named_pairs(env.unwrapped.instrs))
        env.reset()
    assert named == HELD_OUT


def test_door_colors_and_wording():
    missions = {TRAIN: set(), TEST: set()}
    for level, seen in missions.items():
        env = babyai_text.make(level, task_kind="open")
        env.reset(seed=0)
        for _ in range(80):
            seen.add(env.unwrapped.mission)
            env.reset()
    colors = ["yellow", "green", "blue", "purple"]
    assert missions[TRAIN] == {"open the door", *(f"open the {color} door" for color in colors)}
    assert missions[TEST] == {"open the red door", "open the grey door"}


@pytest.mark.parametrize(("level", "wordings"), zip(SEQUENCES, [2, 1, 1, 2], strict=True))
def test_sequence_wordings(level, wordings):
    env = babyai_text.make(level)
    env.reset(seed=0)
    kinds = set()
    for _ in range(20):
        kinds.add(type(env.unwrapped.instrs))
        env.reset()
    assert len(kinds) == wordings
    if wordings == 1:
        assert kinds == {BeforeInstr if "Then" in level else AfterInstr}


@pytest.mark.parametrize(
    ("french", "english"),
    [("BabyAI-GoToFrench-v0", "BabyAI-GoToLocal-v0"), ("BabyAI-MixedTrainLocalFrench-v0", TRAIN)],
)
def test_french_levels_are_the_english_ones_seed_for_seed(french, english):
    for seed in range(4):
        one, other = babyai_text.make(french), babyai_text.make(english)
        _, info = one.reset(seed=seed)
        other.reset(seed=seed)
        assert room(one) == room(other)
        assert all(sentence.startswith("Tu ") for sentence in info["descriptions"])


# --- when a mission succeeds


def arrange(instr, things, **options):
    """A sequence level whose room holds `things`, with the agent at (2, 4) looking right."""
    env = babyai_text.make("BabyAI-PickUpSeqGoToLocal-v0", **options)
    env.reset(seed=0)
    core = env.unwrapped
    core.grid = Grid(core.width, core.height)
    core.grid.wall_rect(0, 0, core.width, core.height)
    for position, thing in things.items():
        core.put_obj(thing, *position)
    core.agent_pos, core.agent_dir, core.instrs = (2, 4), 0, instr
    instr.reset_verifier(core)
    return env


def play(env, *actions):
    return [env.step(action)[1:4] for action in actions]


RED_BALL, BLUE_KEY = ObjDesc("ball", "red"), ObjDesc("key", "blue")
UNDECIDED = (0, False, False)


def both_wordings(act_first, first, act_afterwards, second):
    return [
        BeforeInstr(act_first(first), act_afterwards(second)),
        AfterInstr(act_afterwards(second), act_first(first)),
    ]


@pytest.mark.parametrize("instr", both_wordings(PickupInstr, RED_BALL, GoToInstr, RED_BALL))
def test_second_part_is_judged_in_the_step_that_finishes_the_first(instr):
    # the ball's recorded cell stays where it was, and the agent faces it: 1 - 0.9 * 1/128
    assert play(arrange(instr, {(3, 4): Ball("red")}), PICKUP) == [(1 - 0.9 / 128, True, False)]


@pytest.mark.parametrize("instr", both_wordings(PickupInstr, RED_BALL, GoToInstr, BLUE_KEY))
def test_second_part_does_not_count_before_the_first(instr):
    env = arrange(instr, {(3, 4): Ball("red"), (2, 3): Key("blue")})
    # look at the key above, back to the ball, take it, look at the key again
    results = play(env, LEFT, RIGHT, PICKUP, LEFT)
    assert results == [UNDECIDED] * 3 + [(1 - 0.9 * 4 / 128, True, False)]


@pytest.mark.parametrize("instr", both_wordings(PickupInstr, RED_BALL, PickupInstr, BLUE_KEY))
def test_second_pickup_needs_empty_hands(instr):
    env = arrange(instr, {(3, 4): Ball("red"), (2, 3): Key("blue")})
    # the hands are full at the second pickup: turn round, drop, turn back, and only then take the key
    results = play(env, PICKUP, LEFT, PICKUP, LEFT, DROP, RIGHT, PICKUP)
    assert results == [UNDECIDED] * 6 + [(1 - 0.9 * 7 / 128, True, False)]


def test_toggled_away_box_still_counts_at_its_old_place():
    instr = BeforeInstr(PickupInstr(ObjDesc("ball", "red")), GoToInstr(ObjDesc("box", "grey")))
    env = arrange(instr, {(3, 4): Box("grey"), (2, 3): Ball("red")})
    results = play(env, TOGGLE, LEFT, PICKUP, RIGHT)
    assert env.unwrapped.grid.get(3, 4) is None
    assert [terminated for _, terminated, _ in results] == [False, False, False, True]


def test_put_next_counts_only_after_a_drop_beside_it():
    env = arrange(PutNextInstr(RED_BALL, BLUE_KEY), {(3, 4): Ball("red"), (4, 3): Key("blue"), (6, 6): Ball("red")})
    env.unwrapped.max_steps = 128
    # the ball comes back to where it was: (3, 4) touches (4, 3) only across a corner
    assert play(env, PICKUP, DROP) == [UNDECIDED] * 2
    # one cell ahead it lies under the key
    results = play(env, PICKUP, FORWARD, DROP)
    assert [terminated for _, terminated, _ in results] == [False, False, True]


def test_success_on_the_last_step_is_both_terminated_and_truncated():
    instr = BeforeInstr(PickupInstr(RED_BALL), GoToInstr(BLUE_KEY))
    env = arrange(instr, {(3, 4): Ball("red"), (2, 3): Key("blue")}, max_steps=2)
    first, last = play(env, PICKUP, LEFT)
    assert first == UNDECIDED
    assert last == (pytest.approx(0.1), True, True)


def test_time_out_is_truncated_without_reward():
    env = babyai_text.make("BabyAI-GoToLocal-v0", max_steps=3)
    env.reset(seed=3)
    assert play(env, DONE, DONE, DONE) == [UNDECIDED, UNDECIDED, (0, False, True)]


# --- rates

ALL_LEVELS = [*babyai_text.LEVELS, "BabyAI-GoToLocal-v0"]


def bot_success(level, episodes, seed=0):
    env = babyai_text.make(level)
    env.reset(seed=seed)
    solved = 0
    for _ in range(episodes):
        bot, ended = BabyAIBot(env), False
        while not ended:
            _, reward, terminated, truncated, _ = env.step(bot.replan())
            ended = terminated or truncated
        solved += terminated and reward > 0
        env.reset()
    return solved / episodes


@pytest.mark.parametrize("level", ALL_LEVELS)
def test_bot_solves_every_level(level):
    assert bot_success(level, episodes=24) == 1


@pytest.mark.slow
@pytest.mark.parametrize("level", ALL_LEVELS)
def test_bot_solves_hundreds(level):
    assert bot_success(level, episodes=300, seed=1) >= 0.99


# successes and episodes by task, random agent on MixedTrainLocal; all levels: tests/experiments/test_rates.py
TRAIN_TASK_COUNTS = [
    ("goto", 14, 42),
    ("pickup", 4, 33),
    ("open", 0, 35),
    ("putnext", 1, 44),
    ("pick up seq go to", 1, 46),
]


def random_success(env, episodes=600):
    actions = np.random.default_rng(0)
    env.reset(seed=0)
    solved = ended = 0
    while ended < episodes:
        _, reward, terminated, truncated, _ = env.step(int(actions.integers(0, 6)))
        if terminated or truncated:
            solved += reward > 0
            ended += 1
            env.reset()
    return solved / episodes


def assert_within_three_standard_errors(rate, episodes, reference, reference_episodes):
    def squared_error(successes, n):
        share = (successes + 1) / (n + 2)  # not 0 where nothing succeeded
        return share * (1 - share) / n

    spread = squared_error(rate * episodes, episodes) + squared_error(
        reference * reference_episodes, reference_episodes
    )
    assert abs(rate - reference) <= 3 * math.sqrt(spread)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "successes", "episodes"), TRAIN_TASK_COUNTS)
def test_random_rates_by_task(task, successes, episodes):
    rate = random_success(babyai_text.make(TRAIN, task_kind=task))
    assert_within_three_standard_errors(rate, 600, successes / episodes, episodes)
