"""Models spread over devices: which part goes where, hooks on every part, and two real GPUs where there are."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from test_lamorel_checkpoint import CANDIDATES, CONTEXTS, LORA, Learner, assert_equal, weights
from test_lamorel_updates import Value, assert_same_gradients, one_graph

import lamorel.loading
from lamorel.config import LamorelConfigError, LLMArgs, LoraArgs
from lamorel.placement import choose_dtype, device_map, input_device, spread_over

MB = 1_000_000


def empty_model(family: str) -> Any:
    """A model of some size, without memory."""
    with torch.device("meta"):
        if family == "t5":
            config = transformers.T5Config(d_model=256, d_ff=1024, num_layers=6, vocab_size=1000)
            return transformers.AutoModelForSeq2SeqLM.from_config(config)
        llama = transformers.LlamaConfig(hidden_size=256, intermediate_size=1024, num_hidden_layers=6, vocab_size=1000)
        return transformers.AutoModelForCausalLM.from_config(llama)


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_layers_stay_whole_and_the_embedding_comes_first(family: str) -> None:
    model = empty_model(family)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    found = device_map(model, {0: int(0.6 * size), 1: int(0.7 * size)})
    assert set(found.values()) == {0, 1}
    assert next(iter(found.values())) == 0
    whole = tuple(model._no_split_modules)
    assert whole
    for name in found:
        inside = [name.rsplit(".", n)[0] for n in range(1, name.count(".") + 1)]
        assert all(type(model.get_submodule(parent)).__name__ not in whole for parent in inside), name


def test_a_model_that_does_not_fit() -> None:
    with pytest.raises(LamorelConfigError, match=r"model_parallelism_size is 2, but the model does not fit .*0\.0 GB"):
        device_map(empty_model("llama"), {0: 2 * MB, 1: 2 * MB})


@pytest.mark.parametrize("lora", [False, True])
def test_hooks_on_every_part(tiny_pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: bool) -> None:
    """What dispatching adds to a model, on the one device that is here."""

    def options() -> dict[str, Any]:
        adapters = LORA[tiny_pair.family] if lora else None
        return {"updater": Learner(), "functions": {"value": Value()}, "lora": adapters}

    with tiny_pair.caller(**options()) as caller:
        expected = caller.score(CONTEXTS, CANDIDATES, ["value"])
        gradients = one_graph(caller._worker._llm)
        caller.update(CONTEXTS, CANDIDATES)
        after = weights(caller)

    def place(model: Any, *_: Any) -> Any:
        return spread_over(model, {name: "cpu" for name, _ in model.named_children()}, force_hooks=True)

    monkeypatch.setattr(lamorel.loading, "place", place)
    with tiny_pair.caller(**options()) as caller:
        model = caller._worker._llm.module._LLM_model
        assert any(hasattr(module, "_hf_hook") for module in model.modules())
        assert input_device(model) == torch.device("cpu")
        for found, output in zip(caller.score(CONTEXTS, CANDIDATES, ["value"]), expected, strict=True):
            torch.testing.assert_close(found, output, rtol=0, atol=1e-5)
        assert_same_gradients(one_graph(caller._worker._llm), gradients)
        caller.save(tmp_path)
        caller.update(CONTEXTS, CANDIDATES)
        for name, tensor in weights(caller).items():
            torch.testing.assert_close(tensor, after[name], rtol=0, atol=1e-5)
        updated = weights(caller)
        caller.save(tmp_path)
    with tiny_pair.caller(**options()) as caller:
        caller.load(tmp_path)
        assert_equal(weights(caller), updated)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("lora", [False, True])
def test_two_gpus(tiny_pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: bool) -> None:
    def options(**more: Any) -> dict[str, Any]:
        adapters = LORA[tiny_pair.family] if lora else None
        return {"updater": Learner(), "functions": {"value": Value()}, "lora": adapters, **more}

    with tiny_pair.caller(**options(parallelism={"use_gpu": True})) as caller:
        expected = caller.score(CONTEXTS, CANDIDATES, ["value"])
        caller.update(CONTEXTS, CANDIDATES)
        after = caller.score(CONTEXTS, CANDIDATES, ["value"])
        texts = caller.generate(CONTEXTS, max_new_tokens=3)
    size = sum(p.numel() * p.element_size() for p in tiny_pair.plain_model().parameters())
    # All of a tiny model would fit into the first one.
    monkeypatch.setattr(lamorel.loading, "free_memory", lambda gpus: {0: int(0.7 * size), 1: size})
    monkeypatch.setattr("lamorel.placement.free_memory", lambda gpus: {0: int(0.7 * size), 1: size})
    spread = {"use_gpu": True, "model_parallelism_size": 2}
    with tiny_pair.caller(**options(parallelism=spread)) as caller:
        model = caller._worker._llm.module._LLM_model
        assert {parameter.device.index for parameter in model.parameters()} == {0, 1}
        assert_close(caller.score(CONTEXTS, CANDIDATES, ["value"]), expected)
        caller.update(CONTEXTS, CANDIDATES)
        assert_close(caller.score(CONTEXTS, CANDIDATES, ["value"]), after)
        assert [row[0]["text"] for row in caller.generate(CONTEXTS, max_new_tokens=3)] == [t[0]["text"] for t in texts]
        caller.save(tmp_path)
        caller.update(CONTEXTS, CANDIDATES)
        caller.load(tmp_path)
        assert_close(caller.score(CONTEXTS, CANDIDATES, ["value"]), after)


def assert_close(found: list[Any], expected: list[Any]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("native", "updates", "lora", "dtype"),
    [
        (True, False, None, "bf16"),  # scoring alone
        (True, True, LoraArgs(), "bf16"),
        (True, True, LoraArgs(fp32=False), "fp32"),  # a small step would be lost in bf16 adapters
        (True, True, None, "fp32"),
        (False, False, None, "fp32"),
        (False, True, LoraArgs(), "fp32"),
    ],
)
def test_dtype_auto_on_a_cpu(
    native: bool,
    updates: bool,
    lora: LoraArgs | None,
    dtype: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "lamorel.placement")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": native}, raising=False)
    chosen = choose_dtype(LLMArgs(dtype="auto", lora=lora), torch.device("cpu"), updates=updates)
    assert chosen.dtype == dtype
    assert f"dtype auto: {dtype}" in caplog.text


def test_a_given_dtype_is_kept() -> None:
    assert choose_dtype(LLMArgs(dtype="fp16"), torch.device("cpu"), updates=True).dtype == "fp16"


def test_dtype_auto_reaches_the_model(tiny_models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    with tiny_models["llama"].caller(dtype="auto", lora=LORA["llama"]) as caller:
        weights = dict(caller._worker.model.named_parameters())
        assert {w.dtype for name, w in weights.items() if "lora_" not in name} == {torch.bfloat16}
        assert {w.dtype for name, w in weights.items() if "lora_" in name} == {torch.float32}
