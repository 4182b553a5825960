"""configs/experiment/: every overlay against what the paper and its code say of that experiment, written down here."""

import dataclasses
from functools import cache

import pytest
from omegaconf import OmegaConf

from experiments import experiment_paths
from experiments.environments import check_environment
from experiments.errors import UserError
from experiments.experiment_paths import ExperimentPaths, experiment_id
from experiments.hydra_script import compose_experiment, known_keys
from lamorel.config import LoraArgs
from tests.experiments.conftest import ROOT, make_config

OVERLAYS = ROOT / "configs" / "experiment"
SIX = ["turn_left", "turn_right", "go_forward", "pick_up", "drop", "toggle"]
LARGE = "google/flan-t5-large"
MIXED, GO_TO = "BabyAI-MixedTrainLocal-v0", "BabyAI-GoToLocal-v0"

# Of every experiment: 32 environments, six actions and three observations where nothing else is said.
COMMON = {"number_envs": 32, "action_space": SIX, "nbr_obs": 3, "seed": 1, "language": "english", "num_dists": 8,
          "batch_size": 64, "number_episodes": 1000, "frames_per_proc": 40, "reward_scale": 20, "lr": 1e-6,
          "score_rule": "sum", "task_kind": "per_episode", "stop_rule": "per_episode", "use_action_heads": False,
          "model_path": LARGE, "pretrained": True, "n_llm_processes": 1, "zero_shot": False, "random_agent": False,
          "bot": False, "modified_action_space": False, "get_example_trajectories": False}  # fmt: skip

TRAINING = {
    "paper": {},
    "q1_mixed": {"name_environment": MIXED, "num_steps": 1_500_000},
    "actions_3": {"name_environment": GO_TO, "num_steps": 400_000,
                  "action_space": ["turn_left", "turn_right", "go_forward"]},
    "actions_6": {"name_environment": GO_TO, "num_steps": 400_000},
    "actions_9": {"name_environment": GO_TO, "num_steps": 400_000,
                  "action_space": [*SIX, "sleep", "do_nothing", "think"]},
    "distractors_4": {"name_environment": "BabyAI-GoToLocalS8N4-v0", "num_steps": 400_000},
    "distractors_8": {"name_environment": GO_TO, "num_steps": 400_000},
    "distractors_16": {"name_environment": "BabyAI-GoToLocalS8N16-v0", "num_steps": 400_000},
    "input_type": {"name_environment": "BabyAI-GoToRedBall-v0"},
    "model_size_small": {"name_environment": GO_TO, "num_steps": 400_000, "model_path": "google/flan-t5-small"},
    "model_size_large": {"name_environment": GO_TO, "num_steps": 400_000},
    "model_size_xl": {"name_environment": GO_TO, "num_steps": 400_000, "model_path": "google/flan-t5-xl"},
    "pretraining": {"num_steps": 500_000},
    "prompt_length_1": {"nbr_obs": 1},
    "prompt_length_3": {"nbr_obs": 3},
    "prompt_length_6": {"nbr_obs": 6},
    "prompt_length_9": {"nbr_obs": 9},
    "policy_evolution": {"template_test": 1, "name_environment": MIXED},
    "policy_evolution_goto": {"template_test": 2, "name_environment": GO_TO},
}  # fmt: skip

# what lies over a training experiment: another agent, or a test
AGENTS = {
    "aflan": {"pretrained": True, "use_action_heads": True},
    "npae": {"pretrained": False, "load_embedding": True, "use_action_heads": True},
    "npa": {"pretrained": False, "load_embedding": False, "use_action_heads": True},
    "npe": {"pretrained": False, "load_embedding": True, "use_action_heads": False},
}
BASELINES = {
    "drrn": {"n_llm_processes": 0, "symbolic_ppo": False},
    "symbolic": {"n_llm_processes": 0, "symbolic_ppo": True, "number_envs": 64, "frames_per_proc": 40,
                 "batch_size": 1280, "lr": 1e-4, "epochs": 4, "discount": 0.99, "gae_lambda": 0.99},
}  # fmt: skip
WORDS = ["no_modification_test", "other_name_same_categories", "adj_synonym", "no_meaning_nouns", "no_meaning_adj",
         "no_meaning_words", "change_intro_first_personne_speaker", "change_intro_first_personne_agent"]  # fmt: skip
TESTS = {
    "generalisation": {"tests": WORDS},
    "generalisation_mixed_test": {"name_environment": "BabyAI-MixedTestLocal-v0"},
    "generalisation_pickup_seq_pickup": {"name_environment": "BabyAI-PickUpSeqPickUpLocal-v0"},
    "generalisation_pickup_seq_goto": {"name_environment": "BabyAI-PickUpSeqGoToLocal-v0"},
    "generalisation_pickup_then_goto": {"name_environment": "BabyAI-PickUpThenGoToLocal-v0"},
    "generalisation_goto_after_pickup": {"name_environment": "BabyAI-GoToAfterPickUpLocal-v0"},
    "synonym_actions_1": {
        "modified_action_space": True,
        "new_action_space": ["rotate_left", "rotate_right", "move_ahead", "take", "release", "switch"],
    },
    "synonym_actions_2": {
        "modified_action_space": True,
        "new_action_space": ["shift_left", "shift_right", "go_ahead", "take", "release", "turn"],
    },
    "french": {"name_environment": "BabyAI-GoToFrench-v0", "language": "french"},
    "zero_shot": {"zero_shot": True},
    "export_trajectories": {"get_example_trajectories": True, "num_steps": 420_000},  # 400,000 and ours
}
OTHER_AGENTS = {
    "random": {"random_agent": True, "n_llm_processes": 0},
    "bot": {"bot": True, "n_llm_processes": 0},
    "cloned_agent": {"im_learning": True, "im_path": "storage/cloned/q1_mixed_agent_seed_1"},
    "cloned_bot": {"im_learning": True, "im_path": "storage/cloned/q1_mixed_bot_seed_1"},
}

# TWOSOME: 4 environments x 32 decisions, LoRA of q and v, scores per word; rates and discount of each task.
TWOSOME = {
    "method": "twosome", "score_rule": "word", "reward_scale": 1, "prompter": "environment", "number_envs": 4,
    "action_space": ["offered"],
    "frames_per_proc": 32, "number_episodes": 100, "max_episode_steps": None, "environment_options": {},
    "model_path": "Neko-Institute-of-Science/LLaMA-7B-HF", "model_type": "causal", "dtype": "fp16",
    "lora": {"r": 8, "alpha": 16, "dropout": 0.0, "target_modules": ["q_proj", "v_proj"], "fp32": True},
    "add_bos": True, "candidate_prefix": "auto", "entropy_coef": 0.01, "max_grad_norm": 0.5, "gae_lambda": 0.95,
    "epochs": 1, "clip_eps": 0.2, "value_loss_coef": 0.25, "target_kl": 0.02, "batch_size": 16,
}  # fmt: skip
SCHEDULE = {"actor_minibatches": 32, "critic_minibatches": 4, "gradient_accumulation": 8, "critic_warmup_steps": 0,
            "linear_lr_decay": True, "critic_reads": "last_token", "normalize_advantages": "batch"}  # fmt: skip
OVERCOOKED_RATES = {"actor_lr": 5e-7, "critic_lr": 1e-5}
VIRTUALHOME_RATES = {"actor_lr": 1e-6, "critic_lr": 5e-5}
TWOSOME_TASKS = {
    "twosome_tomato_salad": {"name_environment": "OvercookedText-TomatoSalad-v0", "num_steps": 500_000,
                             "discount": 0.99, "twosome": {**SCHEDULE, **OVERCOOKED_RATES}},
    "twosome_tomato_lettuce_salad": {"name_environment": "OvercookedText-TomatoLettuceSalad-v0", "num_steps": 500_000,
                                     "discount": 0.99, "twosome": {**SCHEDULE, **OVERCOOKED_RATES}},
    "twosome_food_preparation": {"name_environment": "VirtualHomeText-FoodPreparation-v0", "num_steps": 50_000,
                                 "discount": 0.95, "seed": 10, "twosome": {**SCHEDULE, **VIRTUALHOME_RATES}},
    "twosome_entertainment": {"name_environment": "VirtualHomeText-Entertainment-v0", "num_steps": 200_000,
                              "discount": 0.95, "seed": 100, "twosome": {**SCHEDULE, **VIRTUALHOME_RATES}},
}  # fmt: skip
TWOSOME_TASKS = {task: {**TWOSOME, **values} for task, values in TWOSOME_TASKS.items()}
TWOSOME_AGENTS = {
    "score_token": {"score_rule": "token"},
    "score_sum": {"score_rule": "sum"},
    "glam_agent": {"method": "glam", "score_rule": "sum", "reward_scale": 20, "gae_lambda": 0.99, "epochs": 4,
                   "value_loss_coef": 0.5, "target_kl": None, "lr": 1e-6},
}  # fmt: skip
VECTOR_PPO = {"method": "glam", "symbolic_ppo": True, "n_llm_processes": 0, "number_envs": 4, "frames_per_proc": 128,
              "batch_size": 128, "epochs": 4, "discount": 0.99, "gae_lambda": 0.95, "value_loss_coef": 0.25,
              "reward_scale": 1, "prompter": "environment"}  # fmt: skip
VECTOR_PPO = {**TWOSOME, **VECTOR_PPO, "target_kl": None}
WIDE = {"environment_options": {"view_radius": 10, "chop_reward": 0.1}}  # released: it sees everything
VECTOR_RATES = {"tomato_salad": 1e-4, "tomato_lettuce_salad": 5e-4, "food_preparation": 1e-3, "entertainment": 1e-3}
CROSSOVER = {
    "crossover_food_preparation": "twosome_entertainment",
    "crossover_entertainment": "twosome_food_preparation",
}

# selections that a user types, with all that they must say
SELECTIONS = {
    **TRAINING,
    **{f"pretraining,{name}": {"num_steps": 500_000, **values} for name, values in AGENTS.items()},
    "q1_npae": {**TRAINING["q1_mixed"], **AGENTS["npae"]},
    "q1_drrn": {**TRAINING["q1_mixed"], **BASELINES["drrn"],
                "spm_path": "storage/sentencepiece/seed_1.model"},
    "q1_symbolic": {**TRAINING["q1_mixed"], **BASELINES["symbolic"]},
    "q1_symbolic,random": {"number_envs": 32, "n_llm_processes": 0, "random_agent": True, "symbolic_ppo": False},
    "q1_symbolic,generalisation": {**BASELINES["symbolic"], "tests": WORDS, "name_environment": MIXED},
    "input_type_drrn": {**TRAINING["input_type"], **BASELINES["drrn"]},
    "input_type_symbolic": {**TRAINING["input_type"], **BASELINES["symbolic"]},
    **{f"{study},{name}": {**TRAINING[study], **values}
       for study in ("actions_3", "actions_6", "actions_9", "distractors_4", "distractors_8", "distractors_16")
       for name, values in BASELINES.items()},
    **{f"q1_mixed,{name}": {**TRAINING["q1_mixed"], **values} for name, values in {**TESTS, **OTHER_AGENTS}.items()},
    "actions_6,bot,export_trajectories": {**OTHER_AGENTS["bot"], "get_example_trajectories": True,
                                          "name_environment": GO_TO},
    "q1_mixed,french,zero_shot": {"zero_shot": True, "language": "french", "name_environment": "BabyAI-GoToFrench-v0"},
    "zero_shot_no_distractors": {"num_dists": 0, "zero_shot": True, "name_environment": MIXED},
    "twosome": TWOSOME,
    **TWOSOME_TASKS,
    **{f"{task},{agent}": {**settings, **values}
       for task, settings in TWOSOME_TASKS.items() for agent, values in TWOSOME_AGENTS.items()},
    **{f"{task},random": {**settings, "random_agent": True, "n_llm_processes": 0}
       for task, settings in TWOSOME_TASKS.items()},
    **{f"{trained},{test}": {**TWOSOME_TASKS[trained],
                             "name_environment": TWOSOME_TASKS[f"twosome_{test.partition('_')[2]}"]["name_environment"]}
       for test, trained in CROSSOVER.items()},
    **{f"vector_ppo_{task}": {**VECTOR_PPO, "lr": lr, "seed": TWOSOME_TASKS[f"twosome_{task}"].get("seed", 1),
                              **(WIDE if "salad" in task else {})}
       for task, lr in VECTOR_RATES.items()},
    "twosome_tomato_salad,vector_ppo": {**VECTOR_PPO, "lr": 1e-4},
    "q1_mixed,twosome_agent": {**TRAINING["q1_mixed"],
                               **{key: TWOSOME[key] for key in ("method", "score_rule", "reward_scale", "model_path",
                                                                "model_type", "dtype", "lora", "add_bos", "epochs")}},
}  # fmt: skip
SMOLLM2 = {"smollm2_food_preparation", "smollm2_goto_red_ball", "smollm2_goto_local", "smollm2_goto_local_short"}
ELSEWHERE = {"demo", "twosome_demo", *SMOLLM2}  # no experiments of the papers


@pytest.fixture(autouse=True)
def cloned_models(tmp_path, monkeypatch):
    """Where the clones of q1_mixed lie."""
    for name in ("agent", "bot"):
        (tmp_path / f"storage/cloned/q1_mixed_{name}_seed_1").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)


@cache
def compose(selection, *overrides):
    return make_config([f"experiment=[{selection}]", *overrides])


def settings(config):
    """Every key of the configuration by its last name."""
    tree = config.resolved["lamorel_args"]
    return {**tree["llm_args"], **tree["distributed_setup_args"], **config.resolved["rl_script_args"]}


@pytest.mark.parametrize("selection", SELECTIONS)
def test_an_overlay_says_what_the_paper_says(selection):
    found = settings(compose(selection))
    for key, value in {**COMMON, **SELECTIONS[selection]}.items():
        if key == "twosome":  # the section's other keys take the place of those of the same name above it
            found[key] = {name: found[key][name] for name in value}
        assert found[key] == value, key


def test_every_overlay_is_held():
    held = {name for selection in SELECTIONS for name in selection.split(",")}
    assert {path.stem for path in OVERLAYS.glob("*.yaml")} == held | ELSEWHERE


@pytest.mark.parametrize("path", sorted(OVERLAYS.glob("*.yaml")), ids=lambda path: path.stem)
def test_keys_are_those_of_the_base(path):
    tree = OmegaConf.to_container(OmegaConf.load(path))
    tree.pop("defaults", None)
    lora = {f"lamorel_args.llm_args.lora.{field.name}" for field in dataclasses.fields(LoraArgs)}  # null in the base
    options = {leaf for leaf in _leaves(tree, "") if leaf.startswith("rl_script_args.environment_options.")}
    assert _leaves(tree, "") <= set(known_keys()) | lora | options  # a level's options: see test_options_of_levels
    assert path.read_text().startswith("# @package _global_\n# ")  # what it is stands in the second line


@pytest.mark.parametrize("task", ["tomato_salad", "tomato_lettuce_salad"])
def test_options_of_levels(task):
    """Those that the baseline's overlay gives are taken by the level."""
    rl = compose(f"vector_ppo_{task}").rl
    assert rl.environment_options == {"view_radius": 10, "chop_reward": 0.1}
    check_environment(rl)


def _leaves(node, prefix):
    if not isinstance(node, dict):
        return {prefix}
    return {leaf for key, child in node.items() for leaf in _leaves(child, f"{prefix}.{key}" if prefix else key)}


def test_no_two_training_runs_share_an_id():
    """The id names neither level nor model: the overlays' names must tell them apart."""
    selections = list(TRAINING)
    selections += [f"q1_mixed,{agent}" for agent in (*AGENTS, *BASELINES, *OTHER_AGENTS)]  # these have results apart
    selections += [f"pretraining,{agent}" for agent in AGENTS]
    selections += [f"actions_{n},{agent}" for n in (3, 6, 9) for agent in BASELINES]
    selections += ["twosome", *TWOSOME_TASKS, "q1_mixed,twosome_agent"]
    selections += [f"{task},{agent}" for task in TWOSOME_TASKS for agent in TWOSOME_AGENTS]
    selections += [f"vector_ppo_{task}" for task in VECTOR_RATES]
    ids = {selection: experiment_id(compose(selection)) for selection in selections}
    assert len(set(ids.values())) == len(ids)


@pytest.mark.parametrize("study", ["q1_mixed", "q1_npae", "q1_drrn", "q1_symbolic"])
def test_tests_find_the_trained_agent(study):
    trained = ExperimentPaths.of(compose(study))
    for test in TESTS:
        tested = ExperimentPaths.of(compose(f"{study},{test}"))
        assert tested.models == trained.models, test


@pytest.mark.parametrize("test", CROSSOVER)
def test_crossover_tests_find_the_agent_of_the_other_task(test):
    trained, tested = (
        ExperimentPaths.of(compose(CROSSOVER[test])),
        ExperimentPaths.of(compose(f"{CROSSOVER[test]},{test}")),
    )
    own = compose(f"twosome_{test.removeprefix('crossover_')}").rl
    crossed = compose(f"{CROSSOVER[test]},{test}").rl
    assert tested == trained
    assert crossed.name_environment == own.name_environment != compose(CROSSOVER[test]).rl.name_environment
    # what an outcome there depends on is what it is for the agent of that task
    assert (crossed.discount, crossed.score_rule, crossed.prompter, crossed.environment_options) == (
        own.discount, own.score_rule, own.prompter, own.environment_options
    )  # fmt: skip


def test_switches_of_twosomes_released_code():
    default, released = (
        compose("twosome_food_preparation"),
        compose("twosome_food_preparation", "compat=twosome_released"),
    )
    different = {
        key: value
        for key, value in vars(released.rl.twosome).items()
        if value != getattr(default.rl.twosome, key)
    }  # fmt: skip
    assert different == {"critic_reads": "last_position", "normalize_advantages": "minibatch"}
    assert {key for key, value in vars(released.rl).items() if value != getattr(default.rl, key)} == {"twosome"}


def test_no_two_tests_write_the_same_file():
    files = []
    for test in TESTS:
        config = compose(f"q1_mixed,{test}")
        if not config.rl.get_example_trajectories:
            folder = ExperimentPaths.of(config).test_folder(config.rl.name_environment)
            files += [folder / experiment_paths.test_file_stem(config, name) for name in config.rl.tests]
    assert len(set(files)) == len(files)


@pytest.mark.parametrize("selection", [*TRAINING, "q1_mixed,french", "zero_shot_no_distractors"])
def test_levels_exist_and_their_prompts_can_be_made(selection):
    check_environment(compose(selection).rl)


def test_the_command_line_wins():
    found = compose("q1_mixed", "rl_script_args.saving_path_logs=elsewhere", "rl_script_args.num_steps=5").rl
    assert (found.saving_path_logs, found.num_steps) == ("elsewhere", 5)


@pytest.mark.parametrize("agent", ["", "drrn,", "symbolic,"])
@pytest.mark.parametrize("clone", ["cloned_agent", "cloned_bot"])
def test_a_clone_is_an_llm_whatever_it_was_made_of(agent, clone):
    found = make_config([f"experiment=[q1_mixed,{agent}{clone}]"])
    assert (found.agent, found.lamorel.distributed_setup_args.n_llm_processes) == ("llm", 1)


def test_the_storage_root_is_one_variable(monkeypatch, tmp_path):
    """Logs, models, clones and DRRN's sentencepiece model move with GLAM_STORAGE; nothing stays behind."""
    monkeypatch.setenv("GLAM_STORAGE", str(tmp_path / "scratch"))
    (tmp_path / "scratch/cloned/q1_mixed_bot_seed_1").mkdir(parents=True)
    found = [make_config([f"experiment=[q1_mixed,{over}]"]).rl for over in ("drrn", "cloned_bot", "synonym_actions_2")]
    paths = {path for rl in found for path in (rl.saving_path_logs, rl.saving_path_model, rl.spm_path, rl.im_path)}
    assert {path.removeprefix(f"{tmp_path}/scratch/") for path in paths} == {
        "", "logs", "models", "sentencepiece/seed_1.model", "cloned/q1_mixed_bot_seed_1", "logs_synonym_actions_2",
    }  # fmt: skip
    monkeypatch.setenv("GLAM_STORAGE", "")
    assert compose_experiment("q1_mixed", []).rl_script_args.saving_path_logs == "storage/logs"
    for path in OVERLAYS.glob("*.yaml"):
        if path.stem not in ELSEWHERE:
            assert "storage/" not in path.read_text().replace("${oc.env:GLAM_STORAGE,storage}/", ""), path.name


@pytest.mark.parametrize("override", ["rl_script_args.name_experiment=lr=1e-5", "machine=1"])
def test_an_override_that_cannot_be_read_is_named(override):
    key, _, value = override.partition("=")
    with pytest.raises(UserError, match=f"override {override}: .*, give '{key}=\"{value}\"'"):
        compose_experiment("q1_mixed", [override])
