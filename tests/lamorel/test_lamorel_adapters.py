"""LoRA: adapters in fp32 or not, merged or separate, and trained further from their folder."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from test_lamorel_checkpoint import CANDIDATES, CONTEXTS, LORA, Learner, assert_equal, weights
from test_lamorel_updates import Value

from lamorel import Caller
from lamorel.checkpoint import CheckpointError
from lamorel.config import LamorelConfigError

AUTO = {"seq2seq": transformers.AutoModelForSeq2SeqLM, "causal": transformers.AutoModelForCausalLM}


def trained(tiny: Any, **options: Any) -> Caller:
    """A model whose adapters differ from nothing."""
    caller = tiny.caller(updater=Learner(), functions={"value": Value()}, **{"lora": LORA[tiny.family], **options})
    for _ in range(2):
        caller.update(CONTEXTS, CANDIDATES)
    return caller


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("fp32", [True, False])
def test_precision_of_adapters_over_16_bit_weights(tiny_pair: Any, dtype: str, fp32: bool) -> None:
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    lora = {**LORA[tiny_pair.family], "fp32": fp32}
    with tiny_pair.caller(updater=Learner(), functions={"value": Value16()}, lora=lora, dtype=dtype) as caller:
        model = caller._worker._llm.module._LLM_model
        assert model.dtype == half
        assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32 if fp32 else half}
        caller.update(CONTEXTS, CANDIDATES)
        scores = torch.cat(caller.score(CONTEXTS, CANDIDATES))
        if fp32:
            assert scores.isfinite().all()  # in fp16 Adam's eps of 1e-8 is zero, and a step of 0 / 0 possible


class Value16(Value):
    """A head in fp32 over outputs in 16 bit."""

    def forward(self, forward_outputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        name = "decoder_hidden_states" if self.llm_config.is_encoder_decoder else "hidden_states"
        return self.linear(forward_outputs[name][-1][:, 0].float())


def test_merged_weights_load_without_peft(tiny_pair: Any, tmp_path: Path) -> None:
    with trained(tiny_pair) as caller:
        before = weights(caller)
        expected = caller.score(CONTEXTS, CANDIDATES)
        caller.save(tmp_path / "merged", merge_adapters=True)
        assert_equal(weights(caller), before)
        for found, score in zip(caller.score(CONTEXTS, CANDIDATES), expected, strict=True):
            assert torch.equal(found, score)
        caller.update(CONTEXTS, CANDIDATES)
        after = weights(caller)
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    assert not (tmp_path / "merged" / "optimizer.pt").exists()
    plain = AUTO[tiny_pair.model_type].from_pretrained(tmp_path / "merged")
    assert plain.state_dict().keys() == tiny_pair.plain_model().state_dict().keys()
    with tiny_pair.caller() as untrained:
        assert not torch.allclose(untrained.score(CONTEXTS, CANDIDATES)[0], expected[0], atol=1e-2)
    with Caller({"llm_args": {"model_type": tiny_pair.model_type, "model_path": str(tmp_path / "merged")}}) as caller:
        for found, score in zip(caller.score(CONTEXTS, CANDIDATES), expected, strict=True):
            torch.testing.assert_close(found, score, rtol=0, atol=1e-4)
    # Saving did not change what comes next either.
    with trained(tiny_pair) as caller:
        caller.update(CONTEXTS, CANDIDATES)
        assert_equal(weights(caller), after)


def test_merged_heads_are_saved_too(t5: Any, tmp_path: Path) -> None:
    with trained(t5) as caller:
        caller.save(tmp_path, merge_adapters=True)
        expected = caller.score(CONTEXTS, CANDIDATES, ["value"])
    with Caller({"llm_args": {"model_path": str(tmp_path)}}, None, {"value": Value()}) as caller:
        caller.load(tmp_path)
        for found, output in zip(caller.score(CONTEXTS, CANDIDATES, ["value"]), expected, strict=True):
            torch.testing.assert_close(found["value"], output["value"], rtol=0, atol=1e-4)


def test_merging_16_bit_weights(t5: Any, tmp_path: Path) -> None:
    with t5.caller(lora=LORA["t5"], dtype="bf16") as caller:
        caller.save(tmp_path, merge_adapters=True)
    saved = AUTO["seq2seq"].from_pretrained(tmp_path)
    assert saved.dtype == torch.bfloat16
    # New adapters add nothing.
    expected = AUTO["seq2seq"].from_pretrained(t5.folder, dtype=torch.bfloat16)
    assert_equal(saved.state_dict(), expected.state_dict())


def test_what_cannot_be_merged(t5: Any, tiny_models: Any, tmp_path: Path) -> None:
    with t5.caller() as caller, pytest.raises(CheckpointError, match=r"no adapter to merge: set .*llm_args\.lora"):
        caller.save(tmp_path / "a", merge_adapters=True)
    tied = {"r": 2, "target_modules": ["q", "lm_head"]}
    with (
        tiny_models["t5-relu"].caller(lora=tied) as caller,
        pytest.raises(CheckpointError, match=r"lm_head cannot be merged, because its matrix is also .*shared"),
    ):
        caller.save(tmp_path / "b", merge_adapters=True)
    with t5.caller(lora=LORA["t5"]) as caller:
        caller._worker._llm.module._LLM_model.base_model.model.is_quantized = True
        with pytest.raises(CheckpointError, match="cannot be merged into quantised weights"):
            caller.save(tmp_path / "c", merge_adapters=True)


def test_a_model_and_an_adapter_do_not_share_a_folder(t5: Any, tmp_path: Path) -> None:
    with t5.caller(lora=LORA["t5"]) as caller:
        caller.save(tmp_path / "adapter")
        with pytest.raises(CheckpointError, match="adapter holds an adapter: save the whole model into another"):
            caller.save(tmp_path / "adapter", merge_adapters=True)
        caller.save(tmp_path / "merged", merge_adapters=True)
        with pytest.raises(CheckpointError, match="merged holds a whole model: save the adapter into another"):
            caller.save(tmp_path / "merged")


def test_a_loaded_adapter_trains(tiny_pair: Any, tmp_path: Path) -> None:
    with trained(tiny_pair) as caller:
        caller.save(tmp_path / "adapter")
        expected = caller.score(CONTEXTS, CANDIDATES)
    config = {"llm_args": {"model_type": tiny_pair.model_type, "model_path": str(tmp_path / "adapter")}}
    with Caller(config, Learner(), {"value": Value()}) as caller:
        for found, score in zip(caller.score(CONTEXTS, CANDIDATES), expected, strict=True):
            torch.testing.assert_close(found, score, rtol=0, atol=1e-4)
        before = weights(caller)
        caller.update(CONTEXTS, CANDIDATES)
        moved = {name for name, tensor in weights(caller).items() if not torch.equal(tensor, before[name])}
        adapters = {name for name in before if "lora_" in name}
        assert adapters
        assert moved == adapters | {name for name in before if name.startswith("_module_functions.")}
        caller.save(tmp_path / "further")
        expected = caller.score(CONTEXTS, CANDIDATES)
    assert not (tmp_path / "further" / "config.json").exists()
    config["llm_args"]["model_path"] = str(tmp_path / "further")
    with Caller(config) as caller:
        for found, score in zip(caller.score(CONTEXTS, CANDIDATES), expected, strict=True):
            torch.testing.assert_close(found, score, rtol=0, atol=1e-4)


def test_a_loaded_adapter_can_be_switched_off(t5: Any, tmp_path: Path) -> None:
    class BaseValue(Value):
        adapters = False

    functions = {"value": BaseValue()}
    with t5.caller(functions=functions) as caller:
        expected = caller.custom_module_fns(["value"], CONTEXTS)
    adapted = get_peft_model(t5.plain_model(), LoraConfig(r=2, init_lora_weights=False, task_type="SEQ_2_SEQ_LM"))
    adapted.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(t5.folder).save_pretrained(tmp_path)
    with Caller({"llm_args": {"model_path": str(tmp_path)}}, None, {"value": BaseValue()}) as caller:
        for found, output in zip(caller.custom_module_fns(["value"], CONTEXTS), expected, strict=True):
            torch.testing.assert_close(found["value"], output["value"])


def test_lora_on_top_of_an_adapter(t5: Any, tmp_path: Path) -> None:
    with t5.caller(lora=LORA["t5"]) as caller:
        caller.save(tmp_path)
    with pytest.raises(LamorelConfigError, match=r"llm_args\.lora asks for new adapters, but .* leave lora out"):
        Caller({"llm_args": {"model_path": str(tmp_path), "lora": LORA["t5"]}})


def test_a_damaged_adapter(t5: Any, tmp_path: Path) -> None:
    with t5.caller(lora=LORA["t5"]) as caller:
        caller.save(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(LamorelConfigError, match="copy or download the adapter again"):
        Caller({"llm_args": {"model_path": str(tmp_path)}})


@pytest.mark.parametrize(
    ("config", "layer", "message"),
    [
        ({"r": 3}, 0, r"the adapter does not fit T5.*, or its adapter_config.json is not that of its weights: .*size"),
        ({"target_modules": ["nothing"]}, 0, r"the adapter does not fit T5.*Target modules .*nothing"),
        ({"peft_type": "NOTHING"}, 0, r"the adapter does not fit T5.*NOTHING"),
        ({}, 7, r"the adapter is of another model than T5.*tensors, such as .*block\.0\..*, have no counterpart"),
    ],
)
def test_an_adapter_that_does_not_fit(
    t5: Any, tmp_path: Path, config: dict[str, Any], layer: int, message: str
) -> None:
    with t5.caller(lora=LORA["t5"]) as caller:
        caller.save(tmp_path)
    given = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(given | config))
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    renamed = {name.replace("block.0.", f"block.{layer}."): tensor for name, tensor in tensors.items()}
    save_file(renamed, tmp_path / "adapter_model.safetensors")
    with pytest.raises(LamorelConfigError, match=f"^lamorel_args.llm_args.model_path {tmp_path}: {message}"):
        Caller({"llm_args": {"model_path": str(tmp_path)}})


def test_an_adapter_without_weights(t5: Any, tmp_path: Path) -> None:
    with t5.caller(lora=LORA["t5"]) as caller:
        caller.save(tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(LamorelConfigError, match=r"cannot be loaded: .*it has no adapter_model\.safetensors"):
        Caller({"llm_args": {"model_path": str(tmp_path)}})


def test_an_adapter_finds_its_model_from_any_folder(t5: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the model was given as a relative path."""
    monkeypatch.chdir(t5.folder.parent)
    with Caller({"llm_args": {"model_path": t5.folder.name, "lora": LORA["t5"]}}) as caller:
        caller.save(tmp_path)
    monkeypatch.chdir("/")
    transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
