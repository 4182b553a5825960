"""The benchmark scripts run on tiny models, and their workload is what they say it is."""

import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
MODULES = (
    "ppo_iterations",
    "report",
    "scoring",
    "scoring_measure",
    "scoring_subprocesses",
    "scoring_workload",
    "scoring_yardsticks",
)


@pytest.fixture(autouse=True)
def _beside_the_scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Scripts import the modules beside them; other tests must not find those."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    for name in MODULES:
        sys.modules.pop(name, None)


def test_the_workload(monkeypatch: pytest.MonkeyPatch) -> None:
    workload: Any = import_module("scoring_workload")
    tokenizer = workload.make_tokenizer()
    prompts = [tokenizer(prompt)["input_ids"] for prompt in workload.make_prompts(32)]
    lengths = sorted(map(len, prompts))
    assert (lengths[0], lengths[-1], len(set(lengths))) == (150, 320, 32)
    assert len({tuple(ids[:31]) for ids in prompts}) == 1
    assert len({ids[31] for ids in prompts}) > 1
    assert all(tokenizer.unk_token_id not in ids for ids in prompts)
    assert workload.make_prompts(32) == workload.make_prompts(32)
    others = [tokenizer(prompt)["input_ids"] for prompt in workload.make_prompts(32, seed=1)]
    assert [*map(len, others)] == [*map(len, prompts)]
    assert others != prompts
    candidates = tokenizer(workload.CANDIDATES)["input_ids"]
    assert [*map(len, candidates)] == [2, 2, 2, 2, 1, 1]
    assert candidates[0][0] == candidates[1][0]
    assert len({ids[0] for ids in candidates}) == 5


def test_scoring_on_a_tiny_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    scoring: Any = import_module("scoring")
    options = (
        "--sizes tiny --models t5,gpt2 --repeats 1 --contexts 3 --update-contexts 2 --threads 1 --skip memory,processes"
    )
    monkeypatch.setattr(sys, "argv", ["scoring.py", *options.split(), "--output", str(tmp_path / "table.md")])
    assert scoring.main() == 0
    written = (tmp_path / "table.md").read_text()
    assert written == capsys.readouterr().out
    rows = {row[0]: row[1:] for row in (line.strip("| ").split("|") for line in written.splitlines()) if len(row) == 3}
    figures = {name.strip(): [float(cell) for cell in cells] for name, cells in rows.items() if name[0] in "slu"}
    assert {"scoring: ours / (b)", "scoring: ours / (c)", "update: ours / bound"} <= figures.keys()
    assert all(0 < difference <= 1e-4 for difference in figures["largest difference from (a), nats"])
    rates = figures["scoring: ours, contexts/s"], figures["scoring: (b), contexts/s"]
    for ours, theirs, ratio in zip(*rates, figures["scoring: ours / (b)"], strict=True):
        assert ratio == pytest.approx(ours / theirs, rel=0.02)


@pytest.mark.slow
def test_what_needs_processes_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scoring, subprocesses = import_module("scoring"), import_module("scoring_subprocesses")
    import_module("scoring_workload").write_model(tmp_path, "llama", "tiny", "fp32")
    options = "--sizes tiny --contexts 2 --repeats 1 --threads 1"
    monkeypatch.setattr(sys, "argv", ["scoring.py", *options.split()])
    args = scoring._arguments()
    found = subprocesses.peak_memory(tmp_path, "update", args)
    assert 1e8 < found["loaded"] <= found["peak"] < 2e9
    assert subprocesses.launched_ratio(tmp_path, "llama", 1, args) > 0


def test_a_model_that_the_size_does_not_have(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, "argv", ["scoring.py", "--sizes", "large", "--models", "gpt2"])
    with pytest.raises(SystemExit):
        import_module("scoring").main()
    assert "gpt2 is none of t5, llama" in capsys.readouterr().err


def test_the_table_goes_between_its_markers(tmp_path: Path) -> None:
    report: Any = import_module("report")
    path = tmp_path / "README.md"
    path.write_text("before\n<!-- x -->\nold\n<!-- /x -->\nafter\n")
    report.replace_between_markers(path, "x", report.table(["", "T5"], [["speed", "1"]]))
    assert (
        path.read_text() == "before\n<!-- x -->\n|       | T5 |\n|-------|----|\n| speed | 1  |\n<!-- /x -->\nafter\n"
    )
    with pytest.raises(ValueError, match="no lines <!-- y -->"):
        report.replace_between_markers(path, "y", "")


def test_ppo_iterations_of_a_tiny_model(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    keys = ["number_envs=2", "frames_per_proc=3", "batch_size=4", "epochs=1"]
    options = " ".join(["--size tiny --iterations 1 --threads 1", *(f"rl_script_args.{key}" for key in keys)])
    monkeypatch.setattr(sys, "argv", ["ppo_iterations.py", *options.split()])
    assert import_module("ppo_iterations").main() == 0
    printed = capsys.readouterr().out
    assert printed.startswith("| one iteration of 6 steps")
    rate, share, hours = (
        float(re.search(rf"{name}.*\| ([\d.e+]+) ", printed).group(1))  # type: ignore[union-attr]
        for name in ("steps/s, all in", "of the 17.4 steps/s", "hours for 1,500,000 steps")
    )
    assert share == pytest.approx(rate / 17.36, abs=0.01)
    assert hours == pytest.approx(1_500_000 / rate / 3600, rel=0.02)


def test_iterations_of_twosome(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    options = "--model llama --size tiny --dtype bf16 --iterations 1 --experiment twosome_food_preparation"
    monkeypatch.setattr(sys, "argv", ["ppo_iterations.py", *options.split(), "rl_script_args.frames_per_proc=8"])
    assert import_module("ppo_iterations").main() == 0
    printed = capsys.readouterr().out
    assert printed.startswith("| one iteration of 32 steps")
    assert "hours for 50,000 steps" in printed
