"""An environment that raises: who, where and how to repeat it, with the checkpoints as they were."""

import json
import re

import pytest

from babyai_text.failures import EnvironmentFailedError
from experiments.checkpoint import verify
from experiments.environments import FAILED_EPISODE, check_environment, keeping_failures, make_envs
from experiments.post_training_tests import run_tests
from experiments.train_language_agent import train
from tests.experiments.conftest import make_config
from tests.experiments.failing_env import FailingKitchen
from tests.experiments.test_training import paths_of

LEVEL = "FailingKitchen-v0"


@pytest.fixture
def kitchen(small):
    return [
        *small,
        "rl_script_args.env_packages=[tests.experiments.failing_env]",
        f"rl_script_args.name_environment={LEVEL}",
        "rl_script_args.max_episode_steps=null",
        "rl_script_args.prompter=environment",
        "rl_script_args.num_steps=320",
    ]


def check_replay(folder, overrides, message):
    """The file plays the episode again, up to the same error."""
    kept = json.loads((folder / FAILED_EPISODE).read_text())
    assert kept["error"] == message
    envs = make_envs(make_config([*overrides, "rl_script_args.vector_backend=sync"]).rl, seeds=[0])
    with pytest.raises(ZeroDivisionError, match="the stove is off"):
        envs.set_state([kept["state"]])
    envs.close()


@pytest.mark.parametrize(
    ("where", "backend"),
    [
        ("step", "sync"),
        pytest.param("reset", "sync", marks=pytest.mark.slow),
        pytest.param("step", "process", marks=pytest.mark.slow),
        ("reset", "process"),
    ],
)
def test_in_training(kitchen, monkeypatch, where, backend):
    kitchen.append(f"rl_script_args.vector_backend={backend}")
    train(make_config([*kitchen, "rl_script_args.num_steps=32"]))
    paths = paths_of(kitchen)
    monkeypatch.setenv("FAILING", where)
    with pytest.raises(EnvironmentFailedError) as error:
        train(make_config(kitchen))
    place = r"in step \d, action \d" if where == "step" else "at its reset"
    episode = rf"environment [0-3] of {LEVEL}, episode \d+ of the stream of seed 10[0-3]"
    assert re.fullmatch(rf"{episode}, {place}: ZeroDivisionError: the stove is off", str(error.value))
    cause = error.value.__cause__
    assert isinstance(cause, ZeroDivisionError) or "ZeroDivisionError: the stove is off" in str(cause)
    assert verify(paths.models / "last")[1] is None
    record = json.loads((paths.logs / "run.json").read_text())
    assert (record["state"], record["reason"]) == ("failed", str(error.value))
    log = (paths.logs / "run.log").read_text()
    assert "Traceback" in log
    assert str(error.value) in log
    check_replay(paths.logs, kitchen, str(error.value))
    monkeypatch.delenv("FAILING")
    train(make_config([*kitchen, "rl_script_args.num_steps=64"]))  # mended, it goes on


@pytest.mark.parametrize("export", ["true", "false"])
def test_in_tests_and_exports(kitchen, monkeypatch, export):
    kitchen += ["rl_script_args.random_agent=true", "rl_script_args.number_episodes=40"]
    kitchen += [f"rl_script_args.get_example_trajectories={export}"]
    monkeypatch.setenv("FAILING", "step")
    seed = r"1250000\d\d\d" if export == "true" else r"10000000\d\d"
    says = rf"environment \d of {LEVEL}, the episode of seed {seed}, in step \d, action \d: ZeroDivisionError"
    with pytest.raises(EnvironmentFailedError, match=says) as error:
        run_tests(make_config(kitchen))
    paths = paths_of(kitchen)
    check_replay(paths.test_folder(LEVEL), kitchen, str(error.value))
    assert str(error.value) in (paths.logs / "test" / "run.log").read_text()


def test_before_anything_is_loaded(kitchen, monkeypatch):
    """The one that is made once to look at it is named as well."""

    def reset(self, **_):
        raise ZeroDivisionError("the stove is off")

    config = make_config(kitchen)
    monkeypatch.setattr(FailingKitchen, "reset", reset)
    with pytest.raises(
        EnvironmentFailedError, match=f"environment 0 of {LEVEL}, the episode of seed 1, at its reset: ZeroDiv"
    ):
        check_environment(config.rl)


def test_a_state_that_is_no_json_does_not_hide_the_error(tmp_path):
    with pytest.raises(EnvironmentFailedError, match="the stove"), keeping_failures(tmp_path):
        raise EnvironmentFailedError("the stove is off", {"episode": object()})
    assert list(tmp_path.iterdir()) == []


def test_an_older_state_does_not_tell_the_seed(kitchen, monkeypatch):
    """Checkpoints of before: all is as it was but for the seed's name."""
    envs = make_envs(make_config(kitchen).rl, seeds=[5])
    envs.reset()
    [state] = envs.get_state()
    assert state.pop("stream") == [5, 1]
    envs.set_state([state])
    monkeypatch.setenv("FAILING", "reset")
    with pytest.raises(
        EnvironmentFailedError, match=f"environment 0 of {LEVEL}, an episode of unknown seed, at its reset"
    ):
        [envs.call("reset") for _ in range(200)]
    envs.close()
