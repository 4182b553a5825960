"""Tokenizers that do not fit: tokens beyond the model's embeddings, texts without tokens, or with the same ones."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers
from conftest import TinyModel, make_tokenizer, randomise
from tokenizers import Tokenizer, models, pre_tokenizers

from lamorel import BaseModelInitializer
from lamorel.config import LamorelConfigError

ROWS = 290  # of the tiny models, whose tokenizer has as many tokens


@pytest.fixture
def copy(tiny_pair: TinyModel, tmp_path: Path) -> TinyModel:
    """A tiny model that a test may damage."""
    shutil.copytree(tiny_pair.folder, tmp_path / "copy")
    return TinyModel(tiny_pair.family, tiny_pair.model_type, tmp_path / "copy")


def refusal(tiny: TinyModel, **llm_args: Any) -> str:
    """The one line that says why the model cannot be used."""
    with pytest.raises(LamorelConfigError) as caught:
        tiny.caller(**llm_args)
    [line] = str(caught.value).splitlines()
    return line


def add(tiny: TinyModel, *tokens: str, special: dict[str, Any] | None = None) -> Any:
    """Adds tokens to the saved tokenizer alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny.folder)
    tokenizer.add_tokens(list(tokens))
    tokenizer.add_special_tokens(special or {})
    tokenizer.save_pretrained(tiny.folder)
    return tokenizer


@pytest.mark.parametrize("pretrained", [True, False])
def test_added_tokens(copy: TinyModel, pretrained: bool) -> None:
    add(copy, "<act>", "observation")
    assert refusal(copy, pretrained=pretrained) == (
        f"lamorel_args.llm_args.model_path {copy.folder}: its tokenizer has ids up to 291 ('observation'), but the "
        f"model's embeddings have {ROWS} rows: call model.resize_token_embeddings(292) and save the model again, or "
        f"save a tokenizer without the tokens that were added"
    )


def test_an_added_padding_token(copy: TinyModel) -> None:
    add(copy, special={"pad_token": "[PAD]"})
    assert "has ids up to 290 ('[PAD]')" in refusal(copy)


def test_special_tokens_are_refused_in_a_text(copy: TinyModel, caplog: pytest.LogCaptureFixture) -> None:
    """Published models list some that they have no row for, such as Gemma 3's image token."""
    add(copy, special={"extra_special_tokens": ["<image>"]})
    with copy.caller() as caller:
        [line] = [record.getMessage() for record in caplog.records if record.name == "lamorel.tokenization"]
        assert f"has ids up to 290 ('<image>'), but the model's embeddings have {ROWS} rows: call" in line
        assert caller.score(["go"], [["left"]])[0].shape == (1,)
        for context, candidate in (("go <image>", "left"), ("go", "<image>")):
            with pytest.raises(LamorelConfigError, match=r"resize_token_embeddings\(291\)"):
                caller.score([context], [[candidate]])


class Resize(BaseModelInitializer):
    def initialize_model(self, model: Any) -> Any:
        model._LLM_model.resize_token_embeddings(ROWS + 1)
        return model


def test_an_initializer_may_resize(copy: TinyModel) -> None:
    add(copy, "<act>")
    with copy.caller(initializer=Resize()) as caller:
        assert caller.score(["go <act>"], [["<act>", "left"]])[0].shape == (2,)


def test_more_rows_than_tokens(copy: TinyModel) -> None:
    model = copy.plain_model()
    model.resize_token_embeddings(320)
    model.save_pretrained(copy.folder)
    with copy.caller() as caller:
        assert caller.score(["go"], [["left"]])[0].shape == (1,)


def words(ids: dict[str, int]) -> Any:
    core = Tokenizer(models.WordLevel({"<unk>": 0, "<eos>": 1} | ids, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="<eos>")


@pytest.mark.parametrize(("largest", "fits"), [(ROWS - 1, True), (ROWS, False)])
def test_ids_with_gaps(copy: TinyModel, largest: int, fits: bool) -> None:
    """The largest id counts, not the number of tokens."""
    words({"left": 7, "right": largest}).save_pretrained(copy.folder)
    if fits:
        with copy.caller() as caller:
            assert caller.score(["left"], [["right"]])[0].shape == (1,)
    else:
        assert "has ids up to 290 ('right')" in refusal(copy)


def test_a_decoder_with_a_smaller_vocabulary(tmp_path: Path) -> None:
    config = transformers.MarianConfig(
        vocab_size=ROWS, decoder_vocab_size=100, share_encoder_decoder_embeddings=False, tie_word_embeddings=True,
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64, pad_token_id=3, eos_token_id=2,
        decoder_start_token_id=3,
    )  # fmt: skip
    transformers.MarianMTModel(config).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    assert "has ids up to 289" in refusal(TinyModel("marian", "seq2seq", tmp_path))


def test_a_tokenizer_without_a_token_for_a_text(tmp_path: Path) -> None:
    """Transformers reads any tokenizer beside a Qwen2 as byte-level, and this one has whole words only."""
    config = transformers.Qwen2Config(
        vocab_size=16, hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2,
        num_hidden_layers=1,
    )  # fmt: skip
    model = transformers.Qwen2ForCausalLM(config)
    randomise(model)
    model.save_pretrained(tmp_path)
    words({"turn": 2, "left": 3, "go": 4}).save_pretrained(tmp_path)
    with TinyModel("qwen2", "causal", tmp_path).caller(add_bos=True) as caller:
        for context, candidate in (("<eos>", "turn left"), ("go", "<eos>")):
            with pytest.raises(
                LamorelConfigError, match=r"loaded as Qwen2Tokenizer, has no token for '(turn left|go)'"
            ):
                caller.score([context], [[candidate]])


def test_blank_candidates_have_no_tokens(copy: TinyModel) -> None:
    words({"left": 7}).save_pretrained(copy.folder)
    with copy.caller() as caller:
        assert caller.score(["left"], [["", " ", "left"]])[0][:2].tolist() == [0, 0]


def test_candidates_that_are_the_same_to_the_model(copy: TinyModel, caplog: pytest.LogCaptureFixture) -> None:
    words({"turn": 7, "go": 8}).save_pretrained(copy.folder)
    with copy.caller() as caller:
        caller.score(["go"], [["turn", "go", "turn"]])
        for _ in range(2):
            caller.score(["go"], [["turn left", "go", "turn right"]])
        name = type(caller._worker._llm.module.encoder.tokenizer).__name__
    assert [record.getMessage() for record in caplog.records if record.name == "lamorel.tokenization"] == [
        f"{name} gives the candidates 'turn left' and 'turn right' the same tokens (turn <unk>): their scores are equal"
    ]
