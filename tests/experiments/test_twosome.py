"""TWOSOME's learning: its schedule by hand, and training end to end with a tiny LLM."""

import dataclasses
import importlib
import random
from types import SimpleNamespace

import gymnasium
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import tests.experiments.toy_text_env  # noqa: F401 (registers it)
from experiments.agents.ppo.heads import FrozenCritic
from experiments.agents.ppo.llm_policy import VALUE
from experiments.agents.ppo.twosome_ppo_agent import TwosomePPOAgent
from experiments.agents.ppo.twosome_schedule import TwosomeSchedule
from experiments.agents.ppo.twosome_updater import ACTOR, CRITIC
from experiments.errors import UserError
from experiments.experiment_paths import ExperimentPaths
from experiments.llm_side import make_caller, make_policy, open_llm_agent
from experiments.post_training_tests import run_tests
from experiments.train_language_agent import train
from experiments.training_run import TrainingRun
from tests.experiments.conftest import ROOT, make_config
from tests.experiments.test_launched import LLM_PROCESSES, launch
from tests.experiments.test_training import elsewhere, logs_without_time, paths_of

TOY = [
    "rl_script_args.env_packages=[tests.experiments.toy_text_env]",
    "rl_script_args.name_environment=ToyKitchen-v0",
    "rl_script_args.max_episode_steps=null",
    "rl_script_args.prompter=environment",
]
TWOSOME = [  # 32 frames an update: 4 critic steps of 8 samples, 4 actor steps of 2 minibatches of 4
    "rl_script_args.method=twosome",
    "rl_script_args.score_rule=word",
    "rl_script_args.reward_scale=1",
    "rl_script_args.twosome.actor_minibatches=8",
    "rl_script_args.twosome.gradient_accumulation=2",
    "rl_script_args.twosome.actor_lr=1e-2",
    "rl_script_args.twosome.critic_lr=1e-3",
]


def lora(*targets, r=4):
    return f"lamorel_args.llm_args.lora={{r: {r}, alpha: 8, target_modules: [{', '.join(targets)}]}}"


def causal(folder):
    return [f"lamorel_args.llm_args.model_path={folder}", "lamorel_args.llm_args.model_type=causal"]


@pytest.fixture
def twosome(small, tiny_models):
    """Overrides of a run of seconds: a decoder-only LLM in an environment with prompts of its own."""
    return [*small, *causal(tiny_models / "llama"), *TOY, *TWOSOME, lora("q_proj", "v_proj")]


def schedule(**changes):
    """Of 3 updates, 8 actor and 2 critic minibatches."""
    settings = TwosomeSchedule(
        actor_lr=1.0, critic_lr=1.0, linear_lr_decay=True, warmup_updates=0, updates=3, actor_minibatches=8,
        critic_minibatches=2, gradient_accumulation=3, normalize_advantages="batch",
    )  # fmt: skip
    return dataclasses.replace(settings, **changes)


class TestSchedule:
    def test_rates_fall_to_a_last_step_of_the_decay(self):
        # CleanRL: 1 - (update - 1) / updates
        assert [schedule().rate(update) for update in (1, 2, 3)] == pytest.approx([1, 2 / 3, 1 / 3])
        assert [schedule(linear_lr_decay=False).rate(update) for update in (1, 2, 3)] == [1, 1, 1]

    def test_rates_begin_to_fall_after_the_warm_up(self):
        warm = schedule(warmup_updates=2)
        assert [warm.warms_up(update) for update in (1, 2, 3, 4, 5)] == [True, True, False, False, False]
        assert [warm.rate(update) for update in (1, 2, 3, 4, 5)] == pytest.approx([1, 1, 1, 2 / 3, 1 / 3])

    def test_samples_of_the_steps(self):
        order = np.array([4, 2, 0, 9, 7, 1, 8, 3, 5, 6])  # 10 samples: minibatches of 2, 2, 1, 1, 1, 1, 1, 1
        critic = [step.tolist() for step in schedule().critic_steps(order)]
        assert critic == [[4, 2, 0, 9, 7], [1, 8, 3, 5, 6]]
        actor = [[part.tolist() for part in step] for step in schedule().actor_steps(order)]
        assert actor == [[[4, 2], [0, 9], [7]], [[1], [8], [3]], [[5], [6]]]  # the last step has fewer

    def test_normalised_advantages(self):
        advantages, parts = torch.tensor([1.0, 3.0, 10.0, 30.0]), [np.array([1, 0]), np.array([2, 3])]
        # of each pair mean 2 and 20, unbiased deviation sqrt 2 and 10 sqrt 2: +-1 / sqrt 2
        found = schedule(normalize_advantages="minibatch").normalized(advantages, parts)
        torch.testing.assert_close(found, torch.tensor([1.0, -1.0, -1.0, 1.0]) / 2**0.5)
        # of all: mean 11, squares 100 + 64 + 1 + 361 = 526, over 3: deviation sqrt(526 / 3) = 13.2413
        found = schedule().normalized(advantages, parts)
        torch.testing.assert_close(found, torch.tensor([-8.0, -10.0, -1.0, 19.0]) / 13.2413, rtol=1e-5, atol=0)
        found = schedule(normalize_advantages="none").normalized(advantages, parts)
        assert found.tolist() == [3, 1, 10, 30]
        # U5: a minibatch of equal advantages teaches nothing
        same = schedule(normalize_advantages="minibatch").normalized(torch.tensor([5.0, 5.0]), [np.array([0, 1])])
        assert same.tolist() == [0, 0]

    def test_a_configuration_makes_it(self, twosome):
        warm = ["rl_script_args.twosome.critic_warmup_steps=33", "rl_script_args.num_steps=100"]
        config = make_config([*twosome, *warm])
        made = TwosomeSchedule.of(config.rl)
        assert (made.warmup_updates, made.updates) == (2, 4)  # of 32 frames, rounded up
        assert (made.actor_minibatches, made.critic_minibatches, made.gradient_accumulation) == (8, 4, 2)
        assert config.training_frames == 64 + 100


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["lamorel_args.llm_args.lora=null"], r"lora=\{r: 8, alpha: 16, target_modules: \[q_proj, v_proj\]\}"),
        (["rl_script_args.use_action_heads=true"], "use_action_heads=true: method=twosome has nothing of the kind"),
        (["rl_script_args.critic_broadcast=true"], "critic_broadcast=true"),
        (["rl_script_args.detach_value=true"], "detach_value=true"),
        (["rl_script_args.twosome.actor_lr=0"], r"twosome\.actor_lr=0.0: give a number above 0"),
        (["rl_script_args.twosome.critic_warmup_steps=-1"], "critic_warmup_steps=-1: give a number of at least 0"),
        (["rl_script_args.twosome.gae_lambda=1.5"], "gae_lambda=1.5"),
        (["rl_script_args.twosome.actor_minibatches=33"], "actor_minibatches=33: an update has 32 frames"),
        (["rl_script_args.twosome.critic_minibatches=40"], "critic_minibatches=40: an update has 32 frames"),
        (["rl_script_args.twosome.gradient_accumulation=9"], "an epoch has 8 actor_minibatches"),
        (
            ["rl_script_args.twosome.actor_minibatches=17", "rl_script_args.twosome.normalize_advantages=minibatch"],
            "one sample alone has no standard deviation, and 32 frames make 17 actor_minibatches",
        ),
        (
            [
                "rl_script_args.twosome.critic_reads=last_position",
                "lamorel_args.distributed_setup_args.n_llm_processes=2",
            ],
            "n_llm_processes=1",
        ),
        (
            ["rl_script_args.twosome.critic_reads=last_position", "lamorel_args.llm_args.model_type=seq2seq"],
            "model_type=causal",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(twosome, overrides, message):
    with pytest.raises(UserError, match=message):
        make_config([*twosome, *overrides])


def saved_tensors(paths):
    """Everything learnt that a checkpoint holds."""
    last = paths.models / "last"
    state = torch.load(last / "optimizer.pt", weights_only=True)
    moments = {
        f"{part}.{number}.{name}": value
        for part in ("actor", "critic")
        for number, values in state[part]["state"].items()
        for name, value in values.items()
    }
    return {**load_file(last / "adapter_model.safetensors"), **load_file(last / "heads.safetensors"), **moments}


def assert_same_twosome_run(one, other):
    pd.testing.assert_frame_equal(logs_without_time(one), logs_without_time(other), check_exact=True)
    first, second = saved_tensors(one), saved_tensors(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any("lora_B" in name and tensor.any() for name, tensor in first.items())


def one_update_per_start(config):
    paths = ExperimentPaths.of(config)
    paths.make_writable()
    with TrainingRun(config, paths, open_llm_agent) as run:
        run.resume()
        run.advance()
        run.checkpoint_if_due()
        return run.is_complete


T5 = "lamorel_args.llm_args.model_type=seq2seq"
GLAM = ["rl_script_args.method=glam", "rl_script_args.score_rule=sum"]


def test_an_adapter_in_place_of_lora(twosome, tmp_path):
    """It is trained further; without `pretrained` it would not be loaded, and all weights be trained."""
    (tmp_path / "adapter_config.json").write_text("{}")
    overrides = [*twosome, *causal(tmp_path), "lamorel_args.llm_args.lora=null"]
    assert make_config(overrides).lamorel.llm_args.lora is None
    with pytest.raises(UserError, match=r"or give the folder of an adapter with .*pretrained=true"):
        make_config([*overrides, "lamorel_args.llm_args.pretrained=false"])


def test_the_frames_of_a_warm_up_are_the_llms_alone(twosome):
    """DRRN, in an experiment of TWOSOME's, has no critic to warm up."""
    warm = [*twosome, "rl_script_args.twosome.critic_warmup_steps=33"]
    assert make_config(warm).training_frames == 64 + 96
    assert make_config([*warm, "lamorel_args.distributed_setup_args.n_llm_processes=0"]).training_frames == 96


@pytest.mark.parametrize(
    ("environment", "overrides"),
    [
        (TOY, [*TWOSOME, lora("q_proj", "v_proj")]),
        (TOY, [*TWOSOME, lora("q_proj", "v_proj"), "rl_script_args.twosome.critic_reads=last_position"]),
        (TOY, [*TWOSOME, lora("q_proj", "v_proj"), "lamorel_args.llm_args.dtype=bf16"]),
        ([], [*TWOSOME, lora("q", "v"), T5]),  # in BabyAI-Text
        (TOY, [*GLAM, lora("q_proj", "v_proj")]),
        (TOY, GLAM),
    ],
    ids=["TWOSOME", "last_position", "bf16", "TWOSOME+T5+BabyAI-Text", "GLAM+LoRA", "GLAM+all weights"],
)
def test_each_method_in_each_kind_of_environment(small, tiny_models, environment, overrides):
    """By configuration alone; what acts is what learns, and a frozen model stays as it was."""
    model = [f"lamorel_args.llm_args.model_path={tiny_models / 't5'}"] if T5 in overrides else []
    config = make_config([*small, *(model or causal(tiny_models / "llama")), *environment, *overrides])
    half = config.lamorel.llm_args.dtype == "bf16"
    with open_llm_agent(config) as agent:
        llm = agent.caller._worker._llm.module._LLM_model
        before = {name: weight.clone() for name, weight in llm.named_parameters()}
        for _ in range(2):
            stats = agent.update(agent.collect_rollout())
            assert stats["first_ratio_error"] < (0.02 if half else 1e-4)
            assert np.isfinite(list(stats.values())).all()
        changed = {name for name, weight in llm.named_parameters() if not torch.equal(weight, before[name])}
        if config.lamorel.llm_args.lora is None:
            assert len(changed) == len(before)
            return
        trained = {name for name, weight in llm.named_parameters() if weight.requires_grad}
        assert changed == trained == {name for name in before if "lora_" in name}
        assert {before[name].dtype for name in trained} == {torch.float32}
        assert {before[name].dtype for name in before.keys() - trained} == {torch.bfloat16 if half else torch.float32}


def test_the_critic_has_as_many_weights_as_published():
    """LLaMA-7B's hidden size: 4096 * 1024 + 1024 * 512 + 512 * 1, without biases."""
    critic = FrozenCritic()
    critic.llm_config, critic.device = SimpleNamespace(hidden_size=4096), torch.device("cpu")
    critic.initialize()
    assert sum(weight.numel() for weight in critic.parameters()) == 4_719_104
    assert {weight.dtype for weight in critic.parameters()} == {torch.float32}
    assert [type(layer).__name__ for layer in critic.mlp] == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]


def test_each_optimiser_has_its_own_parameters(twosome):
    config = make_config([*twosome, "rl_script_args.beta1=0.8", "rl_script_args.twosome.adam_eps=1e-4"])
    with open_llm_agent(config) as agent:
        updater, module = agent.caller._worker._updater, agent.caller._worker._llm.module
        agent.update(agent.collect_rollout())
        for optimizer, name, rate in ((updater.actor, "lora_", 1e-2), (updater.critic, "_module_functions.", 1e-3)):
            [group] = optimizer.param_groups
            expected = {id(weight) for key, weight in module.named_parameters() if name in key}
            assert {id(weight) for weight in group["params"]} == expected
            assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (rate, (0.8, 0.999), 1e-4, 0)
        assert type(updater.actor) is torch.optim.AdamW
        assert type(updater.critic) is torch.optim.Adam


@pytest.mark.parametrize(
    ("package", "level"),
    [("overcooked_text", "OvercookedText-TomatoSalad-v0"), ("virtualhome_text", "VirtualHomeText-FoodPreparation-v0"),
     ("virtualhome_text", "VirtualHomeText-Entertainment-v0")],
)  # fmt: skip
def test_environments_neither_print_nor_seed_anything_global(package, level, capfd):
    importlib.import_module(package)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    env = gymnasium.make(level)
    env.reset(seed=5)
    env.step(0)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
    assert capfd.readouterr() == ("", "")


def test_the_released_critic_depends_on_what_else_is_in_the_batch(twosome):
    config = make_config([*twosome, "rl_script_args.twosome.critic_reads=last_position"])
    policy = make_policy(config.rl)
    prompts = ["Goal of the agent: go to 3", "Goal of the agent: go to 3 \n Observation 0: You see a wall 2 steps left"]
    with make_caller(config, policy) as caller:
        longest, shorter = (caller.custom_module_fns([VALUE], [prompt])[0][VALUE] for prompt in prompts[::-1])
        together = policy.values(caller.custom_module_fns([VALUE], prompts))
    torch.testing.assert_close(together[1], longest[0, 0])
    assert abs(together[0] - shorter[0, 0]) > 1e-3


def test_steps_that_are_not_finite_are_skipped(twosome, monkeypatch):
    """Of the critic and of the actor, each by itself; none is taken for a stop of the actor."""
    original, parts = TwosomePPOAgent._llm_step, []

    def poisoned(self, samples, *, part, lr):
        parts.append(part)
        if len(parts) == 2:
            samples.returns[0] = float("nan")
        if len(parts) == 6:
            samples.advantages[0] = float("inf")
        return original(self, samples, part=part, lr=lr)

    monkeypatch.setattr(TwosomePPOAgent, "_llm_step", poisoned)
    with open_llm_agent(make_config([*twosome, "rl_script_args.twosome.target_kl=100"])) as agent:
        stats = agent.update(agent.collect_rollout())
        assert parts == [CRITIC] * 4 + [ACTOR] * 4
        assert (stats["gradient_steps"], stats["skipped_gradient_steps"], stats["actor_stopped"]) == (6, 2, 0)
        assert np.isfinite(list(stats.values())).all()
        updater = agent.caller._worker._updater
        assert {state["step"].item() for state in updater.actor.state.values()} == {3}
        assert {state["step"].item() for state in updater.critic.state.values()} == {3}
        assert all(torch.isfinite(weight).all() for weight in agent.caller._worker._llm.parameters())


@pytest.mark.parametrize("part", [CRITIC, ACTOR])
def test_a_part_all_of_whose_steps_are_skipped_ends_the_run(twosome, monkeypatch, part):
    """In each update 4 of either; the other part's are good."""
    original = TwosomePPOAgent._llm_step

    def poisoned(self, samples, *, part, lr):
        if part == poisoned_part:
            (samples.returns if part == CRITIC else samples.advantages)[0] = float("nan")
        return original(self, samples, part=part, lr=lr)

    poisoned_part = part
    monkeypatch.setattr(TwosomePPOAgent, "_llm_step", poisoned)
    limit = "rl_script_args.max_skipped_gradient_steps=6"
    said = rf"update 2 .*6 gradient steps of the {part} in a row .*step {1 if part == CRITIC else 5} of update 1 on"
    with pytest.raises(UserError, match=said):
        train(make_config([*twosome, limit]))
    assert not (paths_of(twosome).models / "last").exists()  # put off


@pytest.mark.slow
@pytest.mark.parametrize("samples", [8, 1])
def test_two_llm_processes_are_one(twosome, tmp_path, monkeypatch, samples):
    """With an actor that is stopped, and resumed with another number of them; one sample is one process's alone."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the launched scripts register the toy environment, too
    steps = [f"rl_script_args.twosome.{part}_minibatches={32 // samples}" for part in ("actor", "critic")]
    twosome = [*twosome, *steps, "rl_script_args.twosome.gradient_accumulation=1", "rl_script_args.num_steps=64"]
    twosome += ["rl_script_args.twosome.target_kl=1e-5"]
    alone, straight = elsewhere(twosome, tmp_path), [*twosome, "rl_script_args.name_model=straight", LLM_PROCESSES]
    train(make_config(alone))
    run = launch("train_language_agent.py", straight, tmp_path)
    assert run.returncode == 0, run.stderr
    assert one_update_per_start(make_config(twosome)) is False
    run = launch("train_language_agent.py", [*twosome, LLM_PROCESSES], tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("resumed at update 1") == 1
    expected = logs_without_time(paths_of(alone))
    for overrides in (straight, twosome):
        pd.testing.assert_frame_equal(logs_without_time(paths_of(overrides)), expected, rtol=1e-3, atol=1e-4)


def test_a_resumed_run_equals_an_uninterrupted_one(twosome, tmp_path):
    """With a warm-up, so that the schedule goes on where it was; and then it is tested."""
    twosome = [*twosome, "rl_script_args.twosome.critic_warmup_steps=20", "rl_script_args.num_steps=64"]
    straight = elsewhere(twosome, tmp_path)
    train(make_config(straight))
    assert [one_update_per_start(make_config(twosome)) for _ in range(3)] == [False, False, True]
    assert_same_twosome_run(paths_of(twosome), paths_of(straight))

    log = pd.read_csv(paths_of(straight).logs / "log.csv")
    assert log.frames.tolist() == [32, 64, 96]  # 32 of them of the warm-up, in which there is no actor
    assert log[["policy_loss", "entropy", "loss", "grad_norm"]].isna().any(axis=1).tolist() == [True, False, False]
    assert log.value_loss.notna().all()
    np.testing.assert_allclose(log.loss[1:], (log.policy_loss - 0.01 * log.entropy + 0.25 * log.value_loss)[1:])
    with pytest.raises(UserError, match=r"num_steps: was 64, given 160"):  # rates fall to 0 at num_steps
        train(make_config([*twosome, "rl_script_args.num_steps=160"]))

    tested = [*twosome, "rl_script_args.zero_shot=false"]
    with pytest.raises(UserError, match="critic_reads: was 'last_token', given 'last_position'"):
        run_tests(make_config([*tested, "rl_script_args.twosome.critic_reads=last_position"]))
    run_tests(make_config(tested))
    folder = paths_of(twosome).test_folder("ToyKitchen-v0") / "return_per_episode"
    assert len(np.load(folder / "no_modification_test.npy")) == 6
