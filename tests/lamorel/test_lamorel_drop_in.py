"""Calls and attributes that scripts written for Lamorel 0.2 use."""

from typing import Any

import numpy as np
import pytest
import torch

from lamorel import BaseModelInitializer, BaseModuleFunction, BaseUpdater, Caller

CONTEXTS = ["you see the red ball", "a"]
CANDIDATES = [["turn left", "go forward"], ["toggle"]]
ATTRIBUTES = ("_LLM_tokenizer", "device", "model_type", "pad_token", "generate", "get_model_config")


class PerContext(BaseModuleFunction):
    context_only = True

    def forward(self, forward_outputs: Any, minibatch: Any, tokenized_contexts: Any, **kwargs: Any) -> torch.Tensor:
        return torch.ones(len(tokenized_contexts), 2)


class PerCandidate(BaseModuleFunction):
    def forward(self, forward_outputs: Any, minibatch: Any, tokenized_contexts: Any, **kwargs: Any) -> torch.Tensor:
        return torch.ones(len(tokenized_contexts), 3)


class Acting(BaseUpdater):
    """`perform_update` is what the test says."""

    def __init__(self, act: Any) -> None:
        self.act = act

    def perform_update(self, contexts: Any, candidates: Any, _current_batch_ids: Any, **kwargs: Any) -> Any:
        return self.act(self, contexts, candidates, **kwargs)


def test_texts_in_numpy_arrays(tiny_pair: Any) -> None:
    updater = Acting(lambda self, contexts, candidates: (contexts, candidates))
    with tiny_pair.caller(updater=updater) as caller:
        expected = caller.score(CONTEXTS, CANDIDATES)
        for groups in (CANDIDATES, [np.array(group) for group in CANDIDATES]):
            for found, scores in zip(caller.score(np.array(CONTEXTS), groups), expected, strict=True):
                assert torch.equal(found, scores)
        square = np.array([CANDIDATES[0]] * 2)
        assert torch.equal(caller.score(np.array(CONTEXTS, dtype=object), square)[0], expected[0])
        [first, second] = caller.generate(np.array(CONTEXTS), max_new_tokens=2)
        assert [first[0]["text"], second[0]["text"]] == [
            one["text"] for [one] in caller.generate(CONTEXTS, max_new_tokens=2)
        ]
        assert caller.update(np.array(CONTEXTS), square) == [(CONTEXTS, square.tolist())]
        with pytest.raises(TypeError, match=r"contexts\[0\]: expected a str, got 1"):
            caller.score(np.array([1, 2]), CANDIDATES)


@pytest.mark.parametrize("scoring", ["fast", "cached", "pairs", "reference"])
def test_a_context_without_candidates_has_no_scores(tiny_pair: Any, scoring: str) -> None:
    functions = {"value": PerContext(), "head": PerCandidate()}
    with tiny_pair.caller(functions=functions, scoring=scoring) as caller:
        expected = caller.score(CONTEXTS, CANDIDATES)
        [first, second] = caller.score(CONTEXTS, [CANDIDATES[0], []], ["value", "head", "__tokens"])
        torch.testing.assert_close(first["__score"], expected[0])
        assert {key: tuple(value.shape) for key, value in first.items()} == {
            "__score": (2,), "value": (1, 2), "head": (2, 3), "__tokens": (2,),
        }  # fmt: skip
        assert {key: tuple(value.shape) for key, value in second.items()} == {
            "__score": (0,), "value": (1, 2), "head": (0, 3), "__tokens": (0,),
        }  # fmt: skip
        for candidates in ([[], []], []):
            assert [tuple(scores.shape) for scores in caller.score(CONTEXTS, candidates)] == [(0,), (0,)]
        [one] = caller.custom_module_fns(["value", "head"], CONTEXTS[:1], [[]])
        assert (one["value"].shape, one["head"].shape) == ((1, 2), (0, 3))


def test_an_update_without_candidates(tiny_pair: Any) -> None:
    """Handed on as None, and `_llm_module` and `accumulate` take it so."""

    def act(self: Any, contexts: Any, candidates: Any, targets: Any) -> Any:
        assert candidates is None
        [first, _] = self._llm_module(["value"], contexts=contexts, candidates=candidates)
        losses = self.accumulate(
            lambda outputs, targets: outputs[0]["value"][0] * targets,
            ["value"],
            contexts[:1],
            None,
            targets=targets[:1],
        )
        return first["value"].shape, losses.tolist()

    with tiny_pair.caller(updater=Acting(act), functions={"value": TrainedValue()}) as caller:
        [(shape, losses)] = caller.update(CONTEXTS, candidates=None, targets=torch.tensor([3.0, 4.0]))
    assert tuple(shape) == (1, 1)
    assert losses == [6.0]


class TrainedValue(BaseModuleFunction):
    context_only = True

    def initialize(self) -> None:
        self.weight = torch.nn.Parameter(torch.tensor(2.0))

    def forward(self, forward_outputs: Any, minibatch: Any, tokenized_contexts: Any, **kwargs: Any) -> torch.Tensor:
        return self.weight.expand(len(tokenized_contexts), 1)


@pytest.mark.parametrize(
    ("contexts", "candidates"), [([None], [[None]]), ([""], [[""]]), (["a"], [[]]), ([None], None)]
)
def test_control_messages(t5: Any, contexts: Any, candidates: Any) -> None:
    updater = Acting(lambda self, contexts, candidates, path: (contexts, candidates, path))
    with t5.caller(updater=updater) as caller:
        assert caller.update(contexts, candidates, path="here") == [(contexts, candidates, "here")]


def test_require_grad_and_minibatch_size_by_position(t5: Any) -> None:
    def act(self: Any, contexts: Any, candidates: Any) -> list[bool]:
        calls = [(False,), (True,), (True, 1)]
        outputs = [self._llm_module(["__score"], contexts, candidates, *more) for more in calls]
        return [output[0]["__score"].requires_grad for output in outputs]

    with t5.caller(updater=Acting(act)) as caller:
        assert caller.update(CONTEXTS, CANDIDATES) == [[False, True, True]]


def test_attributes_of_the_module(tiny: Any) -> None:
    missing = []

    class Initializer(BaseModelInitializer):
        def initialize_model(self, model: Any) -> Any:
            missing.extend(name for name in ATTRIBUTES if not hasattr(model, name))
            return model

    def act(self: Any, contexts: Any, candidates: Any) -> Any:
        return self._llm_module.module

    with tiny.caller(updater=Acting(act), initializer=Initializer()) as caller:
        [module] = caller.update(CONTEXTS, CANDIDATES)
        assert missing == []
        tokenizer = module._LLM_tokenizer
        assert tokenizer.decode(tokenizer(CONTEXTS[0], add_special_tokens=False)["input_ids"]) == CONTEXTS[0]
        assert module.device == torch.device("cpu")
        assert module.model_type == tiny.model_type
        # 3 is the padding of the tiny models; GPT-2's has none, and 2 is its end of sequence
        assert module.pad_token == (2 if tiny.family == "gpt2" else 3)
        assert module.get_model_config().hidden_size == 32
        [[found], _] = module.generate(CONTEXTS, return_logprobs=True, max_new_tokens=2)
        [[expected], _] = caller.generate(CONTEXTS, return_logprobs=True, max_new_tokens=2)
        assert (found["text"], found["text_logprob"]) == (expected["text"], expected["text_logprob"])


def test_the_module_reaches_an_updater_by_a_method(t5: Any) -> None:
    class Updater(Acting):
        def set_llm_module(self, llm_module: Any) -> None:
            super().set_llm_module(llm_module)
            self.optimizer = torch.optim.SGD(self._llm_module.parameters(), lr=0.1)

    updater = Updater(lambda self, contexts, candidates: len(self.optimizer.param_groups[0]["params"]) > 0)
    with t5.caller(updater=updater) as caller:
        assert caller.update(CONTEXTS, CANDIDATES) == [True]


def test_accelerator_of_a_process_started_by_itself(t5: Any) -> None:
    with t5.caller() as caller:
        assert (caller.accelerator.process_index, caller.accelerator.num_processes) == (0, 1)
        assert caller.accelerator.is_main_process


@pytest.mark.parametrize("options", [{}, {"do_sample": True, "num_return_sequences": 3}])
def test_every_generated_sample_has_tensors(tiny_pair: Any, options: dict[str, Any]) -> None:
    with tiny_pair.caller() as caller:
        for return_logprobs, name in ((False, "text_probability"), (True, "text_logprob")):
            groups = caller.generate(CONTEXTS, return_logprobs, max_new_tokens=3, **options)
            samples = [sample for group in groups for sample in group]
            assert len(samples) == 2 * options.get("num_return_sequences", 1)
            for sample in samples:
                assert all(isinstance(token, int) for token in sample["tokens"].tolist())
                assert (sample[name].item() >= 0) is not return_logprobs


def test_arguments_of_an_updater_are_its_constructors(t5: Any, caplog: pytest.LogCaptureFixture) -> None:
    for given, lines in ((None, 0), ({}, 0), ({"lr": 0.1}, 1)):
        caplog.clear()
        Caller({**t5.config(), "updater_args": given}).close()
        assert (
            caplog.text.count("lamorel_args.updater_args is ignored: give lr to the constructor of your updater")
            == lines
        )
