"""A Caller's life: one after another, closed twice, refused where it cannot work."""

import gc
import logging
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

import lamorel
from lamorel import Caller, lamorel_init
from lamorel.config import LamorelConfigError


def test_callers_one_after_another_with_different_models(t5: Any, llama: Any) -> None:
    for tiny in (t5, llama, t5):
        with tiny.caller() as caller:
            assert caller.score(["a"], [["b", "c"]])[0].shape == (2,)
            model = weakref.ref(caller._worker._llm.module._LLM_model)
        caller.close()
        with pytest.raises(RuntimeError, match="closed"):
            caller.score(["a"], [["b"]])
        gc.collect()
        assert model() is None  # its memory is free for the next one


def test_a_forgotten_caller_is_closed_at_exit(t5: Any) -> None:
    code = (
        "import lamorel.worker as w, lamorel\n"
        "close = w.Worker.close\n"
        "w.Worker.close = lambda self: (print('closed'), close(self))\n"
        f"caller = lamorel.Caller({t5.config()!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "closed\n"
    assert done.stderr == ""  # no progress bars where nobody watches


def test_a_process_started_by_itself_joins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lamorel_init()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    lamorel_init()
    assert not torch.distributed.is_initialized()


def test_number_of_llm_processes(t5: Any) -> None:
    with pytest.raises(LamorelConfigError, match="n_llm_processes is 0"):
        Caller({**t5.config(), "distributed_setup_args": {"n_llm_processes": 0}})
    with pytest.warns(UserWarning, match="n_llm_processes is 2.* one LLM is used") as caught:
        Caller({**t5.config(), "distributed_setup_args": {"n_llm_processes": 2}}).close()
    assert len([w for w in caught if "n_llm_processes" in str(w.message)]) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_what_needs_a_gpu_says_so(t5: Any) -> None:
    with pytest.raises(
        LamorelConfigError, match=r"^lamorel_args.llm_args.parallelism.use_gpu is true, but torch finds no"
    ):
        t5.caller(parallelism={"use_gpu": True})
    with pytest.raises(
        LamorelConfigError, match=r"^lamorel_args.llm_args.parallelism.model_parallelism_size needs a GPU"
    ):
        t5.caller(parallelism={"model_parallelism_size": 2})
    with pytest.raises(LamorelConfigError, match=r"^lamorel_args.llm_args.load_in_4bit needs"):
        t5.caller(load_in_4bit=True)


def test_random_weights_come_from_the_seed(t5: Any) -> None:
    def first_weight(seed: int) -> torch.Tensor:
        with t5.caller(pretrained=False, seed=seed) as caller:
            return next(caller._worker._llm.module.parameters()).clone()

    assert torch.equal(first_weight(1), first_weight(1))
    assert not torch.equal(first_weight(1), first_weight(2))


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_low_precision(tiny_pair: Any, name: str, dtype: torch.dtype) -> None:
    with tiny_pair.caller() as exact, tiny_pair.caller(dtype=name, attention="eager") as caller:
        assert caller._worker._llm.module._LLM_model.dtype == dtype
        [found] = caller.score(["you see the ball"], [["turn left", "drop"]])
        [expected] = exact.score(["you see the ball"], [["turn left", "drop"]])
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0.05, atol=1.0)  # rounding, not another model


@pytest.mark.parametrize("scoring", ["fast", "cached", "pairs", "reference"])
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_log_softmax_is_fp32_over_16_bit_logits(tiny_pair: Any, dtype: str, scoring: str) -> None:
    letters = list("abcdefghij")  # one token each
    with tiny_pair.caller(dtype=dtype, scoring=scoring) as caller:
        [output] = caller.score(["you see the ball"], [letters], ["__logits", "__tokens"])
    assert output["__tokens"].tolist() == [1] * 10
    normaliser = output["__logits"] - output["__score"]
    # One number for all. Rounded to 16 bit, log-probabilities of -5 to -30 would be off by up to 0.06 (bf16, eps 2^-8).
    torch.testing.assert_close(normaliser, normaliser[:1].expand(10), rtol=0, atol=1e-5)


def test_pytorch_bin_weights(t5: Any, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    model = t5.plain_model()
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    AutoTokenizer.from_pretrained(t5.folder).save_pretrained(tmp_path)
    with t5.caller() as one, Caller({"llm_args": {"model_path": str(tmp_path)}}) as other:
        assert torch.equal(one.score(["a"], [["b"]])[0], other.score(["a"], [["b"]])[0])


def test_log_level(t5: Any) -> None:
    Caller({**t5.config(), "log_level": "error"}).close()
    assert logging.getLogger("lamorel").level == logging.ERROR
    logging.getLogger("lamorel").setLevel(logging.NOTSET)


def test_public_names() -> None:
    assert set(lamorel.__all__) <= set(dir(lamorel))
    for name in lamorel.__all__:
        assert getattr(lamorel, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Client'"):
        _ = lamorel.Client
