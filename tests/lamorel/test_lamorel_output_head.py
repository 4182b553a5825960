"""The output head is the one that config.json asks for, where transformers ties it regardless."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import TinyModel, make_tokenizer, randomise
from huggingface_hub.errors import StrictDataclassError
from transformers.models.auto import modeling_auto

from lamorel import Caller
from lamorel.vocabulary import input_embeddings

CONTEXTS, CANDIDATES = ["go to the red ball"], [["turn left", "pick up", "drop"]]
T5_WIDTHS: dict[str, Any] = {
    "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "relative_attention_num_buckets": 8,
    "pad_token_id": 3, "eos_token_id": 2, "decoder_start_token_id": 3,
}  # fmt: skip
BART_WIDTHS: dict[str, Any] = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64,
    "pad_token_id": 3, "eos_token_id": 2, "decoder_start_token_id": 2,
}  # fmt: skip
TIED_REGARDLESS = {"t5", "mt5", "umt5", "longt5"}
FAMILIES = {
    "t5": transformers.T5Config(**T5_WIDTHS, feed_forward_proj="gated-gelu"),
    "mt5": transformers.MT5Config(**T5_WIDTHS),
    "umt5": transformers.UMT5Config(**T5_WIDTHS),
    "longt5": transformers.LongT5Config(**T5_WIDTHS),
    "bart": transformers.BartConfig(**BART_WIDTHS),
    "llama": transformers.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2
    ),
}


def save(folder: Path, family: str, *, own_head: bool) -> TinyModel:
    """A model of the family whose config.json says whether the head is its own, and whose weights agree with it."""
    tokenizer = make_tokenizer()
    asked = {"vocab_size": len(tokenizer), "tie_word_embeddings": not own_head}
    config = type(FAMILIES[family]).from_dict(FAMILIES[family].to_dict() | asked)
    model_type = "seq2seq" if config.is_encoder_decoder else "causal"
    cls = {"seq2seq": transformers.AutoModelForSeq2SeqLM, "causal": transformers.AutoModelForCausalLM}[model_type]
    model = cls.from_config(config)
    if own_head and model.get_output_embeddings().weight is model.get_input_embeddings().weight:
        head = model.get_output_embeddings()
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
    randomise(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    written = json.loads((folder / "config.json").read_text())
    written.pop("scale_decoder_outputs", None)  # published files have no such key
    (folder / "config.json").write_text(json.dumps(written | {"tie_word_embeddings": not own_head}))
    return TinyModel(family, model_type, folder)


def live(caller: Caller) -> Any:
    return caller._worker._llm.module._LLM_model


def is_tied(model: Any) -> bool:
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.parametrize("own_head", [True, False])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_the_head_is_the_one_of_config_json(tmp_path: Path, family: str, own_head: bool, pretrained: bool) -> None:
    tiny = save(tmp_path / "made", family, own_head=own_head)
    with tiny.caller(pretrained=pretrained) as caller:
        assert is_tied(live(caller)) is not own_head
        if family in TIED_REGARDLESS:  # encoder and decoder read one embedding, whatever the head
            assert len({id(embedding.weight) for embedding in input_embeddings(live(caller))}) == 1
        [scores] = caller.score(CONTEXTS, CANDIDATES)
        caller.save(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["tie_word_embeddings"] is not own_head
    with TinyModel(family, tiny.model_type, tmp_path / "saved").caller() as caller:
        assert is_tied(live(caller)) is not own_head
        torch.testing.assert_close(caller.score(CONTEXTS, CANDIDATES)[0], scores)


def test_families_that_are_tied_regardless() -> None:
    causal = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    seq2seq = modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    found = set()
    for family in {*causal, *seq2seq}:
        with contextlib.suppress(StrictDataclassError):  # one has no valid defaults
            if transformers.AutoConfig.for_model(family, tie_word_embeddings=False).tie_word_embeddings:
                found.add(family)
    assert found == TIED_REGARDLESS


@pytest.mark.parametrize(("own_head", "pretrained"), [(True, True), (True, False), (False, True)])
def test_a_config_json_of_transformers_5(tmp_path: Path, own_head: bool, pretrained: bool) -> None:
    """It calls a T5 1.1 tied that does not scale the decoder's output; read weights keep the head that they have."""
    tiny = save(tmp_path / "made", "t5", own_head=own_head)
    path = tiny.folder / "config.json"
    as_written = {"tie_word_embeddings": True, "scale_decoder_outputs": False}
    path.write_text(json.dumps(json.loads(path.read_text()) | as_written))
    with tiny.caller(pretrained=pretrained) as caller:
        assert is_tied(live(caller)) is not own_head
        assert live(caller).config.scale_decoder_outputs is False
        caller.save(tmp_path / "saved")
    with tiny.caller(pretrained=pretrained, lora={"target_modules": ["q"]}) as caller:
        assert is_tied(live(caller)) is not own_head
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["tie_word_embeddings"] is not own_head


@pytest.mark.parametrize("family", ["t5", "mt5", "longt5"])
def test_saved_models_are_the_same_to_plain_hugging_face(tmp_path: Path, family: str) -> None:
    tiny = save(tmp_path / "made", family, own_head=True)
    with tiny.caller(pretrained=False) as caller:
        caller.save(tmp_path / "saved")
        expected = logits(live(caller))
    torch.testing.assert_close(logits(TinyModel(family, "seq2seq", tmp_path / "saved").plain_model()), expected)


def test_umt5_with_a_head_of_its_own_is_not_scaled(tmp_path: Path) -> None:
    """Transformers 5 scales the decoder's output by d_model ** -0.5, as if the head were the embedding."""
    tiny = save(tmp_path, "umt5", own_head=True)
    with tiny.caller() as caller:
        torch.testing.assert_close(logits(live(caller)), logits(tiny.plain_model()) * 32**0.5)


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(input_ids=torch.tensor([[5, 6, 7]]), decoder_input_ids=torch.tensor([[3, 8, 9]])).logits
