"""The benchmark of what Symbolic-PPO learns, on too few frames to learn anything."""

import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_symbolic_learns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    small = ["number_envs=4", "frames_per_proc=8", "recurrence=4", "batch_size=16"]
    options = ["--frames", "64", "--episodes", "4", "--output", str(tmp_path)]
    overrides = [f"rl_script_args.symbolic.{key}" for key in small]
    limit = "rl_script_args.max_episode_steps=6"
    monkeypatch.setattr(sys, "argv", ["symbolic_learns.py", *options, *overrides, limit])
    try:
        assert import_module("symbolic_learns").main() == 1  # far from 0.9
    finally:
        torch.set_num_threads(threads)
        for name in ("symbolic_learns", "learning", "report"):
            sys.modules.pop(name, None)
    table = (tmp_path / "table.md").read_text()
    assert table in capsys.readouterr().out
    assert table.startswith("| BabyAI-GoToRedBallNoDists-v0")
    assert "after 64 frames (≥ 0.9)" in table
    assert (tmp_path / "learning_curve.png").stat().st_size > 10_000
