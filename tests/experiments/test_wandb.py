"""Weights & Biases without a network: a run that was interrupted is one run there."""

import os
import subprocess
import sys

import pytest

from tests.experiments.conftest import ROOT, script_environment
from tests.experiments.test_training import paths_of

pytestmark = pytest.mark.slow


def test_a_resumed_run_is_the_same_run(small):
    pytest.importorskip("wandb", reason="wandb is not installed: pip install -e .[tracking] (make test-slow does)")
    script = str(ROOT / "experiments" / "train_language_agent.py")
    environment = {**script_environment(), "WANDB_MODE": "offline"}
    for steps in (64, 96):
        overrides = [*small, "rl_script_args.wandb=true", f"rl_script_args.num_steps={steps}"]
        run = subprocess.run(
            [sys.executable, script, *overrides],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert run.returncode == os.EX_OK, run.stderr
    files = sorted((paths_of(small).logs / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2
    assert len({file.name for file in files}) == 1  # named by the run's id
    assert all(b"approx_kl" in file.read_bytes() for file in files)
