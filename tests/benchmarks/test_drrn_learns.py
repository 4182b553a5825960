"""The benchmark of what DRRN learns, on too few frames to learn anything."""

import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

from experiments import make_sentencepiece

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_drrn_learns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(make_sentencepiece, "LEVELS", {})  # the configured level alone
    small = ["number_envs=4", "frames_per_proc=8", "drrn.batch_size=4", "drrn.hidden=8", "drrn.embedding=8"]
    options = ["--frames", "64", "--episodes", "4", "--output", str(tmp_path)]
    overrides = [f"rl_script_args.{key}" for key in small]
    monkeypatch.setattr(sys, "argv", ["drrn_learns.py", *options, *overrides])
    try:
        assert import_module("drrn_learns").main() == 1  # not yet better than random
    finally:
        torch.set_num_threads(threads)
        for name in ("drrn_learns", "learning", "report"):
            sys.modules.pop(name, None)
    table = (tmp_path / "table.md").read_text()
    assert table in capsys.readouterr().out
    assert table.startswith("| BabyAI-GoToRedBallNoDists-v0")
    assert "after 64 frames (interval above random's)" in table
    assert (tmp_path / "learning_curve.png").stat().st_size > 10_000
