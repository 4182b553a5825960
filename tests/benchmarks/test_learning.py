"""The benchmarks of what the baselines learn, on too few frames to learn anything."""

import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

from experiments import make_sentencepiece

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.parametrize(
    ("benchmark", "overrides", "row"),
    [
        (
            "drrn_learns",
            ["number_envs=4", "frames_per_proc=8", "drrn.batch_size=4", "drrn.hidden=8", "drrn.embedding=8"],
            "after 64 frames (interval above random's)",
        ),
        (
            "symbolic_learns",
            [*(f"symbolic.{k}" for k in ("number_envs=4", "frames_per_proc=8", "recurrence=4", "batch_size=16")),
             "max_episode_steps=6"],
            "after 64 frames (≥ 0.9)",
        ),
        (
            "vector_ppo_learns",
            [f"symbolic.{k}" for k in ("number_envs=2", "frames_per_proc=32", "batch_size=16")],
            "after 64 decisions",
        ),
    ],
)  # fmt: skip
def test_a_baseline_learns(monkeypatch, capsys, tmp_path, benchmark, overrides, row):
    threads = torch.get_num_threads()
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(make_sentencepiece, "LEVELS", {})  # the configured level alone
    options = ["--frames", "64", "--episodes", "4", "--output", str(tmp_path)]
    given = [f"rl_script_args.{override}" for override in overrides]
    monkeypatch.setattr(sys, "argv", [f"{benchmark}.py", *options, *given])
    try:
        assert import_module(benchmark).main() == 1  # what it demands is not reached yet
    finally:
        torch.set_num_threads(threads)
        for name in (benchmark, "learning", "report"):
            sys.modules.pop(name, None)
    table = (tmp_path / "table.md").read_text()
    assert table in capsys.readouterr().out
    assert table.startswith(
        "| OvercookedText-TomatoSalad-v0" if "vector" in benchmark else "| BabyAI-GoToRedBallNoDists-v0"
    )
    assert row in table
    assert (tmp_path / "learning_curve.png").stat().st_size > 10_000


def test_the_twosome_demo_is_measured(monkeypatch, capsys, tmp_path):
    threads = torch.get_num_threads()
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    small = ["number_envs=2", "frames_per_proc=8", "num_steps=16", "number_episodes=2", "twosome.actor_minibatches=2"]
    small += [f"tiny_llm.{size}" for size in ("d_model=16", "layers=1", "vocabulary_episodes=2")]
    given = [f"rl_script_args.{override}" for override in small]
    output = tmp_path / "learns"
    monkeypatch.setattr(sys, "argv", ["twosome_learns.py", "--output", str(output), *given])
    try:
        benchmark = import_module("twosome_learns")
        assert benchmark.main() == 1  # what it demands is not reached yet
        with pytest.raises(SystemExit, match="2"):  # a folder is used once
            benchmark.main()
    finally:
        torch.set_num_threads(threads)
        for name in ("twosome_learns", "learning", "report"):
            sys.modules.pop(name, None)
    table = (output / "table.md").read_text()
    assert table in capsys.readouterr().out
    assert "after 16 decisions: success (lower end ≥ 0.1)" in table
