"""Compiled layers give eager scores and gradients, and leave checkpoints as they are."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from test_lamorel_checkpoint import CANDIDATES, CONTEXTS, Learner, assert_equal, weights
from test_lamorel_updates import Value, assert_same_gradients, one_graph

from lamorel.compiling import check_compiler, repeated_layers
from lamorel.config import LamorelConfigError

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")


def test_the_repeated_layers_are_the_outermost_ones(tiny: Any) -> None:
    layers = repeated_layers(tiny.plain_model())
    assert len(layers) == (4 if tiny.model_type == "seq2seq" else 2)


@needs_compiler
@pytest.mark.slow
def test_scores_and_gradients_of_compiled_layers(tiny_pair: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"updater": Learner(), "functions": {"value": Value()}}
    with tiny_pair.caller(**options) as caller:
        expected = caller.score(CONTEXTS, CANDIDATES, ["value"])
        gradients = one_graph(caller._worker._llm)
        names = weights(caller).keys()
    options = {"updater": Learner(), "functions": {"value": Value()}}
    with tiny_pair.caller(compile=True, **options) as caller:
        layers = repeated_layers(caller._worker._llm.module._LLM_model)
        assert layers
        assert all(layer._compiled_call_impl is not None for layer in layers)
        for found, output in zip(caller.score(CONTEXTS, CANDIDATES, ["value"]), expected, strict=True):
            torch.testing.assert_close(found, output, rtol=0, atol=1e-4)
        assert_same_gradients(one_graph(caller._worker._llm), gradients)
        assert weights(caller).keys() == names
        caller.update(CONTEXTS, CANDIDATES)
        caller.save(tmp_path)
        saved = weights(caller)
    with tiny_pair.caller(updater=Learner(), functions={"value": Value()}) as caller:
        caller.load(tmp_path)
        assert_equal(weights(caller), saved)


def test_without_a_compiler(t5: Any) -> None:
    torch._dynamo.reset()  # or the trial would find its code compiled already
    with (
        torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}),
        pytest.raises(
            LamorelConfigError, match=r"^lamorel_args.llm_args.compile: .* install a C\+\+ compiler"
        ) as caught,
    ):
        t5.caller(compile=True)
    assert "\n" not in str(caught.value)


@needs_compiler
def test_with_a_compiler() -> None:
    check_compiler(torch.device("cpu"))
