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
