"""Recorded episodes in TWOSOME's environments, step by step: observations, offered actions, rewards, ends."""

import subprocess
import sys
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize(
    ("env", "steps"),
    [("tomato_salad", 1686), ("tomato_lettuce_salad", 1990), ("food_preparation", 1298), ("entertainment", 1658)],
)
def test_every_recorded_step_matches(env, steps):
    command = [sys.executable, GOLDEN / "check_traces.py", GOLDEN / "twosome.jsonl.gz", "--env", env]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == [f"{steps}/{steps} steps match"], done.stdout + done.stderr
    assert done.returncode == 0
