"""Equal states in one call are run once: same outputs, same gradients, fewer rows."""

from typing import Any

import pytest
import torch
from test_lamorel_functions import RootSpy, Spy
from test_lamorel_updates import (
    CANDIDATES,
    CONTEXTS,
    Record,
    Value,
    assert_same_gradients,
    gradients,
    losses,
)

KEYS = ["__score", "value"]
PICKED = [0, 1, 0, 3, 0, 3]  # repeats, not next to each other
REPEATED = [CONTEXTS[i] for i in PICKED]
OFFERED = [CANDIDATES[i] for i in PICKED]
REPEATED_WEIGHTS = torch.tensor([1.0, -2.0, 0.5, 3.0, 0.1, -1.0])


def test_outputs_equal_those_of_single_calls(tiny: Any) -> None:
    with tiny.caller(functions={"value": Value()}) as caller:
        found = caller.custom_module_fns(KEYS, REPEATED, OFFERED)
        for output, context, group in zip(found, REPEATED, OFFERED, strict=True):
            [alone] = caller.custom_module_fns(KEYS, [context], [group])
            for key in KEYS:
                torch.testing.assert_close(output[key], alone[key], rtol=0, atol=1e-5)
        found[0]["__score"].zero_()  # an output of its own
        assert found[2]["__score"].abs().sum() > 0


def test_other_candidates_make_another_state(tiny: Any) -> None:
    with tiny.caller() as caller:
        found = caller.score(["a", "a", "a"], [["turn left"], ["drop"], ["turn left"]])
    assert found[0] == found[2] != found[1]


@pytest.mark.parametrize("tokens_per_chunk", [1, 10_000])
def test_gradients_are_the_sums_over_repeats(tiny: Any, tokens_per_chunk: int) -> None:
    def act(updater: Record) -> torch.Tensor:
        updater.tokens_per_chunk = tokens_per_chunk
        return updater.accumulate(losses, KEYS, REPEATED, OFFERED, weights=REPEATED_WEIGHTS)

    with tiny.caller(updater=Record(act), functions={"value": Value()}) as caller:
        llm = caller._worker._llm
        outputs = [
            llm(KEYS, contexts=[c], candidates=[g], require_grad=True)[0]
            for c, g in zip(REPEATED, OFFERED, strict=True)
        ]
        expected_losses = losses(outputs, REPEATED_WEIGHTS)
        expected_losses.mean().backward()
        expected = gradients(llm)
        [found] = caller.update(REPEATED, OFFERED)
        torch.testing.assert_close(found, expected_losses.detach(), rtol=1e-4, atol=1e-5)
        assert_same_gradients(gradients(llm), expected)


def test_how_many_rows_are_run(tiny: Any) -> None:
    of_contexts, of_pairs = RootSpy(), Spy()
    with tiny.caller(functions={"root": of_contexts, "pairs": of_pairs}) as caller:
        caller.custom_module_fns(["root"], REPEATED, OFFERED)
        caller.custom_module_fns(["pairs"], REPEATED, OFFERED)
    assert sum(len(contexts) for _, _, contexts in of_contexts.seen) == 3
    assert sum(len(contexts) for _, _, contexts in of_pairs.seen) == sum(map(len, OFFERED))  # every row, as upstream


def test_chunks_of_repeats_stay_together(tiny: Any) -> None:
    with tiny.caller(functions={"root": RootSpy()}) as caller:
        module = caller._worker._llm.module
        keys = ["__score", "root"]
        assert sorted(map(sorted, module.chunks(keys, REPEATED, OFFERED, 1))) == [[0, 2, 4], [1], [3, 5]]
        assert [sorted(chunk) for chunk in module.chunks(["root"], REPEATED, None, 10_000)] == [[0, 1, 2, 3, 4, 5]]


def test_chunks_count_repeats_that_are_run_again(tiny: Any) -> None:
    """A chunk's graph holds every row of a function that is not `context_only`."""
    with tiny.caller(functions={"pairs": Spy()}) as caller:
        module = caller._worker._llm.module
        chunks = module.chunks(["__score", "pairs"], REPEATED, OFFERED, 1)
        assert sorted(chunks) == [[i] for i in range(len(REPEATED))]
