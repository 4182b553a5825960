"""What module functions see, in every view, and what comes back from them."""

from typing import Any

import pytest
import torch

from lamorel import BaseModuleFunction, Caller

CONTEXTS = ["you see the red ball", "a", "turn left and right; the ball is ahead of you"]
CANDIDATES = [["turn left", "drop"], ["go forward"], ["", "pick up", "turn right"]]


def hidden(outputs: Any) -> torch.Tensor:
    """The last layer, (rows, positions, hidden)."""
    states = outputs.get("decoder_hidden_states")
    return (outputs["hidden_states"] if states is None else states)[-1]


class Spy(BaseModuleFunction):
    """Keeps what it sees; returns the hidden state at index 0."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []
        self.given: dict[str, Any] = {}

    def forward(self, forward_outputs: Any, minibatch: Any, tokenized_contexts: Any, **kwargs: Any) -> torch.Tensor:
        self.seen.append((forward_outputs, minibatch, tokenized_contexts))
        self.given = kwargs
        return hidden(forward_outputs)[:, 0]


class RootSpy(Spy):
    context_only = True


class BaseSpy(Spy):
    adapters = False


class BaseRootSpy(RootSpy):
    adapters = False


class PaddedSpy(RootSpy):
    right_padded = True


class LogScore(BaseModuleFunction):
    """A scoring function as upstream scripts write it: log-softmax, padding recognised by id 0."""

    def forward(self, forward_outputs: Any, minibatch: Any, tokenized_contexts: Any, **kwargs: Any) -> torch.Tensor:
        if "decoder_input_ids" in minibatch:
            ids, start = minibatch["decoder_input_ids"], 0
        else:
            ids = minibatch["input_ids"]
            start = len(tokenized_contexts[0]["input_ids"]) if kwargs["whole"] else 0
        logprobs = forward_outputs["logits"].log_softmax(-1)[:, start:-1]
        tokens = ids[:, start + 1 :]
        return (logprobs.gather(-1, tokens[..., None])[..., 0] * (tokens != 0)).sum(-1)


def ids_of(tiny: Any, text: str) -> list[int]:
    import transformers

    return transformers.AutoTokenizer.from_pretrained(tiny.folder)(text, add_special_tokens=False)["input_ids"]


def plain_root(tiny: Any, context: str) -> torch.Tensor:
    """Hidden state at the root, by Hugging Face alone on the unpadded context."""
    model, ids = tiny.plain_model(), torch.tensor([ids_of(tiny, context)])
    with torch.no_grad():
        if tiny.model_type == "causal":
            return model(ids, output_hidden_states=True).hidden_states[-1][0, -1]
        start = torch.tensor([[model.config.decoder_start_token_id]])
        return model(ids, decoder_input_ids=start, output_hidden_states=True).decoder_hidden_states[-1][0, 0]


@pytest.mark.parametrize("minibatch_size", [1, 2, 100])
def test_root_hidden_state(tiny: Any, minibatch_size: int) -> None:
    expected = [plain_root(tiny, context) for context in CONTEXTS]
    functions = {"root": RootSpy(), "pair": Spy()}
    with tiny.caller(functions=functions, minibatch_size=minibatch_size) as caller:
        for candidates in (None, CANDIDATES):
            for i, output in enumerate(caller.custom_module_fns(["root", "pair"], CONTEXTS, candidates)):
                assert output["root"].shape[0] == 1
                assert output["pair"].shape[0] == (1 if candidates is None else len(CANDIDATES[i]))
                for row in (*output["root"], *output["pair"]):
                    torch.testing.assert_close(row, expected[i], rtol=0, atol=1e-4)


def test_encoder_decoder_view(t5: Any) -> None:
    spy = Spy()
    with t5.caller(functions={"spy": spy}) as caller:
        caller.custom_module_fns(["spy"], CONTEXTS, CANDIDATES, extra=[1, 2])
    [(outputs, minibatch, tokenized)] = spy.seen
    pairs = [(c, k) for c, group in zip(CONTEXTS, CANDIDATES, strict=True) for k in group]
    decoder = [[3, *ids_of(t5, candidate)] for _, candidate in pairs]  # 3: the start token
    width = max(map(len, decoder))
    assert minibatch["decoder_input_ids"].tolist() == [ids + [0] * (width - len(ids)) for ids in decoder]
    assert minibatch["decoder_attention_mask"].sum(1).tolist() == [len(ids) for ids in decoder]
    assert outputs["logits"].shape[:2] == (len(pairs), width)
    assert len(outputs["decoder_hidden_states"]) == 3  # the embedding and two layers
    assert [entry["input_ids"] for entry in tokenized] == [ids_of(t5, context) for context, _ in pairs]
    assert spy.given == {"extra": [1, 2]}


def test_decoder_only_view_from_the_last_context_token(llama: Any) -> None:
    spy = Spy()
    with llama.caller(functions={"spy": spy}) as caller:
        caller.custom_module_fns(["spy"], CONTEXTS, CANDIDATES)
    [(outputs, minibatch, _)] = spy.seen
    pairs = [(c, k) for c, group in zip(CONTEXTS, CANDIDATES, strict=True) for k in group]
    rows = [[ids_of(llama, context)[-1], *ids_of(llama, candidate)] for context, candidate in pairs]
    width = max(map(len, rows))
    assert minibatch["input_ids"].tolist() == [ids + [0] * (width - len(ids)) for ids in rows]
    assert minibatch["attention_mask"].sum(1).tolist() == [len(ids) for ids in rows]
    assert outputs["logits"].shape[:2] == outputs["hidden_states"][-1].shape[:2] == (len(pairs), width)


def test_decoder_only_view_of_the_whole_sequence(llama: Any) -> None:
    spy = Spy()
    with llama.caller(functions={"spy": spy}, pre_encode_inputs=False) as caller:
        caller.custom_module_fns(["spy"], CONTEXTS, CANDIDATES)
    [(outputs, minibatch, tokenized)] = spy.seen
    pairs = [(c, k) for c, group in zip(CONTEXTS, CANDIDATES, strict=True) for k in group]
    last = len(tokenized[0]["input_ids"])  # index of the last context token
    assert {len(entry["input_ids"]) for entry in tokenized} == {last}
    for row, (context, candidate) in enumerate(pairs):
        before, after = ids_of(llama, context), ids_of(llama, candidate)
        ids = minibatch["input_ids"][row].tolist()
        assert ids[last + 1 - len(before) : last + 1 + len(after)] == before + after
        assert set(ids[last + 1 + len(after) :]) <= {0}
        assert minibatch["attention_mask"][row].sum() == len(before) + len(after)
        torch.testing.assert_close(
            hidden(outputs)[row, last], plain_root(llama, context), rtol=0, atol=1e-4, msg=f"row {row}"
        )


@pytest.mark.parametrize("whole", [False, True])
def test_upstream_style_scoring_function_equals_score(tiny: Any, whole: bool) -> None:
    candidates = [[text for text in group if text] for group in CANDIDATES]
    with tiny.caller(functions={"log": LogScore()}, pre_encode_inputs=not whole, minibatch_size=4) as caller:
        for output in caller.score(CONTEXTS, candidates, ["log"], whole=whole):
            torch.testing.assert_close(output["log"], output["__score"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("minibatch_size", [1, 2, 100])
@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
def test_the_last_position_of_the_right_padded_call(tiny_models: Any, family: str, minibatch_size: int) -> None:
    """As transformers gives it, which counts positions on in the padding, however the call is cut into forwards."""
    tiny = tiny_models[family]
    rows = [ids_of(tiny, context) for context in CONTEXTS]
    width = max(map(len, rows))
    pad = 0  # whatever the tokenizer's is
    with tiny.caller(functions={"padded": PaddedSpy()}, minibatch_size=minibatch_size) as caller:
        caller._worker._llm.module.forwards.pad_id = 5
        found = [output["padded"][0] for output in caller.custom_module_fns(["padded"], CONTEXTS, CANDIDATES)]
        alone = [caller.custom_module_fns(["padded"], [context])[0]["padded"][0] for context in CONTEXTS]
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    with torch.no_grad():
        outputs = tiny.plain_model()(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    for i, expected in enumerate(outputs.hidden_states[-1][:, -1]):
        torch.testing.assert_close(found[i], expected, rtol=0, atol=1e-4)
        torch.testing.assert_close(alone[i], plain_root(tiny, CONTEXTS[i]), rtol=0, atol=1e-4)  # without company
    assert (found[0] - alone[0]).abs().max() > 0.1  # a shorter one is read in the padding


def test_an_encoder_has_no_right_padded_call(t5: Any) -> None:
    with t5.caller(functions={"padded": PaddedSpy()}) as caller, pytest.raises(ValueError, match="decoder-only models"):
        caller.custom_module_fns(["padded"], CONTEXTS)


@pytest.mark.parametrize("spies", [(BaseSpy, Spy), (BaseRootSpy, RootSpy)])
def test_functions_without_adapters_see_the_base_model(tiny_pair: Any, spies: Any) -> None:
    functions = {"base": spies[0](), "tuned": spies[1]()}
    lora = {"r": 4, "alpha": 8, "target_modules": ["q", "v"] if tiny_pair.family == "t5" else ["q_proj", "v_proj"]}
    with tiny_pair.caller(functions=functions, lora=lora) as caller:
        module = caller._worker._llm.module
        for name, parameter in module.named_parameters():
            if "lora_B" in name:  # zero at first, where the adapter changes nothing
                torch.nn.init.normal_(parameter, std=0.5)
        outputs = module(["base", "tuned"], contexts=CONTEXTS, candidates=CANDIDATES, require_grad=True)
        for context, output in zip(CONTEXTS, outputs, strict=True):
            expected = plain_root(tiny_pair, context)
            for row in output["base"]:
                torch.testing.assert_close(row, expected, rtol=0, atol=1e-4)
            assert not output["base"].requires_grad
            assert output["tuned"].requires_grad
            assert (output["tuned"][0] - expected).abs().max() > 1e-2


def test_a_function_without_adapters_sees_what_it_sees_without_any(tiny_pair: Any) -> None:
    """Bit for bit: a critic on the frozen model has the inputs of the model as it came, whatever the adapters learn."""
    with tiny_pair.caller(functions={"base": BaseRootSpy()}) as caller:
        expected = caller.custom_module_fns(["base"], CONTEXTS, CANDIDATES)
    lora = {"r": 4, "alpha": 8, "target_modules": ["q", "v"] if tiny_pair.family == "t5" else ["q_proj", "v_proj"]}
    with tiny_pair.caller(functions={"base": BaseRootSpy()}, lora=lora) as caller:
        before = torch.cat(caller.score(CONTEXTS, CANDIDATES))
        for name, parameter in caller._worker._llm.module.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.5)
        found = caller.custom_module_fns(["base"], CONTEXTS, CANDIDATES)
        assert (torch.cat(caller.score(CONTEXTS, CANDIDATES)) - before).abs().max() > 1e-2
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one["base"], other["base"])


def test_heads_are_drawn_from_the_seed_and_leave_other_random_numbers_alone(t5: Any) -> None:
    class Head(BaseModuleFunction):
        def initialize(self) -> None:
            assert self.device == torch.device("cpu")
            self.linear = torch.nn.Linear(self.llm_config.hidden_size, 1)

        def forward(self, forward_outputs: Any, *_: Any, **__: Any) -> torch.Tensor:
            return self.linear(forward_outputs["decoder_hidden_states"][-1][:, 0])

    def weights(seed: int) -> torch.Tensor:
        head = Head()
        t5.caller(functions={"head": head}, seed=seed, pretrained=False).close()
        return head.linear.weight

    torch.manual_seed(5)
    first = weights(seed=1)
    after = torch.rand(3)
    torch.manual_seed(6)
    assert torch.equal(first, weights(seed=1))
    assert not torch.equal(first, weights(seed=2))
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(3))


def test_a_function_with_too_few_rows_is_named(t5: Any) -> None:
    class OneRow(BaseModuleFunction):
        def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            return torch.zeros(1)

    class Broken(BaseModuleFunction):
        def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            raise ZeroDivisionError("mine")

    with t5.caller(functions={"one": OneRow(), "broken": Broken()}) as caller:
        with pytest.raises(ValueError, match="'one' must return a tensor with 6 rows"):
            caller.custom_module_fns(["one"], CONTEXTS, CANDIDATES)
        with pytest.raises(ZeroDivisionError, match="mine"):  # errors of user code stay what they are
            caller.custom_module_fns(["broken"], CONTEXTS, CANDIDATES)
        with pytest.raises(KeyError, match=r"unknown module function 'two'; known: __score, .*one"):
            caller.custom_module_fns(["two"], CONTEXTS, CANDIDATES)
        with pytest.raises(ValueError, match="__score needs candidates"):
            caller.custom_module_fns(["__score"], CONTEXTS)


def test_a_function_whose_rows_depend_on_padding_is_named(t5: Any) -> None:
    class PerPosition(BaseModuleFunction):
        def forward(self, forward_outputs: Any, *_: Any, **__: Any) -> torch.Tensor:
            return forward_outputs["logits"].sum(dim=-1)

    message = "'f' must return rows of one shape for every minibatch"
    with (
        t5.caller(functions={"f": PerPosition()}, minibatch_size=1) as caller,
        pytest.raises(ValueError, match=message),
    ):
        caller.custom_module_fns(["f"], CONTEXTS, CANDIDATES)


@pytest.mark.parametrize("name", ["", "a.b", "keys", "__score"])
def test_what_cannot_be_a_function_is_said_before_loading(name: str, tmp_path: Any) -> None:
    (tmp_path / "config.json").write_text("no model")
    config = {"llm_args": {"model_path": str(tmp_path)}}
    with pytest.raises(ValueError, match=f"custom_module_functions: {name!r} cannot be the name"):
        Caller(config, None, {name: RootSpy()})
    with pytest.raises(TypeError, match=r"custom_module_functions\['f'\]: expected an instance"):
        Caller(config, None, {"f": RootSpy})


def test_functions_without_adapters_leave_frozen_adapters_frozen(llama: Any) -> None:
    with llama.caller(functions={"base": BaseSpy()}, lora={"target_modules": ["q_proj"]}) as caller:
        model = caller._worker._llm.module
        for name, parameter in model.named_parameters():
            if "lora_A" in name:
                parameter.requires_grad_(False)
        before = [parameter.requires_grad for parameter in model.parameters()]
        caller.score(CONTEXTS, CANDIDATES, ["base"])
        assert [parameter.requires_grad for parameter in model.parameters()] == before
