"""Vector PPO: masks and gradients by hand, and a run from training to its test."""

import json
import math

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
import torch

from experiments.agents.ppo.network_step import NetworkUpdateConfig, gradient_step
from experiments.agents.ppo.offered_actions import OfferedActions
from experiments.agents.ppo.rollout import Samples
from experiments.agents.ppo.vector_policy import VectorNetwork, VectorPolicy, VectorView
from experiments.environments import check_environment
from experiments.errors import UserError
from experiments.experiment_paths import ExperimentPaths
from experiments.post_training_tests import run_tests
from experiments.show_episodes import show_episodes
from experiments.symbolic_side import open_symbolic_agent
from experiments.train_symbolic_ppo import train
from tests.experiments.conftest import make_config, run_script

FOOD, SALAD = "VirtualHomeText-FoodPreparation-v0", "OvercookedText-TomatoSalad-v0"


@pytest.fixture
def vector(tmp_path):
    """Overrides of a run of seconds: 3 updates of 64 decisions."""
    return [
        "experiment=vector_ppo_food_preparation",
        "rl_script_args.symbolic.frames_per_proc=16",
        "rl_script_args.symbolic.batch_size=24",  # does not divide 64
        "rl_script_args.symbolic.epochs=2",
        "rl_script_args.num_steps=192",
        "rl_script_args.max_episode_steps=12",
        "rl_script_args.number_episodes=4",
        "rl_script_args.torch_threads=1",
        f"rl_script_args.saving_path_logs={tmp_path / 'logs'}",
        f"rl_script_args.saving_path_model={tmp_path / 'models'}",
    ]


def test_what_is_not_offered_has_no_probability():
    """The logits of a network of zeros are its biases: log 1, log 2, log 3, log 4."""
    policy = VectorPolicy(3, 4)
    with torch.no_grad():
        for parameter in policy.network.parameters():
            parameter.zero_()
        policy.network.actor[-1].bias.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]).log())
        policy.network.critic[-1].bias.fill_(0.5)
    everything = VectorView(np.array([1, 2, 3]), (0, 1, 2, 3))
    some = VectorView(np.array([1, 2, 3]), (1, 3))
    log_probs, values = policy.evaluate([everything, some])
    assert log_probs[0].exp().tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert log_probs[1].exp().tolist() == pytest.approx([0, 1 / 3, 0, 2 / 3])
    assert log_probs[1, 0] == -math.inf
    assert values.tolist() == [0.5, 0.5]


def test_a_gradient_step_leaves_what_is_not_offered_alone():
    """Of one decision between actions 1 and 3, equally probable before, the first has advantage 1, and the value 0 the
    target 1. d(-ratio * advantage)/d logit is p - 1 = -0.5 of the taken action and +0.5 of the other; the entropy is at
    its maximum, where its gradient is 0; d(0.25 * (v - 1)^2)/dv = -0.5. With hidden layers of zeros only the last
    biases have gradients, of norm sqrt(3 * 0.25)."""
    network = VectorNetwork(2, 4)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    log_policy, values = network(torch.ones(1, 2), torch.tensor([[False, True, False, True]]))
    samples = Samples(
        [None], torch.tensor([1]), torch.tensor([0.5]).log(), torch.zeros(1), torch.ones(1), torch.ones(1)
    )
    config = NetworkUpdateConfig(1.0, (0.9, 0.999), 1e-5, 0.2, 0.01, 0.25, max_grad_norm=10.0)
    step = gradient_step(network, torch.optim.SGD(network.parameters(), lr=1.0), log_policy, values, samples, config)
    assert network.actor[-1].bias.tolist() == pytest.approx([0, 0.5, 0, -0.5])
    assert network.critic[-1].bias.tolist() == pytest.approx([0.5])
    assert step["grad_norm"] == pytest.approx(math.sqrt(0.75))
    assert step["entropy"] == pytest.approx(math.log(2))
    assert step["loss"] == pytest.approx(-1 - 0.01 * math.log(2) + 0.25)
    assert step["ratio_error"] == pytest.approx(0)


def test_sizes():
    """64-64 for the 18 numbers and 5 actions of the tomato salad: (18 + 1) 64 + 65 * 64 + 65 * outputs, twice."""
    network = VectorNetwork(18, 5)
    assert sum(p.numel() for p in network.parameters()) == 2 * (19 * 64 + 65 * 64) + 65 * (5 + 1)
    assert torch.linalg.matrix_norm(network.actor[2].weight, ord=2).item() == pytest.approx(math.sqrt(2), rel=1e-5)
    assert torch.linalg.matrix_norm(network.actor[4].weight, ord=2).item() == pytest.approx(0.01, rel=1e-5)


def test_the_published_settings():
    rates = {"tomato_salad": 1e-4, "tomato_lettuce_salad": 5e-4, "food_preparation": 1e-3, "entertainment": 1e-3}
    steps = {"tomato_salad": 500_000, "tomato_lettuce_salad": 500_000, "food_preparation": 50_000}
    for task, lr in rates.items():
        rl = make_config([f"experiment=vector_ppo_{task}"]).rl
        assert (rl.number_envs, rl.frames_per_proc, rl.batch_size, rl.epochs) == (4, 128, 128, 4)
        assert (rl.lr, rl.discount, rl.gae_lambda, rl.clip_eps) == (lr, 0.99, 0.95, 0.2)
        assert (rl.entropy_coef, rl.value_loss_coef, rl.reward_scale, rl.max_grad_norm) == (0.01, 0.25, 1, 0.5)
        assert rl.num_steps == steps.get(task, 200_000)
        wide = {"view_radius": 10, "chop_reward": 0.1} if "salad" in task else {}
        assert rl.environment_options == wide


def test_only_offered_actions_are_taken(vector):
    """Also by a network that prefers another one everywhere."""
    config = make_config(vector)
    check_environment(config.rl)
    with open_symbolic_agent(config) as agent:
        with torch.no_grad():
            agent.policy.network.actor[-1].bias.fill_(0.0)[9] = 50.0  # close the microwave
        rollout = agent.collect_rollout()
        for row, actions in zip(rollout.observations, rollout.actions.tolist(), strict=True):
            assert all(action in view.action_ids for view, action in zip(row, actions, strict=True))
        assert agent.update(rollout)["first_ratio_error"] < 1e-5


def test_a_resumed_run_equals_an_uninterrupted_one(vector, tmp_path):
    """Bit for bit; 16 steps per update and episodes of 12, so that episodes run across the starts."""
    places = [f"rl_script_args.saving_path_{kind}={tmp_path / 'straight' / kind}" for kind in ("logs", "model")]
    straight = make_config([*vector, *places])
    train(straight)
    for frames in (64, 128, 192):
        resumed = make_config([*vector, f"rl_script_args.num_steps={frames}"])
        train(resumed)
    straight_paths, resumed_paths = ExperimentPaths.of(straight), ExperimentPaths.of(resumed)
    logs = [
        pd.read_csv(paths.logs / "log.csv").drop(columns=["FPS", "duration"])
        for paths in (straight_paths, resumed_paths)
    ]
    pd.testing.assert_frame_equal(*logs, check_exact=True)
    for name in ("network.safetensors", "optimizer.pt"):
        assert (straight_paths.models / "last" / name).read_bytes() == (
            resumed_paths.models / "last" / name
        ).read_bytes()


def test_its_tests_and_its_page(vector):
    train(make_config(vector))
    config = make_config(vector)
    run_tests(config)
    folder = ExperimentPaths.of(config).test_folder(FOOD)
    facts = json.loads((folder / "episodes" / "no_modification_test.json").read_text())
    assert facts["agent"] == "symbolic"
    assert len(pd.read_csv(folder / "episodes" / "no_modification_test.csv")) == 4
    show_episodes(make_config([*vector, "rl_script_args.shown_episodes=[0]"]))
    (page,) = (folder / "pages").iterdir()
    assert "close the microwave" in page.read_text() or "walk to the microwave" in page.read_text()


def test_another_level_is_refused(vector):
    """It has learned numbers in places: there is nothing to cross over."""
    train(make_config(vector))
    with pytest.raises(
        UserError, match=r"actor\.0\.weight: \(64, 11\) there, \(64, 21\) here.*as many observed numbers"
    ):
        run_tests(make_config([*vector, "rl_script_args.name_environment=VirtualHomeText-Entertainment-v0"]))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("name_environment=BabyAI-GoToLocal-v0", "encoder=mlp needs observations that are vectors"),
        ("symbolic.encoder=film", "prompter='environment'.*use prompter=glam"),
        ("name_environment=MountainCarContinuous-v0", "actions numbered from 0, this level has .* and Box"),
        ("symbolic.recurrence=2", r"recurrence=2.*has no memory, give 1"),
    ],
)
def test_what_does_not_fit_is_refused(vector, override, words):
    with pytest.raises(UserError, match=words):
        check_environment(make_config([*vector, f"rl_script_args.{override}"]).rl)


@pytest.fixture
def cartpole(vector):
    """An environment that writes nothing into info, and does not know of prompts."""
    others = [override for override in vector if not override.startswith("experiment=")]
    return ["experiment=vector_ppo", *others, "rl_script_args.name_environment=CartPole-v1"]


@pytest.mark.parametrize("backend", ["sync", "process"])
def test_without_a_list_every_action_is_on_offer(cartpole, backend):
    config = make_config([*cartpole, "rl_script_args.prompter=glam", f"rl_script_args.vector_backend={backend}"])
    check_environment(config.rl)
    with open_symbolic_agent(config) as agent:
        rollout = agent.collect_rollout()
        assert {view.action_ids for row in rollout.observations for view in row} == {(0, 1)}
        assert set(rollout.actions.flatten().tolist()) == {0, 1}
        assert all(view.vector.shape == (4,) for view in rollout.observations[-1])


@pytest.mark.parametrize(
    ("told", "completed"),
    [
        ({}, {"action_ids": [0, 1, 2], "actions": ["action 0", "action 1", "action 2"]}),
        ({"action_ids": [0, 2]}, {"action_ids": [0, 2], "actions": ["action 0", "action 2"]}),
        ({"actions": ["stay", "go"]}, {"action_ids": [0, 1], "actions": ["stay", "go"]}),
    ],
)
def test_what_an_environment_tells_stays(told, completed):
    class Tells(gym.Env):
        observation_space, action_space = gym.spaces.Box(0, 9, (2,), np.int64), gym.spaces.Discrete(3)

        def reset(self, *, seed=None, options=None):
            return np.array([4, 5]), {**told, "score": 1}

    assert OfferedActions(Tells()).reset()[1] == {**completed, "prompt": "Observation: [4, 5]", "score": 1}


def test_tests_and_page_without_prompts(cartpole):
    train(make_config(cartpole))
    config = make_config(cartpole)
    run_tests(config)
    folder = ExperimentPaths.of(config).test_folder("CartPole-v1")
    assert len(pd.read_csv(folder / "episodes" / "no_modification_test.csv")) == 4
    show_episodes(make_config([*cartpole, "rl_script_args.shown_episodes=[0]"]))
    (page,) = (folder / "pages").iterdir()
    assert "Observation: [" in page.read_text()
    assert "action 1" in page.read_text()


def test_a_checkpoint_of_the_other_encoder_is_refused(vector):
    """In tests and in resuming, before its weights are read."""
    train(make_config(vector))
    level = "rl_script_args.name_environment=BabyAI-GoToRedBallNoDists-v0"
    film = make_config([*vector, "rl_script_args.symbolic.encoder=film", "rl_script_args.prompter=glam", level])
    paths, trained = ExperimentPaths.of(film), ExperimentPaths.of(make_config(vector))
    paths.models.parent.mkdir(parents=True, exist_ok=True)
    trained.models.rename(paths.models)
    for use in (run_tests, train):
        with pytest.raises(UserError, match=r"symbolic\.encoder: was 'mlp', given 'film'"):
            use(film)


def test_film_needs_a_grid(vector):
    overrides = ["rl_script_args.symbolic.encoder=film", "rl_script_args.prompter=glam"]
    with pytest.raises(UserError, match=r"this level gives no image.*or rl_script_args\.symbolic\.encoder=mlp"):
        check_environment(make_config([*vector, *overrides]).rl)


def test_macro_actions_discount_by_their_steps(vector):
    """The rollout of an environment whose actions last several steps says how many."""
    salad = ["experiment=vector_ppo_tomato_salad", *(o for o in vector if "experiment" not in o)]
    config = make_config(salad)
    check_environment(config.rl)
    with open_symbolic_agent(config) as agent:
        durations = agent.collect_rollout().durations
        env = gym.make(SALAD, view_radius=10)
        env.reset()
        assert env.step(0)[-1]["duration"] == 2  # to the tomato and touch it
        assert durations.max() > 2


def test_the_script(vector, tmp_path):
    done = run_script("train_symbolic_ppo.py", vector, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "update 3 | frames 192" in done.stderr
