"""Defects of the released code that no other test would notice; docs/implementation_details.md lists all 54."""

from itertools import count

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

import babyai_text
from experiments import trajectories
from experiments.agents.ppo.advantages import Advantages
from experiments.agents.ppo.base_ppo_agent import BasePPOAgent, Decision, PPOConfig
from experiments.agents.ppo.llm_policy import VALUE
from experiments.agents.ppo.llm_test_agent import LLMTestAgent
from experiments.environments import episode_seed, training_seeds
from experiments.experiment_paths import ExperimentPaths
from experiments.llm_side import open_llm_agent
from experiments.post_training_tests import run_tests
from experiments.train_language_agent import train
from tests.experiments.conftest import ROOT, make_config


def test_defaults_are_the_paper_and_not_the_released_code():
    """Items 1, 3, 7, 26; 8 and 49 are kept as published."""
    rl = OmegaConf.load(ROOT / "configs" / "base.yaml").rl_script_args
    assert (rl.score_rule, rl.critic_broadcast, rl.task_kind, rl.stop_rule) == (
        "sum",
        False,
        "per_episode",
        "per_episode",
    )
    assert (rl.bootstrap_timeouts, rl.walls) == (False, "published")


@pytest.mark.parametrize("broadcast", [False, True])
def test_each_value_is_compared_with_its_own_return(small, broadcast):
    """Item 3: the loss of one minibatch, where v is still v_old, against sums written out."""
    config = make_config([*small, f"rl_script_args.critic_broadcast={broadcast}"])
    with open_llm_agent(config) as agent:
        with torch.no_grad():  # an untrained head gives nearly the same value everywhere
            agent.caller._worker._llm.module._module_functions[VALUE].mlp[-1].weight *= 1000
        rollout = agent.collect_rollout()
        samples = rollout.samples(Advantages(torch.zeros_like(rollout.values), rollout.values + 1))
        found = agent._minibatch_step(samples)["value_loss"]
    values, returns = samples.old_values.tolist(), samples.returns.tolist()
    paired = 1.0  # every return is its value plus 1
    every = [
        max((v - r) ** 2, (old + min(max(v - old, -0.2), 0.2) - r) ** 2)
        for v in values
        for old, r in zip(values, returns, strict=True)
    ]
    assert found == pytest.approx(np.mean(every) if broadcast else paired, rel=1e-3)
    assert np.mean(every) > 1.05 * paired  # the two can be told apart


class Corridor:
    """Two environments whose episodes last two steps of reward 1: the first runs out of time, the second succeeds on
    its last allowed step, so both its flags are set."""

    num_envs = 2

    def __init__(self):
        self.steps = 0

    def step(self, actions):
        self.steps += 1
        ended = self.steps % 2 == 0
        return None, np.ones(2), np.array([False, ended]), np.array([ended, ended]), {}


class CorridorAgent(BasePPOAgent):
    """Observes the steps n since the reset; V(n) = 10 n."""

    def _first_observations(self):
        return [0, 0]

    def _next_observations(self, actions, step):
        ended = step[3][0]
        return ([0, 0], [2, 2]) if ended else ([1, 1], [1, 1])

    def _decide(self, observations):
        return Decision(torch.zeros(len(observations), 1), torch.tensor([10.0 * n for n in observations]))

    def _environment_actions(self, actions):
        return actions

    def _minibatch_step(self, samples):
        self.samples = samples
        return {"approx_kl": 0.0, "ratio_error": 0.0, "loss": 0.0, "grad_norm": 0.0}


@pytest.mark.parametrize(
    ("bootstrap", "first"),
    [
        # gamma = lambda = 0.5, V(s_3) = V(1) = 10: delta_2 = 1 + 0.5*10 - 0 = 6 = A_2 in all cases
        # terminal: delta_1 = 1 - 10 = -9 = A_1; delta_0 = 1 + 0.5*10 - 0 = 6; A_0 = 6 + 0.25*(-9) = 3.75
        (False, [3.75, -9.0, 6.0]),
        # bootstrapped with V(2) = 20: delta_1 = 1 + 0.5*20 - 10 = 1 = A_1; A_0 = 6 + 0.25*1 = 6.25
        (True, [6.25, 1.0, 6.0]),
    ],
)
def test_time_outs_in_a_rollout(bootstrap, first):
    """Item 8: terminal as published, or the value of the episode's own last state; a success is terminal always."""
    config = PPOConfig(
        steps_per_env=3, gamma=0.5, gae_lambda=0.5, reward_scale=1.0, epochs=1, batch_size=6,
        bootstrap_timeouts=bootstrap, normalize_advantages=False, target_kl=None, max_skipped_gradient_steps=10,
    )  # fmt: skip
    agent = CorridorAgent(Corridor(), config, seed=0)
    agent.update(agent.collect_rollout())
    assert sorted(agent.samples.advantages.tolist()) == sorted([*first, 3.75, -9.0, 6.0])


def test_actions_beyond_the_sixth_keep_their_names(small):
    """Item 10: they are no-ops of the environment, but stand in prompts and exported actions by name."""
    nine = "[turn_left,turn_right,go_forward,pick_up,drop,toggle,sleep,do_nothing,think]"
    overrides = [f"action_space={nine}", "random_agent=true", "get_example_trajectories=true", "num_steps=200"]
    config = make_config([*small, *(f"rl_script_args.{override}" for override in overrides)])
    run_tests(config)
    folder = ExperimentPaths.of(config).test_folder(config.rl.name_environment)
    prompts, actions = (np.load(folder / f"trajectories_{kind}_0.npy") for kind in ("prompts", "actions"))
    assert {"sleep", "do nothing", "think"} < set(actions)
    assert all("toggle, sleep, do nothing, think \n Goal" in prompt for prompt in prompts)
    assert any("Action 0: think \n Observation 1" in prompt for prompt in prompts)


def test_probe_probabilities_of_action_heads(small):
    """Item 12, and 17: max_episode_steps is read."""
    config = make_config([*small, "rl_script_args.use_action_heads=true"])
    train(config)
    logs = ExperimentPaths.of(config).logs
    probabilities = pd.read_csv(logs / "distrib.csv").iloc[:, 3:]
    assert probabilities.shape == (3 * 11, 6)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert probabilities.to_numpy().min() >= 0
    assert pd.read_csv(logs / "log.csv").num_frames_max.max() == 6


@pytest.mark.parametrize("variant", ["aflan", "npe"])
def test_the_checkpoint_of_every_variant_is_found(small, variant):
    """Item 28: heads without embeddings and embeddings without heads."""
    selected = [*small, f"experiment={variant}", "rl_script_args.num_steps=32"]
    train(make_config(selected))
    config = make_config([*selected, "rl_script_args.zero_shot=false"])
    run_tests(config)
    folder = ExperimentPaths.of(config).test_folder(config.rl.name_environment)
    assert len(np.load(folder / "return_per_episode" / "no_modification_test.npy")) == 6


def test_the_llm_scores_french_actions_in_french_tests(small, monkeypatch):
    """Item 30."""
    seen = []
    decide = LLMTestAgent.decide
    monkeypatch.setattr(LLMTestAgent, "decide", lambda self, views: seen.extend(views) or decide(self, views))
    french = ["rl_script_args.name_environment=BabyAI-GoToFrench-v0", "rl_script_args.language=french"]
    run_tests(make_config([*small, *french]))
    actions = ["tourner à gauche", "tourner à droite", "aller tout droit", "attraper", "lâcher", "basculer"]
    assert all(view.text.candidates == actions for view in seen)
    prompts = [view.text.prompt for view in seen]
    assert all(prompt.startswith(f"Actions possibles pour l'agent: {', '.join(actions)} \n But") for prompt in prompts)
    assert any(f"Action 0: {action} \n Observation 1: Tu " in prompt for prompt in prompts for action in actions)


def test_exported_prompts_are_those_of_a_plain_replay(small, monkeypatch):
    """Items 34 and 35: no episode begins with the last one's description, and files continue one another."""
    monkeypatch.setattr(trajectories, "TRANSITIONS_PER_FILE", 40)
    level = "BabyAI-GoToLocal-v0"
    overrides = [f"name_environment={level}", "max_episode_steps=null", "number_envs=3", "num_steps=100", "bot=true",
                 "get_example_trajectories=true"]  # fmt: skip
    config = make_config([*small, *(f"rl_script_args.{override}" for override in overrides)])
    run_tests(config)
    folder = ExperimentPaths.of(config).test_folder(level)
    files = {
        kind: [np.load(folder / f"bot_trajectories_{kind}_{k}.npy") for k in range(3)]
        for kind in ("prompts", "actions")
    }
    assert [len(array) for array in files["prompts"]] == [len(array) for array in files["actions"]] == [40, 40, 20]
    prompts, actions = (np.concatenate(arrays).tolist() for arrays in files.values())
    assert prompts == replayed_prompts(level, actions)


def replayed_prompts(level, actions):
    """The prompts of two observations that an environment alone gives when the actions are played."""
    names = ["turn left", "turn right", "go forward", "pick up", "drop", "toggle"]
    header = f"Possible action of the agent: {', '.join(names)} \n Goal of the agent: "
    env, prompts, waiting = babyai_text.make(level), [], list(actions)
    for episode in count():
        observation, info = env.reset(seed=1_250_000_000 + episode)
        before, played, ended = "", "", False
        while not ended:
            if not waiting:
                return prompts
            now = "".join(f"{sentence}, " for sentence in info["descriptions"])
            window = [before, now] if before else [now]
            prompt = header + observation["mission"]
            for i, text in enumerate(window):
                prompt += f" \n Observation {i}: {text}\n Action {i}: {played if i + 1 < len(window) else ''}"
            prompts.append(prompt)
            before, played = now, waiting.pop(0)
            observation, _, terminated, truncated, info = env.step(names.index(played))
            ended = terminated or truncated
    raise AssertionError


def test_training_and_tests_of_a_seed_play_different_episodes(small, caplog):
    """Item 38; with seed 0 they do not, which is said."""
    for seed in (1, 2, 99):
        rl = make_config([*small, f"rl_script_args.seed={seed}", "rl_script_args.number_envs=100"]).rl
        assert not set(training_seeds(rl)) & {episode_seed(seed, k) for k in range(1000)}
    neighbours = [training_seeds(make_config([*small, f"rl_script_args.seed={seed}"]).rl) for seed in (1, 2)]
    assert not set(neighbours[0]) & set(neighbours[1])
    zero = [*small, "rl_script_args.seed=0"]
    train(make_config([*zero, "rl_script_args.num_steps=32"]))
    run_tests(make_config([*zero, "rl_script_args.zero_shot=false"]))
    assert "rl_script_args.seed=0: test episode k is the first one of training environment k" in caplog.text
