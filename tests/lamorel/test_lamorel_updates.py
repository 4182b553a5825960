"""Gradients and updates: the same graph as acting, the same gradients in one piece or in chunks."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from lamorel import BaseModelInitializer, BaseModuleFunction, BaseUpdater

CONTEXTS = ["you see the red ball", "a", "turn left and right; the ball is ahead of you", "goal: pick up", "ball"]
CANDIDATES = [["turn left", "turn right", "drop"], ["go forward", "drop"], ["toggle", "pick up"], ["x", "yz"], ["a"]]
WEIGHTS = torch.tensor([1.0, -2.0, 0.5, 3.0, 0.1])

Gradients = dict[str, torch.Tensor]


class Value(BaseModuleFunction):
    """A value head on the root position."""

    context_only = True

    def initialize(self) -> None:
        self.linear = torch.nn.Linear(self.llm_config.hidden_size, 1).to(self.device)

    def forward(self, forward_outputs: Any, minibatch: Any, tokenized_contexts: Any, **kwargs: Any) -> torch.Tensor:
        states = forward_outputs.get("decoder_hidden_states")
        states = forward_outputs["hidden_states"] if states is None else states
        return self.linear(states[-1][:, 0])


def losses(outputs: Sequence[dict[str, torch.Tensor]], weights: torch.Tensor) -> torch.Tensor:
    """One loss per sample, of scores and value alike: (n,)."""
    policy = torch.stack([output["__score"].log_softmax(0)[0] + 0.01 * output["__score"].sum() for output in outputs])
    values = torch.stack([output["value"][0, 0] for output in outputs])
    return weights * policy + (values - weights) ** 2


def gradients(llm: Any) -> Gradients:
    found = {name: parameter.grad for name, parameter in llm.named_parameters() if parameter.grad is not None}
    llm.zero_grad()
    return found


def assert_same_gradients(found: Gradients, expected: Gradients) -> None:
    """Per tensor, the largest difference is at most 1e-4 of the largest entry; tensors without signal exempt."""
    assert found.keys() == expected.keys()
    largest = max(gradient.abs().max().item() for gradient in expected.values())
    assert largest > 1e-2
    for name, gradient in expected.items():
        scale = gradient.abs().max().item()
        if scale >= 1e-6 * largest:
            assert (found[name] - gradient).abs().max().item() <= 1e-4 * scale, name


class Record(BaseUpdater):
    """Calls back; keeps what perform_update was given."""

    def __init__(self, act: Any = None) -> None:
        self.act = act
        self.given: Any = None

    def perform_update(self, contexts: Any, candidates: Any, _current_batch_ids: Any, **kwargs: Any) -> Any:
        self.given = (contexts, candidates, _current_batch_ids, kwargs)
        return self.act(self) if self.act else "done"


def one_graph(llm: Any, **kwargs: Any) -> Gradients:
    outputs = llm(["__score", "value"], contexts=CONTEXTS, candidates=CANDIDATES, require_grad=True, **kwargs)
    losses(outputs, WEIGHTS).mean().backward()
    return gradients(llm)


@pytest.mark.parametrize("minibatch_size", [1, 3, None])
def test_gradients_equal_the_reference_path(tiny: Any, minibatch_size: int | None) -> None:
    with tiny.caller(functions={"value": Value()}) as caller:
        found = one_graph(caller._worker._llm, minibatch_size=minibatch_size)
    with tiny.caller(functions={"value": Value()}, scoring="reference") as caller:
        expected = one_graph(caller._worker._llm, minibatch_size=1)
    assert_same_gradients(found, expected)


def test_gradient_checkpointing_changes_nothing(tiny_pair: Any) -> None:
    with tiny_pair.caller(functions={"value": Value()}) as caller:
        expected = one_graph(caller._worker._llm, minibatch_size=2)
    with tiny_pair.caller(functions={"value": Value()}, gradient_checkpointing=True) as caller:
        assert_same_gradients(one_graph(caller._worker._llm, minibatch_size=2), expected)


@pytest.mark.parametrize("tokens_per_chunk", [1, 40, 10_000])
def test_accumulate_equals_one_graph(tiny: Any, tokens_per_chunk: int) -> None:
    sizes = []

    def loss_fn(outputs: Any, weights: torch.Tensor, as_array: np.ndarray, as_list: list[float]) -> torch.Tensor:
        sizes.append(len(outputs))
        assert as_array.tolist() == as_list == weights.tolist()
        return losses(outputs, weights)

    def act(updater: Record) -> torch.Tensor:
        updater.tokens_per_chunk = tokens_per_chunk
        rows = {"weights": WEIGHTS, "as_array": WEIGHTS.numpy(), "as_list": WEIGHTS.tolist()}
        return updater.accumulate(loss_fn, ["__score", "value"], CONTEXTS, CANDIDATES, **rows)

    with tiny.caller(updater=Record(act), functions={"value": Value()}) as caller:
        llm = caller._worker._llm
        expected = one_graph(llm)
        with torch.no_grad():
            expected_losses = losses(llm(["__score", "value"], contexts=CONTEXTS, candidates=CANDIDATES), WEIGHTS)
        [found_losses] = caller.update(CONTEXTS, CANDIDATES)
        assert_same_gradients(gradients(llm), expected)
    torch.testing.assert_close(found_losses, expected_losses, rtol=1e-4, atol=1e-4)
    assert sum(sizes) == len(CONTEXTS)
    assert len(sizes) == {1: 5, 10_000: 1}.get(tokens_per_chunk, len(sizes))


class Terms(NamedTuple):
    weight: torch.Tensor
    double: torch.Tensor


@pytest.mark.parametrize("tokens_per_chunk", [1, 10_000])
def test_accumulate_returns_further_tensors_in_the_order_of_contexts(tiny: Any, tokens_per_chunk: int) -> None:
    def loss_fn(outputs: Any, weights: torch.Tensor) -> tuple[torch.Tensor, Terms]:
        return losses(outputs, weights), Terms(weights, 2 * weights.requires_grad_())

    def act(updater: Record) -> Any:
        updater.tokens_per_chunk = tokens_per_chunk
        return updater.accumulate(loss_fn, ["__score", "value"], CONTEXTS, CANDIDATES, weights=WEIGHTS)

    with tiny.caller(updater=Record(act), functions={"value": Value()}) as caller:
        expected = one_graph(caller._worker._llm)
        [(_, terms)] = caller.update(CONTEXTS, CANDIDATES)
        assert_same_gradients(gradients(caller._worker._llm), expected)
    assert isinstance(terms, Terms)
    assert terms.weight.tolist() == WEIGHTS.tolist()
    assert terms.double.tolist() == (2 * WEIGHTS).tolist()
    assert not terms.double.requires_grad


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_spoils_every_gradient(t5: Any, wrong: float) -> None:
    """Also where the gradient of the loss itself is finite, as of a constant that is added to one sample's."""

    def act(updater: Record) -> None:
        updater.tokens_per_chunk = 1  # a sample per chunk: the others' gradients are finite, too
        updater.accumulate(losses_and, ["__score", "value"], CONTEXTS, CANDIDATES, weights=WEIGHTS, more=more)

    def losses_and(outputs: Any, weights: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
        return losses(outputs, weights) + more

    more = torch.zeros(5)
    with t5.caller(updater=Record(act), functions={"value": Value()}) as caller:
        caller.update(CONTEXTS, CANDIDATES)
        assert all(gradient.isfinite().all() for gradient in gradients(caller._worker._llm).values())
        more[2] = wrong
        caller.update(CONTEXTS, CANDIDATES)
        found = gradients(caller._worker._llm)
        assert found
        assert all(gradient.isnan().all() for gradient in found.values())


def test_accumulate_refuses_rows_and_losses_of_another_shape(t5: Any) -> None:
    def wrong_rows(updater: Record) -> None:
        updater.accumulate(losses, ["__score"], CONTEXTS, CANDIDATES, weights=WEIGHTS[:3])

    def wrong_losses(updater: Record) -> None:
        updater.accumulate(lambda outputs: torch.zeros(()), ["__score"], CONTEXTS, CANDIDATES)

    for act, message in ((wrong_rows, "'weights' has 3 entries for 5 contexts"), (wrong_losses, "shape \\(\\)")):
        with t5.caller(updater=Record(act)) as caller, pytest.raises(ValueError, match=message):
            caller.update(CONTEXTS, CANDIDATES)


def test_what_an_updater_is_given(t5: Any) -> None:
    updater = Record()
    returns = torch.arange(5.0)
    array = np.arange(5)
    with t5.caller(updater=updater, functions={"value": Value()}) as caller:
        assert caller.update(CONTEXTS, CANDIDATES, returns=returns, array=array, rate=0.1) == ["done"]
        contexts, candidates, ids, kwargs = updater.given
        assert (contexts, candidates, kwargs["rate"]) == (CONTEXTS, CANDIDATES, 0.1)
        assert torch.equal(kwargs["returns"][ids], returns)
        assert kwargs["array"][ids].tolist() == array.tolist()
        names = [name.split(".")[0] for name in updater._llm_module.module.state_dict()]
        assert set(names) == {"_LLM_model", "_module_functions"}
        assert caller.update([], []) == []
        with pytest.raises(ValueError, match="5 contexts, but 1 lists"):
            caller.update(CONTEXTS, CANDIDATES[:1])


def test_update_errors(t5: Any) -> None:
    def fail(_updater: Record) -> None:
        raise ZeroDivisionError("mine")

    with t5.caller(updater=Record(fail)) as caller, pytest.raises(ZeroDivisionError, match="mine"):
        caller.update(CONTEXTS, CANDIDATES)
    with t5.caller() as caller, pytest.warns(UserWarning, match="update does nothing without an updater"):
        assert caller.update(CONTEXTS, CANDIDATES) is None


def test_an_update_changes_scores(tiny_pair: Any) -> None:
    class Raise(BaseUpdater):
        def setup(self) -> None:
            self.optimizer = torch.optim.SGD(self._llm_module.parameters(), lr=1e-4)

        def perform_update(self, contexts: Any, candidates: Any, _current_batch_ids: Any, **kwargs: Any) -> float:
            outputs = self._llm_module(["__score"], contexts=contexts, candidates=candidates, require_grad=True)
            loss = -torch.stack([output["__score"][0] for output in outputs]).mean()
            loss.backward()
            self.optimizer.step()
            return loss.item()

    with tiny_pair.caller(updater=Raise()) as caller:
        before = torch.stack([scores[0] for scores in caller.score(CONTEXTS, CANDIDATES)])
        [loss] = caller.update(CONTEXTS, CANDIDATES)
        after = torch.stack([scores[0] for scores in caller.score(CONTEXTS, CANDIDATES)])
    assert loss == pytest.approx(-before.mean().item(), rel=1e-5)
    assert after.mean() > before.mean() + 0.01


def test_initializers_run_in_order_on_the_whole_module(t5: Any) -> None:
    seen = []

    class Freeze(BaseModelInitializer):
        def initialize_model(self, model: Any) -> Any:
            seen.append("freeze")
            assert list(model._module_functions) == ["value"]
            model._LLM_model.requires_grad_(False)
            return model

    class Zero(BaseModelInitializer):
        def initialize_model(self, model: Any) -> Any:
            seen.append("zero")
            torch.nn.init.zeros_(model._module_functions["value"].linear.weight)
            return model

    with t5.caller(functions={"value": Value()}, initializer=[Freeze(), Zero()]) as caller:
        trained = [name for name, p in caller._worker._llm.module.named_parameters() if p.requires_grad]
        values = caller.custom_module_fns(["value"], CONTEXTS)
    assert seen == ["freeze", "zero"]
    assert trained == ["_module_functions.value.linear.weight", "_module_functions.value.linear.bias"]
    assert values[0]["value"] == values[1]["value"]  # the bias alone
