"""Saving and restoring single environments: through JSON, at any moment, with the same future."""

import json

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence

import babyai_text
from babyai_text.levels import TASKS
from babyai_text.replay import ReplayState, SeededEpisodes

TRAIN = "BabyAI-MixedTrainLocal-v0"


def trajectory(env, actions):
    """Everything that comes back while playing on, over the ends of episodes."""
    returns = []
    for action in actions:
        returns.append(env.step(action))
        if returns[-1][2] or returns[-1][3]:
            returns.append(env.reset())
    return returns


@pytest.mark.parametrize(
    ("level", "options"),
    [
        (TRAIN, {}),
        (TRAIN, {"task_kind": "per_instance"}),
        ("BabyAI-GoToFrench-v0", {}),
        ("BabyAI-BossLevel-v0", {}),
        ("MiniGrid-Dynamic-Obstacles-6x6-v0", {}),  # draws from its generator at every step
    ],
)
def test_restored_environment_has_the_same_present_and_future(level, options):
    moments = np.random.default_rng(5)
    for seed in range(4):
        actions = moments.integers(0, 3, size=60).tolist()
        # episodes of at most 7 steps, so that the past and the future hold several of them
        env = babyai_text.make(level, max_steps=7, **options)
        env.reset(seed=seed)
        past = trajectory(env, actions[: moments.integers(0, 30)])
        saved = json.loads(json.dumps(env.get_state()))
        future = trajectory(env, actions[30:])

        fresh = babyai_text.make(level, max_steps=7, **options)
        observation, info = fresh.set_state(saved)
        if past:
            assert data_equivalence((observation, info), (past[-1][0], past[-1][-1]))
        assert fresh.get_state() == saved
        assert data_equivalence(trajectory(fresh, actions[30:]), future)


def test_task_of_a_per_instance_level_survives():
    env = babyai_text.make(TRAIN, task_kind="per_instance")
    env.reset(seed=0)
    env.reset()  # its state holds no seed from which the task could be drawn again
    task = env.unwrapped.task
    for seed in range(6):
        fresh = babyai_text.make(TRAIN, task_kind="per_instance")
        fresh.reset(seed=seed)  # draws another task for some of these seeds
        fresh.set_state(env.get_state())
        assert fresh.unwrapped.task == task
        fresh.reset()
        assert fresh.unwrapped.task == task
    assert task in TASKS


def test_state_needs_an_episode_and_its_own_level():
    env = babyai_text.make("BabyAI-GoToLocal-v0")
    with pytest.raises(gym.error.ResetNeeded, match="call reset first"):
        env.get_state()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="saved by BabyAI-GoToLocal-v0, it does not fit BabyAI-GoTo-v0"):
        babyai_text.make("BabyAI-GoTo-v0").set_state(env.get_state())


@pytest.mark.parametrize(
    ("level", "there", "here", "message"),
    [
        (TRAIN, {"num_dists": 4}, {}, "num_dists=4, it does not fit an environment with no num_dists$"),
        (TRAIN, {}, {"max_steps": 9}, "no max_steps, it does not fit an environment with max_steps=9$"),
        (
            TRAIN,
            {"task_kind": "open", "max_steps": 8, "num_dists": 3},
            {"task_kind": "goto", "max_steps": 9, "num_dists": 3},
            "max_steps=8, task_kind='open', it does not fit an environment with max_steps=9, task_kind='goto'$",
        ),
        ("BabyAI-GoToLocal-v0", {"room_size": 6}, {"room_size": 7}, "room_size=6, .* with room_size=7$"),
        ("BabyAI-GoToLocal-v0", {"max_episode_steps": 3}, {}, "max_episode_steps=3, .* with no max_episode_steps$"),
    ],
)
def test_a_state_fits_only_the_options_it_was_saved_with(level, there, here, message):
    env = babyai_text.make(level, **there)
    env.reset(seed=0)
    saved = json.loads(json.dumps(env.get_state()))
    babyai_text.make(level, **there).set_state(saved)

    other = babyai_text.make(level, **here)
    other.reset(seed=1)
    with pytest.raises(ValueError, match=f"this state of {level} was saved with {message}"):
        other.set_state(saved)
    assert data_equivalence(other.get_state(), state_at_reset(level, here, seed=1))  # nothing changed


def state_at_reset(level, options, seed):
    env = babyai_text.make(level, **options)
    env.reset(seed=seed)
    return env.get_state()


def test_rendering_and_the_levels_own_language_do_not_matter_to_a_state():
    saved = state_at_reset("BabyAI-GoToFrench-v0", {"render_mode": "rgb_array"}, seed=0)
    babyai_text.make("BabyAI-GoToFrench-v0", language="french").set_state(saved)


class Walk(gym.Env):
    """Nothing of MiniGrid: a noisy walk with vector actions, whose start may be given as an option."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gym.spaces.Box(-1, 1, (2,), np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = np.array((options or {}).get("start", [0.0, 0.0])) + self.np_random.normal(size=2)
        return self.position.copy(), {"prompt": f"at {self.position}"}

    def step(self, action):
        self.position = self.position + action * 2 + self.np_random.normal(size=2)
        return self.position.copy(), 0.0, bool(self.np_random.random() < 0.2), False, {"prompt": f"at {self.position}"}


def test_any_environment_can_be_replayed():
    actions = list(np.random.default_rng(0).uniform(-1, 1, (20, 2)))
    env = ReplayState(Walk())
    env.reset(options={"start": [3.0, 4.0]})  # no seed: the generator itself is what is saved
    observation, *_, info = env.step(actions[0])
    saved = json.loads(json.dumps(env.get_state()))
    future = trajectory(env, actions)

    fresh = ReplayState(Walk())
    assert data_equivalence(fresh.set_state(saved), (observation, info))
    assert data_equivalence(trajectory(fresh, actions), future)


def test_options_that_json_lacks_are_saved_too():
    def state_with(**options):
        spec = gym.envs.registration.EnvSpec("Walk-v0", entry_point=lambda **_: Walk(), kwargs=options)
        env = ReplayState(gym.make(spec, disable_env_checker=True))
        env.reset(seed=0)
        return env, json.loads(json.dumps(env.get_state()))

    def options(goal=(3, 4), law=abs, start=1.5):
        by_number = {1: np.array([start]), 2: [np.int64(2)]}
        return {"goal": goal, "law": law, "space": gym.spaces.Discrete(2), "by_number": by_number, "nothing": None}

    _, saved = state_with(**options())
    state_with(**options())[0].set_state(saved)
    for name, other in (("goal", (3, 5)), ("law", max), ("by_number", 2.5)):
        changed = options(start=other) if name == "by_number" else options(**{name: other})
        with pytest.raises(ValueError, match=f"saved with {name}="):
            state_with(**changed)[0].set_state(saved)
    without_nothing = {name: value for name, value in options().items() if name != "nothing"}
    with pytest.raises(ValueError, match=r"saved with nothing=None, .* with no nothing$"):
        state_with(**without_nothing)[0].set_state(saved)


def test_seeded_episodes_that_refuse_a_state_keep_their_seeds():
    env = SeededEpisodes(babyai_text.make(TRAIN), [7, 9])
    env.reset()
    before = env.get_state()
    other = SeededEpisodes(babyai_text.make(TRAIN, num_dists=4), [1, 2, 3])
    other.reset()
    with pytest.raises(ValueError, match="num_dists"):
        env.set_state(other.get_state())
    assert env.get_state() == before


def test_seeded_episodes_use_their_seeds_and_then_the_stream():
    env = SeededEpisodes(ReplayState(Walk()), [7, 9])
    plain = Walk()
    starts = [env.reset()[0] for _ in range(4)]
    expected = [plain.reset(seed=7)[0], plain.reset(seed=9)[0], plain.reset()[0], plain.reset()[0]]
    assert data_equivalence(starts, expected)


def test_a_seed_of_the_callers_drops_the_waiting_ones():
    env = SeededEpisodes(ReplayState(Walk()), [7, 9])
    plain = Walk()
    starts = [env.reset(seed=1)[0], env.reset()[0]]
    assert data_equivalence(starts, [plain.reset(seed=1)[0], plain.reset()[0]])
