"""Small cloning runs, for the tests of behavioural cloning."""

import csv
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from experiments.agents.bot import BotAgent
from experiments.clm_behavioral_cloning import clone
from experiments.environments import check_environment
from experiments.trajectories import export_trajectories
from tests.experiments.conftest import SMALL, make_config

LEVEL = "BabyAI-GoToRedBallNoDists-v0"


def export_bot(folder, transitions, files, *overrides):
    """What the bot sees and does, in so many files."""
    paths = ("lamorel_args.llm_args.model_path=none/none", "rl_script_args.saving_path_logs=x")
    config = make_config(
        [*SMALL, *paths, "rl_script_args.saving_path_model=x", f"rl_script_args.num_steps={transitions}", *overrides]
    )
    check_environment(config.rl)
    whole = export_trajectories(config.rl, BotAgent(), folder / "whole", {})
    arrays = {path.name.split("_")[2]: np.load(path) for path in whole}  # prompts, actions
    shutil.rmtree(folder / "whole")
    (folder / "bot_trajectories.json").unlink(missing_ok=True)
    for number, (start, end) in enumerate(pairwise(np.linspace(0, transitions, files + 1).astype(int))):
        for kind, texts in arrays.items():
            np.save(folder / f"bot_trajectories_{kind}_{number}.npy", texts[start:end])


def arguments(data, model, output, **changes):
    """The command line of a run of 12 gradient steps: 138 pairs to learn from, 12 at a time, the last 6."""
    options = {
        "data_dir": data, "file_name": "bot_trajectories", "model_dir": model, "output_dir": output,
        "per_device_batch_size": 4, "gradient_accumulation_steps": 3, "lr": 1e-2, "train_transitions": 138,
        "eval_every": 6, "log_every": 5, "checkpoint_every": 3,
    }  # fmt: skip
    return [text for key, value in (options | changes).items() for text in (f"--{key}", str(value))]


def run(*args, **changes):
    clone(arguments(*args, **changes))


def weights(folder):
    return load_file(folder / "model.safetensors")


def rows(folder):
    """log.csv as dicts of numbers, nan where a cell is empty."""
    with (folder / "log.csv").open(newline="") as file:
        return [{name: float(cell or "nan") for name, cell in row.items()} for row in csv.DictReader(file)]


def assert_same_weights(found, expected, *, atol=0.0):
    found, expected = weights(found), weights(expected)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        if atol:
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=atol, msg=lambda text, n=name: f"{n}: {text}")
        else:
            assert torch.equal(found[name], tensor), name


def assert_similar_rows(found, expected):
    """The same log up to rounding."""
    for found_row, expected_row in zip(rows(found), rows(expected), strict=True):
        assert found_row == pytest.approx(expected_row, rel=1e-4, nan_ok=True)


def assert_same_run(found, expected):
    """Bit for bit the same model, and the same log."""
    assert_same_weights(found, expected)
    assert (found / "log.csv").read_bytes() == (expected / "log.csv").read_bytes()
