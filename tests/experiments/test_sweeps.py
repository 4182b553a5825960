"""Sweeps (`-m`) of hydra scripts: one job after another in this process, or each as a job of submitit."""

import json
import signal
import subprocess
import sys
import time

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from experiments.errors import UserError
from experiments.hydra_script import compose_experiment, explain_override
from experiments.stopping import STOPPED
from tests.experiments.conftest import ROOT, SMALL, run_script, script_environment
from tests.experiments.test_training import paths_of

SEEDS = "rl_script_args.seed=1,2"
RANDOM = [
    *SMALL, "rl_script_args.random_agent=true", "rl_script_args.saving_path_logs=logs",
    "rl_script_args.saving_path_model=models",
]  # fmt: skip


# runs the script, each update taking half a second more: there is time to see the first before the last
DRIVER = """
import runpy, sys, time
from experiments.training_run import TrainingRun
advance = TrainingRun.advance
def slowly(run):
    time.sleep(0.5)
    advance(run)
TrainingRun.advance = slowly
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def results(folder):
    """The seeds that have been tested."""
    return sorted(path.name[-1] for path in (folder / "logs").iterdir() if list(path.rglob("no_modification_test.npy")))


def test_seeds_run_one_after_the_other(tmp_path):
    done = run_script("post-training_tests.py", ["-m", *RANDOM, SEEDS], tmp_path)
    assert done.returncode == 0, done.stderr
    assert results(tmp_path) == ["1", "2"]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == []
    assert len(list(tmp_path.glob("storage/multirun/*/multirun.yaml"))) == 1


def test_seeds_run_as_jobs_of_submitit(tmp_path):
    done = run_script("post-training_tests.py", ["-m", "hydra/launcher=submitit_local", *RANDOM, SEEDS], tmp_path)
    assert done.returncode == 0, done.stderr
    assert results(tmp_path) == ["1", "2"]
    assert {path.name for path in tmp_path.iterdir()} == {"logs", "storage"}
    logs = list(tmp_path.glob("storage/multirun/*/.submitit/*/*_log.err"))
    assert len(logs) == 2
    assert all("no_modification_test: success" in path.read_text() for path in logs)


@pytest.mark.parametrize("launcher", ["basic", pytest.param("submitit_local", marks=pytest.mark.slow)])
def test_what_a_user_can_mend_ends_a_sweep_with_2(tmp_path, launcher):
    words = ["-m", f"hydra/launcher={launcher}", *RANDOM, SEEDS, "lamorel_args.llm_args.model_path=none"]
    done = run_script("train_language_agent.py", words, tmp_path)
    assert done.returncode == 2, done.stderr
    message = (
        "error: rl_script_args.random_agent=true: this agent does not learn, run post-training_tests.py to test it"
    )
    assert done.stderr.splitlines()[-1] == message
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_stopped_sweep_goes_on(symbolic, tmp_path):
    """SIGUSR1 ends all of it: seed 1 is saved, seed 2 has not begun; the same command ends both."""
    run = [*symbolic, "rl_script_args.num_steps=320"]  # 10 updates
    paths = [paths_of([*run, "rl_script_args.symbolic_ppo=true", f"rl_script_args.seed={seed}"]) for seed in (1, 2)]
    script = [str(ROOT / "experiments/train_symbolic_ppo.py"), "-m", *run, SEEDS]
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, *script],
        cwd=tmp_path, env=script_environment(), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 240
    while not (paths[0].logs / "status.json").exists() or len((paths[0].logs / "log.csv").read_text().splitlines()) < 2:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGUSR1)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == STOPPED, errors
    assert "Traceback" not in errors
    assert json.loads((paths[0].logs / "run.json").read_text())["state"] == "stopped"
    assert not paths[1].logs.exists()
    done = run_script("train_symbolic_ppo.py", script[1:], tmp_path)
    assert done.returncode == 0, done.stderr
    for path in paths:
        record = json.loads((path.logs / "run.json").read_text())
        assert (record["state"], record["update"]) == ("done", 10)
    assert "resumed at update" in done.stderr


def launcher_of(*overrides):
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        tree = compose("base", overrides=["hydra/launcher=slurm", *overrides], return_hydra_config=True)
        return OmegaConf.to_container(tree.hydra.launcher)


def test_the_slurm_launcher():
    """submitit's signal is USR2 and queues again; sbatch's environment decides on partition, account and constraint."""
    submitit = pytest.importorskip("submitit")
    found = launcher_of("hydra.launcher.timeout_min=60")
    assert found["_target_"].endswith("SlurmLauncher")
    assert (found["gpus_per_node"], found["tasks_per_node"], found["timeout_min"]) == (1, 1, 60)
    assert found["partition"] is found["account"] is found["constraint"] is None
    assert (found["additional_parameters"], found["max_num_timeout"]) == ({"requeue": True}, 1000)
    assert submitit.JobEnvironment.USR_SIG == "USR2"


def test_without_submitit():
    """hydra's message where the plugin of `defaults: [submitit_slurm]` is not installed."""
    error = ValueError(
        "In 'hydra/launcher/slurm': Could not find 'hydra/launcher/submitit_slurm'\n\nAvailable options…"
    )
    assert explain_override(error) == "hydra/launcher: submitit is not installed, pip install -e '.[cluster]'"
    error = ValueError("In 'base': Could not find 'hydra/launcher/slrm'")
    assert explain_override(error).endswith("is not a file of configs/hydra/launcher: did you mean slurm?")


def test_a_group_without_a_value():
    with pytest.raises(UserError, match=r"^machine= is not a file of configs/machine: choose from cpu, gpu, slurm$"):
        compose_experiment("demo", ["machine="])
