"""configs/base.yaml against the published defaults, and the rules between keys."""

import dataclasses
import math

import pytest
from omegaconf import OmegaConf

from experiments.configuration import SECTIONS, RLScriptArgs
from experiments.environments import check_environment, make_envs
from experiments.errors import UserError
from experiments.experiment_paths import ExperimentPaths, experiment_id
from experiments.hydra_script import warn_of_replaced_keys
from tests.experiments.conftest import ROOT, make_config

# the released code's defaults, as its README and configuration give them
RELEASED = {
    "seed": 1, "number_envs": 2, "num_steps": 1000, "max_episode_steps": None, "frames_per_proc": 40, "discount": 0.99,
    "lr": 1e-6, "beta1": 0.9, "beta2": 0.999, "gae_lambda": 0.99, "entropy_coef": 0.01, "value_loss_coef": 0.5,
    "max_grad_norm": 0.5, "adam_eps": 1e-5, "clip_eps": 0.2, "epochs": 4, "batch_size": 16, "reward_shaping_beta": 0,
    "name_experiment": "llm_mtrl", "name_model": "T5small", "name_environment": "BabyAI-MixedTestLocal-v0",
    "load_embedding": True, "use_action_heads": False, "template_test": 1, "nbr_obs": 3, "number_episodes": 10,
    "language": "english", "zero_shot": True, "modified_action_space": False, "new_action_space": None,
    "im_learning": False, "im_path": "", "bot": False, "random_agent": False, "get_example_trajectories": False,
    "spm_path": "",
}  # fmt: skip


def test_the_published_defaults(small):
    tree = OmegaConf.load(ROOT / "configs" / "base.yaml").rl_script_args
    for key, value in RELEASED.items():
        assert tree[key] == value, key
    assert list(tree.action_space) == ["turn_left", "turn_right", "go_forward", "pick_up", "drop", "toggle"]
    for key in ("path", "saving_path_logs", "saving_path_model"):
        assert OmegaConf.is_missing(tree, key)


def test_every_key_of_the_base_is_typed_and_no_other():
    tree = OmegaConf.load(ROOT / "configs" / "base.yaml").rl_script_args
    assert set(tree) == {field.name for field in dataclasses.fields(RLScriptArgs)}
    for name, section in SECTIONS.items():
        assert set(tree[name]) == {field.name for field in dataclasses.fields(section)}, name


@pytest.mark.parametrize(
    ("agent", "overrides", "named"),
    [
        ("drrn", ["lr=1", "+rl_script_args.batch_size=8", "epochs=2", "number_envs=8"], ["lr", "batch_size"]),
        ("symbolic", ["lr=1", "number_envs=8", "nbr_obs=1", "drrn.lr=1"], ["lr", "number_envs"]),
        ("symbolic", ["number_envs=8", "symbolic.number_envs=8", "lr=1", "symbolic.lr=2"], ["lr"]),
        ("llm", ["lr=1", "number_envs=8"], []),
        ("twosome", ["epochs=2", "number_envs=8", "twosome.lr=1"], ["epochs"]),
        ("twosome", ["clip_eps=0.1", "twosome.clip_eps=0.1", "normalize_advantages=true"], ["normalize_advantages"]),
    ],
)
def test_keys_that_an_agent_has_a_section_for_are_warned_of(agent, overrides, named, caplog):
    full = [o if "rl_script_args" in o else f"rl_script_args.{o}" for o in overrides]
    warn_of_replaced_keys(agent, ["experiment=demo", *full, "~rl_script_args.path"])
    assert [record.args[0] for record in caplog.records] == [f"rl_script_args.{name}" for name in named]
    assert all(record.args[3] == f"rl_script_args.{agent}.{n}" for record, n in zip(caplog.records, named, strict=True))


def test_keys_that_twosome_has_under_other_names_are_warned_of(caplog):
    warn_of_replaced_keys("twosome", ["rl_script_args.lr=1", "rl_script_args.batch_size=8"])
    own = [record.args[3].removeprefix("rl_script_args.twosome.") for record in caplog.records]
    assert own == ["actor_lr", "actor_minibatches"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["discount=1.5"], "discount=1.5: give a number from 0 to 1"),
        (["epochs=0"], "epochs=0: give a number above 0"),
        (["action_space=[toggle,toggle]"], "each once"),
        (["bot=true", "random_agent=true"], "choose one"),
        (["modified_action_space=true"], "one new name for each of the 6 actions"),
        (["modified_action_space=true", "new_action_space=[a]"], "one new name for each of the 6 actions"),
        (["modified_action_space=true", "language=french"], "use language=english"),
        (["im_learning=true", "im_path=nowhere"], "the folder of the cloned model does not exist"),
        (["tests=[nothing]"], "change_intro_first_personne_agent, other_goal_test"),
        (["tiny_llm.heads=two"], "tiny_llm.heads"),
        (["tiny_llm.heads=0"], "tiny_llm.heads=0: give a number above 0"),
        (
            ["method=twosome", "twosome.gae_lambda=2"],
            "^rl_script_args.twosome.gae_lambda=2.0: give a number from 0 to 1",
        ),
        (["symbolic_ppo=true", "symbolic.lr=-1"], "^rl_script_args.symbolic.lr=-1.0: give a number above 0"),
        (["symbolic_ppo=true", "symbolic.lr=nan"], "^rl_script_args.symbolic.lr=nan: give a finite number"),
        (["lr=nan"], "^rl_script_args.lr=nan: give a finite number"),
        (["reward_scale=inf"], "^rl_script_args.reward_scale=inf: give a finite number"),
        (["twosome.actor_lr=nan"], "^rl_script_args.twosome.actor_lr=nan: give a finite number"),
        (["max_grad_norm=nan"], "^rl_script_args.max_grad_norm=nan: give a finite number"),
    ],
)
def test_rules_between_keys(small, overrides, message):
    with pytest.raises(UserError, match=message.replace("[", r"\[")):
        make_config([*small, *(f"rl_script_args.{override}" for override in overrides)])


def test_infinity_is_no_limit(small):
    config = make_config([*small, "rl_script_args.max_grad_norm=inf", "rl_script_args.target_kl=inf"])
    assert (config.rl.max_grad_norm, config.rl.target_kl) == (math.inf, math.inf)


def test_one_rl_process(small):
    with pytest.raises(UserError, match="run one RL process"):
        make_config([*small, "lamorel_args.distributed_setup_args.n_rl_processes=2"])


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            [],
            "llm_mtrl_nbr_env_4_T5small_pretrained_True_nbr_actions_6_turn_left_turn_right_go_forward_pick_up_drop_toggle_"
            "shape_reward_beta_0_seed_1",
        ),
        (
            ["lamorel_args.llm_args.pretrained=false", "rl_script_args.use_action_heads=true",
             "rl_script_args.nbr_obs=6", "rl_script_args.action_space=[turn_left,go_forward]", "rl_script_args.seed=7"],
            "llm_mtrl_nbr_env_4_T5small_pretrained_False_load_embedding_True_use_action_heads_True_nbr_obs_6_"
            "nbr_actions_2_turn_left_go_forward_shape_reward_beta_0_seed_7",
        ),
    ],
)  # fmt: skip
def test_the_experiment_id(small, overrides, expected):
    assert experiment_id(make_config([*small, "rl_script_args.nbr_obs=3", *overrides])) == expected


def test_a_mission_without_french_form_is_found_before_training(small):
    level = "rl_script_args.name_environment=MiniGrid-Empty-5x5-v0"  # get to the green goal square
    rl = make_config([*small, level, "rl_script_args.language=french", "rl_script_args.max_episode_steps=null"]).rl
    with pytest.raises(UserError, match=r"no French form is known for .*, use english here"):
        check_environment(rl)


def test_the_released_code_overlay_works_on_every_level(small):
    for level in ("BabyAI-GoToRedBallNoDists-v0", "BabyAI-MixedTrainLocal-v0", "BabyAI-GoToFrench-v0"):
        check_environment(make_config([*small, "compat=released_code", f"rl_script_args.name_environment={level}"]).rl)


@pytest.mark.parametrize("kind", ["per_episode", "per_instance", "putnext"])
def test_the_task_kind_reaches_the_level(small, kind):
    levels = ["BabyAI-MixedTrainLocal-v0", "BabyAI-MixedTestLocal-v0", "BabyAI-MixedTrainLocalFrench-v0"]
    for level in levels:
        overrides = [f"rl_script_args.name_environment={level}", f"rl_script_args.task_kind={kind}"]
        envs = make_envs(make_config([*small, *overrides]).rl, seeds=[1])
        assert envs.envs[0].unwrapped.task_kind == kind, level


def test_paths_may_begin_with_the_home_folder(small, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    paths = ExperimentPaths.of(make_config([*small, 'rl_script_args.saving_path_logs="~/here"']))
    assert paths.logs.parent == tmp_path / "here"


def test_the_released_code_overlay(small):
    rl = make_config([*small, "compat=released_code"]).rl
    assert (rl.score_rule, rl.critic_broadcast, rl.task_kind, rl.stop_rule) == (
        "logits_released",
        True,
        "per_instance",
        "first_n",
    )
