"""The scripts as a user calls them: from any folder, and with bad input."""

import time

import pandas as pd
import pytest

from tests.experiments.conftest import SMALL, run_script

TRAIN = "train_language_agent.py"
SECONDS = 10  # for an error on a quiet machine


def first_line(result):
    return result.stderr.strip().splitlines()[0]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("rl_script_args.nmu_steps=3", "nmu_steps is not a known key: did you mean rl_script_args.num_steps"),
        ("nbr_obz=3", "nbr_obz is not a known key: did you mean rl_script_args.nbr_obs"),
        ("experiment=dmeo", "experiment=dmeo is not a file of configs/experiment: did you mean demo?"),
        ("experiment=[q1_mixed,aflna]", "experiment=aflna is not a file of configs/experiment: did you mean aflan"),
        ("machine=mainframe", "machine=mainframe is not a file of configs/machine: choose from cpu, gpu, slurm"),
        ("rl_script_args.lr=fast", "rl_script_args.lr: Value 'fast'"),
        ("rl_script_args.name_environment=BabyAI-GoToLocl-v0", "did you mean BabyAI-GoToLocal-v0"),
        ("lamorel_args.llm_args.model_path=no/such/folder", "model folder no/such/folder does not exist"),
        ("lamorel_args.llm_args.dtype=fp8", "lamorel_args.llm_args.dtype"),
        ("rl_script_args.saving_path_logs=/proc/here", "rl_script_args.saving_path_logs: cannot write to /proc/here/"),
        ("lamorel_args.llm_args.parallelism.use_gpu=true", "use_gpu=true: torch finds no CUDA GPU, set it to false"),
        ("rl_script_args.action_space=[]", "rl_script_args.action_space=[]: give at least one action name"),
        ("rl_script_args.task_kind=goto", "takes no option 'task_kind'"),
        ("rl_script_args.reward_shaping_beta=1", "only 0 is accepted"),
        ("rl_script_args.number_envs=101", "at most 100"),
        ("rl_script_args.bot=true", "run post-training_tests.py"),
        ("rl_script_args.env_packages=[nowhere]", "package 'nowhere' is not installed"),
        ("rl_script_args.prompter=environment", "prompter=environment needs info['prompt']"),
        ("rl_script_args.name_environment=CartPole-v1", "prompter=glam needs info['descriptions']"),
        ("rl_script_args.environment_options={sight: 2}", "by +rl_script_args.environment_options.NAME=VALUE"),
        ("+rl_script_args.environment_options.sight=2", "takes no option 'sight'"),
        ("rl_script_args.saving_path_logs=~/x", """give 'rl_script_args.saving_path_logs="~/x"'"""),
        ("=3", "override =3: it names no key"),
    ],
)  # fmt: skip
def test_bad_input_gives_one_clear_line(small, tmp_path, override, expected, no_gpu):
    start = time.monotonic()
    result = run_script(TRAIN, [*small, override], tmp_path)
    assert time.monotonic() - start < 4 * SECONDS  # tests may share the machine
    assert result.returncode != 0
    assert first_line(result).startswith("error: ")
    assert expected in first_line(result)
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "models").exists() or not any((tmp_path / "models").iterdir())


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def test_required_keys_are_named(tmp_path):
    result = run_script(TRAIN, SMALL, tmp_path)
    assert result.returncode == 2
    assert "rl_script_args.saving_path_logs is required" in first_line(result)


def test_a_resume_with_another_configuration(small, tmp_path):
    assert run_script(TRAIN, [*small, "rl_script_args.num_steps=32"], tmp_path).returncode == 0
    checkpoint = sorted((tmp_path / "models").rglob("manifest.json"))
    before = [path.stat().st_mtime_ns for path in checkpoint]
    result = run_script(TRAIN, [*small, "rl_script_args.discount=0.9"], tmp_path)
    assert result.returncode == 2
    assert "was made with another configuration (rl_script_args.discount): give the same values" in first_line(result)
    assert [path.stat().st_mtime_ns for path in checkpoint] == before  # nothing on disk was touched


def test_from_the_tiny_llm_to_the_table(tmp_path):
    """make_tiny_llm → train → tests of random, zero-shot and trained → table and curve, from a folder that is not the
    repository, with paths relative to it."""
    overrides = [
        "experiment=demo",
        *SMALL,
        "rl_script_args.tiny_llm.clone_steps=2",
        "rl_script_args.tiny_llm.clone_episodes=4",
    ]
    tests = "rl_script_args.tests=[no_modification_test,other_goal_test]"
    level = "rl_script_args.name_environment=BabyAI-GoToLocalS5N2-v0"
    random_agent = ["rl_script_args.random_agent=true", "rl_script_args.name_model=random"]
    for script, extra in (
        ("make_tiny_llm.py", []),
        ("post-training_tests.py", [*random_agent]),
        ("post-training_tests.py", [tests]),
        (TRAIN, []),
        ("post-training_tests.py", [tests, "rl_script_args.zero_shot=false"]),
    ):
        result = run_script(script, [*overrides, level, *extra], tmp_path)
        assert result.returncode == 0, result.stderr
        assert "Traceback" not in result.stderr
        assert "%|" not in result.stderr, result.stderr  # no progress bars where there is no terminal
    result = run_script("test_results.py", ["--logs", "storage/demo/logs", "--output", "results"], tmp_path)
    assert result.returncode == 0, result.stderr
    table = pd.read_csv(tmp_path / "results" / "results.csv")
    assert list(zip(table.test, table.agent, strict=True)) == [
        ("no modification", "random"),
        ("no modification", "zero-shot"),
        ("no modification", "trained"),
        ("other goal", "zero-shot"),
        ("other goal", "trained"),
    ]
    assert (table.episodes == 6).all()
    assert "| zero-shot |" in result.stdout
    assert (tmp_path / "results" / "learning_curve.png").stat().st_size > 10_000
    assert {path.name for path in tmp_path.iterdir()} == {"storage", "results"}  # hydra leaves no folder of its own


def test_results_of_another_agent_are_not_replaced(small, tmp_path):
    assert run_script("post-training_tests.py", [*small, "rl_script_args.random_agent=true"], tmp_path).returncode == 0
    result = run_script("post-training_tests.py", [*small, "rl_script_args.zero_shot=false"], tmp_path)
    assert result.returncode == 2
    assert "holds results of the agent 'random', not 'trained'" in first_line(result)


def test_a_missing_checkpoint_is_named(small, tmp_path):
    result = run_script("post-training_tests.py", [*small, "rl_script_args.zero_shot=false"], tmp_path)
    assert result.returncode == 2
    assert "holds no checkpoint: train with the same configuration first" in first_line(result)


def test_no_matching_runs_are_named(tmp_path):
    result = run_script("test_results.py", ["--logs", "nowhere", "--output", "results"], tmp_path)
    assert result.returncode == 2
    assert "matches no folder of nowhere" in first_line(result)
