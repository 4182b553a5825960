"""Where there is a GPU: every family scores, generates, learns, saves and loads there as on the CPU."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_lamorel_checkpoint import CANDIDATES, CONTEXTS, Learner
from test_lamorel_placement import assert_close
from test_lamorel_updates import Value

from lamorel import Caller

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def caller_on(tiny: Any, use_gpu: bool, **more: Any) -> Caller:
    functions = {"value": Value()}
    return tiny.caller(updater=Learner(), functions=functions, parallelism={"use_gpu": use_gpu}, **more)


def test_a_gpu_does_what_a_cpu_does(tiny: Any, tmp_path: Path) -> None:
    with caller_on(tiny, False) as caller:
        before = caller.score(CONTEXTS, CANDIDATES)
        texts = [row[0]["text"] for row in caller.generate(CONTEXTS, max_new_tokens=3)]
        caller.update(CONTEXTS, CANDIDATES)
        after = caller.score(CONTEXTS, CANDIDATES)
        caller.save(tmp_path)
    with caller_on(tiny, True) as caller:
        assert {weight.device.type for weight in caller._worker._llm.parameters()} == {"cuda"}
        assert_close(caller.score(CONTEXTS, CANDIDATES), before)
        assert [row[0]["text"] for row in caller.generate(CONTEXTS, max_new_tokens=3)] == texts
        caller.update(CONTEXTS, CANDIDATES)
        assert_close(caller.score(CONTEXTS, CANDIDATES), after)
        caller.load(tmp_path)  # what the CPU has written
        assert_close(caller.score(CONTEXTS, CANDIDATES), after)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_scores_in_half_precision_are_close(tiny: Any, dtype: str) -> None:
    with caller_on(tiny, False) as caller:
        expected = torch.cat(caller.score(CONTEXTS, CANDIDATES))
    with caller_on(tiny, True, dtype=dtype) as caller:
        found = torch.cat(caller.score(CONTEXTS, CANDIDATES))
    assert found.dtype == torch.float32
    # relative: scores are of about ten nats, each of the weights and activations is rounded to 8 or 11 bits
    assert float((found - expected).abs().max() / expected.abs().max()) < (0.1 if dtype == "bf16" else 0.02)
