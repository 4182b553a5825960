"""Where models come from, and the one line that says why one cannot be loaded."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import TinyModel, make_tokenizer
from peft import LoraConfig, get_peft_model

from lamorel import BaseModelInitializer, Caller
from lamorel.config import LamorelConfigError
from lamorel.loading import model_location


def first_line(folder: Path | str, **llm_args: Any) -> str:
    """What is said of a model that cannot be loaded."""
    with pytest.raises(LamorelConfigError) as caught:
        Caller({"llm_args": {"model_path": str(folder), **llm_args}})
    [line] = str(caught.value).splitlines()
    return line


@pytest.fixture
def copy(t5: Any, tmp_path: Path) -> Path:
    """A folder of the tiny T5 that a test may damage."""
    return Path(shutil.copytree(t5.folder, tmp_path / "copy"))


@pytest.mark.parametrize("pretrained", [True, False])
def test_the_other_model_type(t5: Any, llama: Any, pretrained: bool) -> None:
    said = first_line(t5.folder, model_type="causal", pretrained=pretrained)
    assert said.startswith(f"lamorel_args.llm_args.model_type is causal, but {t5.folder} (t5) is an encoder-decoder: ")
    assert "set it to seq2seq" in said
    said = first_line(llama.folder, model_type="seq2seq", pretrained=pretrained)
    assert said.startswith(f"lamorel_args.llm_args.model_type is seq2seq, but {llama.folder} (llama) is not an encoder")
    assert "set it to causal" in said


@pytest.mark.parametrize("kept", [0, 100, 5000])
def test_truncated_safetensors(copy: Path, kept: int) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    said = first_line(copy)
    assert said.startswith(f"lamorel_args.llm_args.model_path {copy}: its weights cannot be read: copy or download")
    assert "deserializing header" in said  # the reason


def test_damaged_bin(t5: Any, copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    weights = copy / "pytorch_model.bin"
    torch.save(t5.plain_model().state_dict(), weights)
    whole = weights.read_bytes()
    for damaged in (b"", b"garbage", whole[: len(whole) // 2]):
        weights.write_bytes(damaged)
        assert first_line(copy).startswith(f"lamorel_args.llm_args.model_path {copy}: its weights cannot be read: copy")


@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{}", "cannot be read: .*Should have a `model_type` key"),
        ("{", "not a valid JSON file"),
        ('{"model_type": "nonsense"}', "cannot be read: .*model type `nonsense`"),
        ('{"model_type": "t5", "d_model": "x"}', "cannot be read: .*d_model"),
        ('{"model_type": "clip", "is_encoder_decoder": true}', "no seq2seq model can be built .*CLIPConfig"),
    ],
)
def test_config_json_that_is_not_one(copy: Path, text: str, reason: str, pretrained: bool) -> None:
    (copy / "config.json").write_text(text)
    said = first_line(copy, pretrained=pretrained)
    assert said.startswith(f"lamorel_args.llm_args.model_path {copy}")
    with pytest.raises(LamorelConfigError, match=reason) as caught:
        Caller({"llm_args": {"model_path": str(copy), "pretrained": pretrained}})
    assert isinstance(caught.value.__cause__, Exception)


def test_damaged_tokenizer(copy: Path) -> None:
    for text in ("{", "{}"):
        (copy / "tokenizer.json").write_text(text)
        said = first_line(copy)
        assert said.startswith(f"lamorel_args.llm_args.model_path {copy}: its tokenizer cannot be read: save")


@pytest.mark.parametrize("targets", [["nope"], "nope", ["layer_norm"], "("])
def test_lora_targets_that_the_model_does_not_have(t5: Any, targets: Any) -> None:
    said = first_line(t5.folder, lora={"target_modules": targets})
    shown = targets if isinstance(targets, str) else f"[{targets[0]}]"
    assert said.startswith(
        f"lamorel_args.llm_args.lora.target_modules {shown} does not fit T5ForConditionalGeneration: choose among "
        "k, lm_head, o, q, v, wi_0, wi_1, wo ("
    )


def test_lora_targets_are_checked_before_weights_are_read(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(b"of many gigabytes")
    said = first_line(copy, lora={"target_modules": ["nope"]})
    assert said.startswith("lamorel_args.llm_args.lora.target_modules [nope] does not fit T5ForConditionalGeneration")


def test_a_model_without_sdpa_attention_is_run_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = make_tokenizer()
    config = transformers.BloomConfig(vocab_size=len(tokenizer), hidden_size=32, n_layer=2, n_head=4)
    transformers.BloomForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    caplog.set_level("INFO", "lamorel.loading")
    with TinyModel("bloom", "causal", tmp_path).caller() as caller:
        [scores] = caller.score(["a b"], [["x", "y z"]])
    assert scores.shape == (2,)
    assert [record.getMessage() for record in caplog.records if record.name == "lamorel.loading"] == [
        "BloomForCausalLM has no sdpa attention: eager is used"
    ]


@pytest.mark.skipif(transformers.utils.is_flash_attn_2_available(), reason="flash attention works here")
@pytest.mark.parametrize("pretrained", [True, False])
def test_attention_that_is_not_available(tiny_pair: Any, pretrained: bool) -> None:
    options = {"attention": "flash_attention_2", "pretrained": pretrained, "model_type": tiny_pair.model_type}
    said = first_line(tiny_pair.folder, **options)
    expected = f"flash_attention_2 is not available for {tiny_pair.folder}: choose sdpa ("
    assert said.startswith(f"lamorel_args.llm_args.attention {expected}")


def test_the_original_error_is_the_cause(t5: Any, copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(b"")
    for folder, options, name in (
        (copy, {}, "SafetensorError"),
        (t5.folder, {"lora": {"target_modules": ["nope"]}}, "NoMatchingPeftModuleError"),
    ):
        with pytest.raises(LamorelConfigError) as caught:
            Caller({"llm_args": {"model_path": str(folder), **options}})
        assert type(caught.value.__cause__).__name__ == name


def test_errors_of_others_pass(t5: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(BaseModelInitializer):
        def initialize_model(self, model: Any) -> Any:
            raise ValueError("mine")

    with pytest.raises(ValueError, match=r"^mine$"):
        t5.caller(initializer=Wrong())
    for error in (RuntimeError("CUDA error"), ImportError("no accelerate"), ValueError("quantization")):

        def fail(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr(transformers.T5ForConditionalGeneration, "from_pretrained", fail)
        with pytest.raises(type(error)) as caught:
            t5.caller()
        assert caught.value is error


@pytest.mark.parametrize("pretrained", [True, False])
def test_home_folder(t5: Any, monkeypatch: pytest.MonkeyPatch, pretrained: bool) -> None:
    monkeypatch.setenv("HOME", str(t5.folder.parent))
    assert model_location("~/t5") == str(t5.folder)
    with Caller({"llm_args": {"model_path": "~/t5", "pretrained": pretrained}}) as caller:
        assert caller.score(["a"], [["b"]])[0].shape == (1,)


def test_model_location(t5: Any) -> None:
    assert model_location(str(t5.folder)) == str(t5.folder)
    for hub_id in ("google/flan-t5-small", "gpt2", "~no-such-user/model"):
        assert model_location(hub_id) == hub_id


def test_the_folder_of_an_adapter(t5: Any, tmp_path: Path) -> None:
    adapted = get_peft_model(t5.plain_model(), LoraConfig(r=2, init_lora_weights=False, task_type="SEQ_2_SEQ_LM"))
    adapted.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(t5.folder).save_pretrained(tmp_path)
    ids = transformers.AutoTokenizer.from_pretrained(t5.folder)(["a", "b"], add_special_tokens=False)["input_ids"]
    decoder_ids = torch.tensor([[3, *ids[1]]])
    logits = adapted(input_ids=torch.tensor([ids[0]]), decoder_input_ids=decoder_ids).logits[0]
    expected = logits.log_softmax(-1)[torch.arange(len(ids[1])), ids[1]].sum()
    with Caller({"llm_args": {"model_path": str(tmp_path)}}) as caller:
        assert caller.score(["a"], [["b"]])[0].item() == pytest.approx(expected.item(), abs=1e-4)
