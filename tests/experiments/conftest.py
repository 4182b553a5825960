"""Tiny models, small configurations, and scripts as a user runs them."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from experiments.configuration import parse_config

ROOT = Path(__file__).resolve().parents[2]
os.environ.pop("GLAM_STORAGE", None)  # the overlays write there
SMALL = [
    "rl_script_args.name_environment=BabyAI-GoToRedBallNoDists-v0",
    "rl_script_args.max_episode_steps=6",
    "rl_script_args.number_envs=4",
    "rl_script_args.frames_per_proc=8",
    "rl_script_args.num_steps=96",  # 3 updates of 32 frames
    "rl_script_args.epochs=2",
    "rl_script_args.batch_size=12",  # does not divide 32
    "rl_script_args.nbr_obs=2",
    "rl_script_args.lr=1e-3",
    "rl_script_args.number_episodes=6",
    "rl_script_args.torch_threads=1",
]


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory):
    """A folder with the untrained models t5 and llama."""
    from experiments.tiny_llm.models import save_tiny_model

    folder = tmp_path_factory.mktemp("models")
    for architecture in ("t5", "llama"):
        save_tiny_model(folder / architecture, architecture, d_model=32, layers=1, heads=2)
    return folder


@pytest.fixture
def small(tmp_path, tiny_models):
    """Overrides of a run of seconds that writes below tmp_path."""
    return [
        *SMALL,
        f"lamorel_args.llm_args.model_path={tiny_models / 't5'}",
        f"rl_script_args.saving_path_logs={tmp_path / 'logs'}",
        f"rl_script_args.saving_path_model={tmp_path / 'models'}",
    ]


@pytest.fixture
def symbolic(tmp_path):
    """Overrides of a run of Symbolic-PPO of seconds, without a model; its script sets symbolic_ppo."""
    return [
        "rl_script_args.name_environment=BabyAI-GoToRedBallNoDists-v0",
        "rl_script_args.symbolic.number_envs=4",
        "rl_script_args.symbolic.frames_per_proc=8",
        "rl_script_args.symbolic.recurrence=4",
        "rl_script_args.symbolic.batch_size=12",  # does not divide 32
        "rl_script_args.symbolic.epochs=2",
        "rl_script_args.num_steps=96",  # 3 updates of 32 frames
        "rl_script_args.number_episodes=6",
        "rl_script_args.torch_threads=1",
        f"rl_script_args.saving_path_logs={tmp_path / 'logs'}",
        f"rl_script_args.saving_path_model={tmp_path / 'models'}",
    ]


PROMPTS = [
    f"Possible action of the agent: turn left, turn right, go forward, pick up, drop, toggle \n Goal of the agent: "
    f"go to the red ball \n Observation 0: You see a wall {i} steps left, You see a red ball 1 step right, \n "
    "Action 0: "
    for i in range(2, 7)
]


@pytest.fixture(scope="session")
def spm_path(tmp_path_factory):
    """A sentencepiece model of a few prompts."""
    from experiments.make_sentencepiece import train_sentencepiece

    path = tmp_path_factory.mktemp("sentencepiece") / "spm.model"
    path.write_bytes(train_sentencepiece(PROMPTS, 8000))
    return path


@pytest.fixture
def vocabulary(spm_path):
    from experiments.agents.drrn.vocabulary import Vocabulary

    return Vocabulary(spm_path)


def make_config(overrides, *, model_exists=True):
    """The validated configuration that a script would get."""
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return parse_config(compose("base", overrides=list(overrides)), model_exists=model_exists)


def script_environment():
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def run_script(name, overrides, cwd, *, timeout=300):
    """Run experiments/NAME as a user does, from the folder `cwd`."""
    command = [sys.executable, str(ROOT / "experiments" / name), *overrides]
    return subprocess.run(
        command, cwd=cwd, env=script_environment(), capture_output=True, text=True, timeout=timeout, check=False
    )


def wait_for_handler(process):
    """Until the script has a handler for SIGTERM: its first imports are over; or has ended, before anybody looked."""
    deadline = time.monotonic() + 120
    while process.poll() is None and not has_handler(process.pid):
        assert time.monotonic() < deadline, "no handler in two minutes"
        time.sleep(0.01)


def has_handler(pid):
    """Whether a process has a handler for SIGTERM."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
    return bool(caught & 1 << signal.SIGTERM - 1)


def free_port():
    """A port that is free, and that Linux gives to nobody who does not name it, so that it still is when it is used."""
    while True:
        port = 10_000 + secrets.randbelow(5_000)  # below those of SLURM jobs, too; tests set the seed of `random`
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
