"""Scripts of Lamorel 0.2's users run as they are, in process and launched (upstream_script.py is one)."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from launching import Launch, lamorel_args

SCRIPT = Path(__file__).with_name("upstream_script.py")
# Each run starts processes that import torch: the default selection has one model for these.
MODELS = pytest.mark.parametrize("family", ["t5", pytest.param("llama", marks=pytest.mark.slow)])
TARGETS = {"t5": ["q", "v"], "llama": ["q_proj", "v_proj"]}


def run(tiny: Any, folder: Path, *, launched: int = 0, llm_args: Any = None, **keys: Any) -> dict[str, Any]:
    """What the script found, in its own process or with `launched` LLM processes."""
    args = lamorel_args(tiny, max(1, launched))
    args["llm_args"] |= {"pre_encode_inputs": True, **(llm_args or {})}
    defaults = {"epochs": 2, "target_modules": None, "loading_path": None, "output_dir": str(folder)}
    launch = Launch.of(folder, args, SCRIPT, **{**defaults, **keys})
    command = launch.command() if launched else [sys.executable, str(SCRIPT), *launch.arguments]
    done = subprocess.run(command, cwd=folder, env=launch.environment(), capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "results.pt")


@pytest.mark.parametrize("pre_encode_inputs", [True, False])
def test_their_scores_are_the_built_in_ones(tiny_pair: Any, tmp_path: Path, pre_encode_inputs: bool) -> None:
    if tiny_pair.model_type == "seq2seq" and not pre_encode_inputs:
        pytest.skip("a key of decoder-only models")
    found = run(tiny_pair, tmp_path, llm_args={"pre_encode_inputs": pre_encode_inputs})
    torch.testing.assert_close(found["scores"], found["builtin"], rtol=0, atol=1e-4)
    for value, per_candidate in zip(found["values"], found["first"], strict=True):
        torch.testing.assert_close(per_candidate, value.expand(4), rtol=0, atol=1e-5)
    [update] = found["updates"]
    assert update["loss"] == update["loss"]
    assert (update["process"], update["world"]) == found["process"] == (0, 1)
    assert not torch.allclose(found["after"], found["scores"], atol=1e-3)


@MODELS
def test_launched_they_see_the_world_and_learn_the_same(tiny_models: Any, tmp_path: Path, family: str) -> None:
    alone = run(tiny_models[family], tmp_path / "alone")
    found = run(tiny_models[family], tmp_path / "launched", launched=1)
    assert found["process"] == (0, 2)
    [update] = found["updates"]
    assert (update["process"], update["world"]) == (1, 2)
    for key in ("scores", "values", "after"):
        torch.testing.assert_close(found[key], alone[key], rtol=0, atol=1e-4)
    assert update["loss"] == pytest.approx(alone["updates"][0]["loss"], abs=1e-4)


def test_two_llm_processes_learn_alike(t5: Any, tmp_path: Path) -> None:
    found = run(t5, tmp_path, launched=2)
    assert found["process"] == (0, 3)
    assert sorted(update["process"] for update in found["updates"]) == [1, 2]
    assert not torch.allclose(found["after"], found["scores"], atol=1e-3)


@MODELS
@pytest.mark.parametrize("lora", [pytest.param(False, marks=pytest.mark.slow), True])
def test_weights_they_saved_are_loaded_by_their_initializer(
    tiny_models: Any, tmp_path: Path, family: str, lora: bool
) -> None:
    targets = TARGETS[family] if lora else None
    first = run(tiny_models[family], tmp_path / "first", target_modules=targets)
    saved = torch.load(tmp_path / "first" / "model.checkpoint")
    assert {key.split(".")[0] for key in saved} == {"_LLM_model", "_module_functions"}
    assert any("lora_A" in key for key in saved) == lora
    assert torch.load(tmp_path / "first" / "optimizer.checkpoint")["state"]
    keys = {"target_modules": targets, "loading_path": str(tmp_path / "first")}
    second = run(tiny_models[family], tmp_path / "second", **keys)
    torch.testing.assert_close(second["scores"], first["after"], rtol=0, atol=1e-5)
