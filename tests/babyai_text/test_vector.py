"""Vector environments: what they return, which seeds their episodes get, and their state, in both backends."""

import json
import os
import signal
from functools import partial

import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence

import babyai_text
from babyai_text.vector import BACKENDS, make_vec_from

GOTO, TRAIN = "BabyAI-GoToLocal-v0", "BabyAI-MixedTrainLocal-v0"
DONE = 6

both_backends = pytest.mark.parametrize("backend", BACKENDS)


@pytest.fixture
def make_vec():
    """`babyai_text.make_vec`, closing what it made."""
    made = []

    def make(*args, **kwargs):
        made.append(babyai_text.make_vec(*args, **kwargs))
        return made[-1]

    yield make
    for envs in made:
        envs.close()


def missions_of(level, seeds_or_none, **options):
    """The missions of one plain environment that is reset with these seeds."""
    env = babyai_text.make(level, **options)
    return [env.reset(seed=seed)[0]["mission"] for seed in seeds_or_none]


def missions_over_episodes(envs, episodes):
    """(episodes, num_envs) missions of a vector environment with max_steps=1, where each step ends an episode."""
    missions = [envs.reset()[0]["mission"]]
    for _ in range(episodes - 1):
        missions.append(envs.step(np.full(envs.num_envs, DONE))[0]["mission"])
    return missions


@both_backends
def test_what_reset_and_step_return(make_vec, backend):
    envs = make_vec(GOTO, 2, seeds=[3, 4], backend=backend)
    singles = [babyai_text.make(GOTO) for _ in range(2)]
    starts = [env.reset(seed=seed) for env, seed in zip(singles, [3, 4], strict=True)]
    observations, infos = envs.reset()
    assert observations["mission"] == tuple(observation["mission"] for observation, _ in starts)
    assert observations["image"].shape == (2, 7, 7, 3)
    assert infos["descriptions"].shape == (2,)
    assert infos["descriptions"].tolist() == [info["descriptions"] for _, info in starts]
    assert infos["_descriptions"].tolist() == [True, True]

    _, rewards, terminations, truncations, infos = envs.step(np.array([0, 1]))
    expected = [env.step(action) for env, action in zip(singles, [0, 1], strict=True)]
    assert rewards.tolist() == [step[1] for step in expected]
    assert terminations.tolist() == [step[2] for step in expected]
    assert truncations.tolist() == [False, False]
    assert infos["descriptions"].tolist() == [step[4]["descriptions"] for step in expected]


@both_backends
def test_an_ended_episode_keeps_its_last_text_in_final_info(make_vec, backend):
    envs = make_vec(GOTO, 2, seeds=[3, 4], backend=backend, max_steps=2, language="french")
    envs.reset()
    _, _, _, truncations, infos = envs.step([0, 0])
    assert "final_info" not in infos
    observations, _, _, truncations, infos = envs.step([8, 0])  # an action beyond the last one does nothing

    single = babyai_text.make(GOTO, max_steps=2, language="french")
    single.reset(seed=3)
    single.step(0)
    last = single.step(DONE)
    assert truncations.tolist() == [True, True]
    assert infos["_final_info"].tolist() == [True, True]
    assert infos["final_info"]["descriptions"][0] == last[4]["descriptions"]
    assert infos["final_obs"][0]["mission"] == last[0]["mission"]

    next_observation, next_info = single.reset()
    assert observations["mission"][0] == next_observation["mission"]
    assert infos["descriptions"][0] == next_info["descriptions"] != last[4]["descriptions"]


def test_final_info_is_masked_where_an_episode_goes_on(make_vec):
    envs = make_vec(GOTO, 2, seeds=[3, 4], max_steps=2)
    envs.reset()
    ended = envs.envs[0]
    ended.step(DONE)  # now this one is a step ahead
    *_, infos = envs.step([DONE, DONE])
    assert infos["_final_info"].tolist() == [True, False]
    assert infos["final_info"]["descriptions"][1] is None
    assert infos["_descriptions"].tolist() == [True, True]


@both_backends
def test_seeds_start_a_stream_that_later_episodes_continue(make_vec, backend):
    envs = make_vec(TRAIN, 2, seeds=[np.int64(500), 501], backend=backend, max_steps=1)
    missions = missions_over_episodes(envs, 4)
    for column, seed in enumerate([500, 501]):
        assert [row[column] for row in missions] == missions_of(TRAIN, [seed, None, None, None])


@both_backends
def test_episode_seeds_are_used_one_after_the_other_then_the_stream_goes_on(make_vec, backend):
    lists = [[11, 12, 13], [], (14,)]
    envs = make_vec(TRAIN, 3, seeds=[1, 2, 3], episode_seeds=lists, backend=backend, max_steps=1)
    missions = missions_over_episodes(envs, 5)
    for column, seeds in enumerate(
        [[11, 12, 13, None, None], [2, None, None, None, None], [14, None, None, None, None]]
    ):
        assert [row[column] for row in missions] == missions_of(TRAIN, seeds)


@both_backends
@pytest.mark.parametrize("task_kind", ["per_episode", "per_instance"])
def test_state_restores_present_and_future_in_a_new_vector_environment(make_vec, backend, task_kind):
    options = {"seeds": [1, 2, 3], "max_steps": 6, "task_kind": task_kind, "backend": backend}
    options["episode_seeds"] = [[21, 22, 23, 24], [], [25]]
    random = np.random.default_rng(0)
    for moment in (0, int(random.integers(1, 6)), int(random.integers(6, 20))):
        actions = random.integers(0, 6, (40, 3))
        envs = make_vec(TRAIN, 3, **options)
        now = envs.reset()
        for row in actions[:moment]:
            observations, _, _, _, infos = envs.step(row)
            now = observations, infos
        saved = json.loads(json.dumps(envs.get_state()))
        future = [envs.step(row) for row in actions]

        fresh = make_vec(TRAIN, 3, **options)  # not reset: as in a new process
        observations, infos = fresh.set_state(saved)
        assert data_equivalence(observations, now[0])
        assert infos["descriptions"].tolist() == now[1]["descriptions"].tolist()
        assert fresh.get_state() == saved
        for row, expected in zip(actions, future, strict=True):
            assert data_equivalence(fresh.step(row), expected)


def test_a_state_of_one_backend_fits_the_other(make_vec):
    envs = make_vec(GOTO, 2, seeds=[3, 4])
    envs.reset()
    envs.step([2, 0])
    others = make_vec(GOTO, 2, seeds=[8, 9], backend="process")
    others.set_state(envs.get_state())
    assert data_equivalence(others.step([0, 2]), envs.step([0, 2]))


def test_wrong_counts_and_backends_are_named():
    with pytest.raises(ValueError, match="3 environments need as many seeds, got 2"):
        babyai_text.make_vec(GOTO, 3, seeds=[1, 2])
    with pytest.raises(ValueError, match="2 environments need as many lists of episode seeds, got 1"):
        babyai_text.make_vec(GOTO, 2, seeds=[1, 2], episode_seeds=[[1]])
    with pytest.raises(ValueError, match="backend must be one of 'sync', 'process', got 'thread'"):
        babyai_text.make_vec(GOTO, 1, seeds=[1], backend="thread")
    for backend in BACKENDS:
        with pytest.raises(ValueError, match="at least one environment"):
            babyai_text.make_vec(GOTO, 0, seeds=[], backend=backend)
    envs = babyai_text.make_vec(GOTO, 2, seeds=[1, 2])
    envs.reset()
    with pytest.raises(ValueError, match="length equal to the number of environments"):
        envs.set_state(envs.get_state()[:1])


@both_backends
@pytest.mark.filterwarnings("ignore:.*ERROR")  # gymnasium's, for a worker that raised
def test_states_of_other_options_are_refused(make_vec, backend):
    saved = make_vec(TRAIN, 2, seeds=[1, 2], num_dists=4)
    saved.reset()
    others = make_vec(TRAIN, 2, seeds=[3, 4], backend=backend)
    with pytest.raises(ValueError, match="num_dists=4"):
        others.set_state(saved.get_state())
    if backend == "sync":  # it goes on; gymnasium ends a process that raised
        assert others.reset()[0]["mission"] == tuple(missions_of(TRAIN, [seed])[0] for seed in (3, 4))


def test_worker_processes_leave_signals_to_their_parent_and_end_with_it():
    envs = make_vec_from(
        [partial(babyai_text.make, "BabyAI-GoToRedBallNoDists-v0")] * 2, seeds=[1, 2], backend="process"
    )
    envs.reset()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        for process in envs.processes:
            os.kill(process.pid, number)
    assert len(envs.step([0, 0])[1]) == 2
    envs.step_async([0, 0])
    envs.close(terminate=True)
    assert [process.exitcode for process in envs.processes] == [-signal.SIGKILL] * 2


def test_a_worker_whose_parent_is_gone_ends_without_a_traceback(capfd):
    """As after Ctrl-C, which ends the parent between a command and its answer."""
    envs = babyai_text.make_vec(GOTO, 1, seeds=[0], backend="process")
    [worker], [pipe] = envs.processes, envs.parent_pipes
    pipe.close()
    worker.join(30)
    assert worker.exitcode == 0
    assert "Traceback" not in capfd.readouterr().err
    envs.closed = True  # its only worker has ended
