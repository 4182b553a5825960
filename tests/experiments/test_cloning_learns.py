"""A cloned tiny LLM plays better than the same LLM before (zero-shot), and than chance, on the same episodes."""

import csv

import pytest

from experiments.post_training_tests import run_tests
from experiments.results.intervals import wilson
from experiments.tiny_llm.models import ARCHITECTURES, save_tiny_model
from tests.experiments.cloning_runs import LEVEL, export_bot, run
from tests.experiments.conftest import SMALL, make_config
from tests.experiments.test_training import paths_of

STEPS = "rl_script_args.max_episode_steps=16"
EPISODES = 200
TEST_OF_CLONE = "no_modification_test_im"


def played(overrides, test):
    """(seed, mission, success) of each test episode."""
    run_tests(make_config(overrides))
    path = paths_of(overrides).test_folder(LEVEL) / "episodes" / f"{test}.csv"
    with path.open(newline="") as file:
        return [(row["seed"], row["mission"], row["success"] == "1") for row in csv.DictReader(file)]


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["t5", "llama"])
def test_cloning_beats_zero_shot(tmp_path, architecture):
    model, cloned = tmp_path / "model", tmp_path / "cloned"
    save_tiny_model(model, architecture)
    export_bot(tmp_path / "data", 6000, 2, STEPS)
    options = {
        "per_device_batch_size": 64, "gradient_accumulation_steps": 1, "lr": 1e-3, "train_transitions": 5700,
        "eval_every": 100, "checkpoint_every": 100,
    }  # fmt: skip
    run(tmp_path / "data", model, cloned, **options)
    tested = [
        *SMALL, STEPS, f"rl_script_args.number_episodes={EPISODES}", "rl_script_args.number_envs=32",
        f"lamorel_args.llm_args.model_path={model}", f"lamorel_args.llm_args.model_type={ARCHITECTURES[architecture]}",
        f"rl_script_args.saving_path_logs={tmp_path}/logs", f"rl_script_args.saving_path_model={tmp_path}/models",
    ]  # fmt: skip
    episodes = [
        played(tested, "no_modification_test_zero_shot"),
        played(
            [*tested, "rl_script_args.random_agent=true", "rl_script_args.name_model=random"], "no_modification_test"
        ),
        played([*tested, "rl_script_args.im_learning=true", f"rl_script_args.im_path={cloned}"], TEST_OF_CLONE),
    ]
    assert len({tuple(episode[:2] for episode in some) for some in episodes}) == 1  # the same seeds and missions
    zero_shot, chance, clone = (wilson(sum(episode[2] for episode in some), EPISODES) for some in episodes)
    print(f"success within 16 steps: zero-shot {zero_shot}, random {chance}, cloned {clone}")
    assert clone.low > zero_shot.high
    assert clone.low > chance.high
