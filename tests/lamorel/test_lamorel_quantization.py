"""4-bit and 8-bit loading: what bitsandbytes is asked, what is said where it cannot be had, a run where it can."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from test_lamorel_adapters import Value16
from test_lamorel_checkpoint import CANDIDATES, CONTEXTS, LORA, Learner

import lamorel.quantization
from lamorel.config import LamorelConfigError, parse_config
from lamorel.placement import check_device
from lamorel.quantization import quantization_config

BITS = ["load_in_4bit", "load_in_8bit"]


def llm_args(**given: Any) -> Any:
    return parse_config({"llm_args": {"model_path": "gpt2", **given}}).llm_args


@pytest.fixture
def _bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it was installed."""
    monkeypatch.setattr(lamorel.quantization.importlib.util, "find_spec", lambda name: object())


def test_both_are_too_many() -> None:
    with pytest.raises(LamorelConfigError, match=r"load_in_4bit and .*load_in_8bit are both true: choose one"):
        llm_args(load_in_4bit=True, load_in_8bit=True)


@pytest.mark.parametrize("key", BITS)
def test_the_package_is_asked_for(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setattr(lamorel.quantization.importlib.util, "find_spec", lambda name: None)
    message = rf"^lamorel_args.llm_args.{key} needs the package bitsandbytes: pip install bitsandbytes$"
    with pytest.raises(LamorelConfigError, match=message):
        check_device(llm_args(**{key: True}))


@pytest.mark.usefixtures("_bitsandbytes")
@pytest.mark.parametrize("key", BITS)
def test_a_gpu_and_weights_are_asked_for(key: str) -> None:
    with pytest.raises(LamorelConfigError, match=rf"^lamorel_args.llm_args.{key} needs a GPU: set .*use_gpu to true$"):
        check_device(llm_args(**{key: True}))
    with pytest.raises(LamorelConfigError, match=rf"^lamorel_args.llm_args.{key} needs pretrained weights: set"):
        check_device(llm_args(pretrained=False, parallelism={"use_gpu": True}, **{key: True}))


def test_what_bitsandbytes_is_asked_to_do() -> None:
    four = quantization_config(llm_args(load_in_4bit=True), torch.bfloat16)
    assert (four.load_in_4bit, four.load_in_8bit, four.bnb_4bit_quant_type) == (True, False, "nf4")
    assert four.bnb_4bit_compute_dtype == torch.bfloat16
    eight = quantization_config(llm_args(load_in_8bit=True), torch.float16)
    assert (eight.load_in_4bit, eight.load_in_8bit) == (False, True)


@pytest.mark.skipif(
    not torch.cuda.is_available() or importlib.util.find_spec("bitsandbytes") is None,
    reason="needs a GPU and bitsandbytes",
)
@pytest.mark.parametrize("key", BITS)
def test_quantised_weights_score_train_and_come_back(tiny_pair: Any, tmp_path: Path, key: str) -> None:
    options: dict[str, Any] = {
        key: True,
        "dtype": "bf16",
        "lora": LORA[tiny_pair.family],
        "parallelism": {"use_gpu": True},
    }
    with tiny_pair.caller(updater=Learner(), functions={"value": Value16()}, **options) as caller:
        model = caller._worker._llm.module._LLM_model
        assert model.is_quantized
        assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
        before = caller.score(CONTEXTS, CANDIDATES)
        caller.update(CONTEXTS, CANDIDATES)
        caller.update(CONTEXTS, CANDIDATES)
        expected = caller.score(CONTEXTS, CANDIDATES)
        assert not torch.equal(torch.cat(before), torch.cat(expected))
        caller.save(tmp_path)
    with tiny_pair.caller(updater=Learner(), functions={"value": Value16()}, **options) as caller:
        caller.load(tmp_path)
        torch.testing.assert_close(torch.cat(caller.score(CONTEXTS, CANDIDATES)), torch.cat(expected))
