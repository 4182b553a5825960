"""Packed scoring: trees on contexts without padding, shared heads, and the models that cannot take it."""

import copy
import random
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import transformers
from conftest import FAMILIES, randomise
from peft import LoraConfig, get_peft_model

from lamorel import BaseModelInitializer, BaseModuleFunction, BaseUpdater, reference
from lamorel.config import LLMArgs
from lamorel.packed_causal import common_head
from lamorel.tokenization import TokenIds
from lamorel.ways import Ways

VOCABULARY = 290
PAD = 3
NATS = 1e-4  # absolute tolerance of a score, fp32
WIDTHS: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
}
T5_WIDTHS: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": PAD,
}

# What each architecture asks of the packed way, and the way that it ends up with.
ARCHITECTURES: dict[str, tuple[transformers.PretrainedConfig, str]] = {
    "one key for all heads": (
        transformers.GPTBigCodeConfig(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4),
        "packed",
    ),
    "learned positions with an offset": (
        transformers.OPTConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            ffn_dim=48,
            num_attention_heads=4,
            num_hidden_layers=2,
            word_embed_proj_dim=32,
        ),
        "packed",
    ),
    "window in every other layer": (
        transformers.Gemma3TextConfig(**WIDTHS, num_key_value_heads=2, head_dim=8, sliding_window=8),
        "packed",
    ),
    "experts": (
        transformers.MixtralConfig(**WIDTHS, num_key_value_heads=2, num_local_experts=4, sliding_window=8),
        "packed",
    ),
    "parallel attention and mlp": (transformers.GPTNeoXConfig(**WIDTHS), "packed"),
    "window in the mask alone": (
        # Longer than the tokens that the ways are tried with, shorter than the contexts below.
        transformers.PhimoeConfig(**WIDTHS, num_key_value_heads=2, num_local_experts=4, sliding_window=30),
        "cached",
    ),
    "chunks in the mask alone": (
        transformers.Llama4TextConfig(
            **WIDTHS,
            num_key_value_heads=2,
            head_dim=8,
            attention_chunk_size=30,
            intermediate_size_mlp=48,
            num_local_experts=2,
        ),
        "cached",
    ),
    "mT5": (transformers.MT5Config(**T5_WIDTHS), "packed"),
    "soft caps": (transformers.Gemma2Config(**WIDTHS, num_key_value_heads=2, head_dim=8, sliding_window=8), "cached"),
    "alibi": (transformers.BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4), "cached"),
    "attention of its own": (
        transformers.GPTJConfig(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, rotary_dim=4),
        "cached",
    ),
    "bias in every layer": (transformers.UMT5Config(**T5_WIDTHS), "cached"),
    "recurrent": (transformers.MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2), "equal"),
}


def make_model(config: transformers.PretrainedConfig) -> Any:
    auto = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    model = auto.from_config(config).eval()
    randomise(model)
    return model


def inputs(*, head: int, seed: int = 0) -> tuple[list[TokenIds], list[list[TokenIds]]]:
    """Contexts with a common head, and candidates that are empty, long, repeated, nested or many."""
    rng = random.Random(seed)

    def tokens(count: int) -> TokenIds:
        return tuple(rng.randrange(VOCABULARY) for _ in range(count))

    shared = tokens(head)
    contexts = [shared + tokens(n) for n in (3, 40, 9, 17, 1)]
    candidates = [[tokens(n) for n in (1, 3, 10, 0, 2)] for _ in contexts]
    long = candidates[1][2]
    candidates[1] += [long, long[:5] + tokens(2), long[:5], long[:1], (PAD, *long[:2]), (PAD,)]
    candidates[2] = [tokens(rng.randrange(1, 5)) for _ in range(50)]
    candidates[3] = [tokens(1)]
    return contexts, candidates


def score(ways: Ways, contexts: list[TokenIds], candidates: list[list[TokenIds]]) -> torch.Tensor:
    shared = ways.share(contexts, adapters=[True])
    return ways.scores(contexts, candidates, rows=7, shared=shared)[0].logprob


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_is_scored_exactly(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "lamorel.ways")
    config, way = ARCHITECTURES[name]
    model = make_model(config)
    contexts, candidates = inputs(head=12)
    with torch.no_grad():
        expected = reference.token_scores(model, contexts, candidates)[0]
        ways = Ways(model, LLMArgs(), pad_id=PAD)
        for _ in range(2):
            torch.testing.assert_close(score(ways, contexts, candidates), expected, rtol=0, atol=NATS)
    assert expected.std() > 0.2  # weights are large enough for the test to fail
    assert ways.way == way
    said = [record for record in caplog.records if record.name == "lamorel.ways"]
    assert len(said) == (way != "packed")  # once, with the reason


def test_attention_that_stays_with_the_model_is_noticed_whatever_the_weights() -> None:
    config = copy.deepcopy(ARCHITECTURES["attention of its own"][0])
    config.initializer_range = 1e-4  # all scores are alike, so that a wrong one looks right
    ways = Ways(transformers.AutoModelForCausalLM.from_config(config).eval(), LLMArgs(), pad_id=PAD)
    assert ways.way == "cached"


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("head", [0, 7, 12])
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "bart"])
def test_heads_and_groups_change_nothing(tiny_models: dict[str, Any], family: str, head: int, together: bool) -> None:
    model = tiny_models[family].plain_model()
    ways = Ways(model, LLMArgs(), pad_id=PAD)
    assert ways.way == "packed"
    assert ways._packed is not None
    ways._packed.together = together
    contexts, candidates = inputs(head=head)
    expected, gradients = [], []
    for way in (ways, None):
        model.zero_grad()
        scores = score(way, contexts, candidates) if way else reference.token_scores(model, contexts, candidates)[0]
        (scores * torch.linspace(-1, 1, len(scores))).sum().backward()
        expected.append(scores.detach())
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    torch.testing.assert_close(*expected, rtol=0, atol=NATS)
    with torch.no_grad():
        torch.testing.assert_close(score(ways, contexts, candidates), expected[1], rtol=0, atol=NATS)
    assert gradients[0].keys() == gradients[1].keys()
    largest = max(gradient.abs().max() for gradient in gradients[1].values())
    for name, gradient in gradients[1].items():
        scale = gradient.abs().max()
        if scale >= 1e-6 * largest:
            assert (gradients[0][name] - gradient).abs().max() <= 1e-4 * scale, name


def test_common_head_leaves_every_context_its_last_token() -> None:
    head = tuple(range(10))
    assert common_head([(*head, 11), (*head, 12)]) == head
    assert common_head([(*head, 11), head]) == head[:9]  # the root of the second is its token 9
    assert common_head([(*head, 11)]) == ()
    assert common_head([(*head[:7], 11), (*head[:7], 12)]) == ()  # too short to be worth a forward


def test_the_head_is_computed_once_until_the_weights_change(llama: Any) -> None:
    class Shift(BaseUpdater):
        def perform_update(self, contexts: Any, candidates: Any, _current_batch_ids: Any, **kwargs: Any) -> None:
            for parameter in self._llm_module.parameters():
                parameter.data.mul_(1.1)  # not seen by the parameter's version

    contexts = ["you see the red ball two steps ahead. " + text for text in ("a", "b", "turn left")]
    candidates = [["turn left", "drop"]] * 3
    with llama.caller(updater=Shift()) as caller:
        llm = caller._worker._llm.module
        assert llm.ways.way == "packed"
        heads = []
        run_head = llm.ways._packed._run_head
        llm.ways._packed._run_head = lambda ids: (heads.append(ids), run_head(ids))[1]

        def check(times: int) -> None:
            found = caller.score(contexts, candidates)
            with torch.no_grad():
                ids = llm.encoder.contexts(contexts), llm.encoder.candidates(candidates)
                expected = reference.token_scores(llm._LLM_model, *ids)[0]
            tokens = [len(c) for group in ids[1] for c in group]
            sums = torch.stack([part.sum() for part in expected.split(tokens)])
            torch.testing.assert_close(torch.cat(found), sums, rtol=0, atol=NATS)
            assert len(heads) == times

        check(1)
        check(1)
        caller.update(contexts, candidates)
        check(2)
        with torch.no_grad():
            llm._LLM_model.lm_head.weight.mul_(0.9)
        check(3)
        contexts[:] = [text.replace("red", "blue") for text in contexts]
        check(4)  # another head
        contexts[2] = "you see another thing"
        check(4)  # none any more


class Ratio(BaseUpdater):
    """Scores before and after `change`, without gradient, in one update."""

    def __init__(self, change: str) -> None:
        self.change = change

    def perform_update(self, contexts: Any, candidates: Any, _current_batch_ids: Any, **kwargs: Any) -> Any:
        model = self._llm_module.module._LLM_model
        self.scores(contexts, candidates)
        with model.disable_adapter() if self.change == "adapters off" else nullcontext():
            if self.change == "data":
                for parameter in model.parameters():
                    parameter.data.mul_(1.1)
            elif self.change == "assigned":
                model.load_state_dict({k: v * 1.1 for k, v in model.state_dict().items()}, assign=True)
            found = self.scores(contexts, candidates)
            llm = self._llm_module.module
            ids = llm.encoder.contexts(contexts), llm.encoder.candidates(candidates)
            with torch.no_grad():
                tokens = [len(c) for group in ids[1] for c in group]
                expected = reference.token_scores(model, *ids)[0].split(tokens)
        return found, torch.stack([part.sum() for part in expected])

    def scores(self, contexts: Any, candidates: Any) -> torch.Tensor:
        return torch.cat([o["__score"] for o in self._llm_module(["__score"], contexts, candidates)])


@pytest.mark.parametrize("change", ["adapters off", "data", "assigned"])
def test_within_an_update_no_head_outlives_its_weights(llama: Any, change: str) -> None:
    class Adapter(BaseModelInitializer):
        def initialize_model(self, model: Any) -> Any:
            lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
            model._LLM_model = get_peft_model(model._LLM_model, lora)
            return model

    contexts = ["you see the red ball two steps ahead. " + text for text in ("a", "b", "turn left")]
    initializer = Adapter() if change == "adapters off" else None
    with llama.caller(updater=Ratio(change), initializer=initializer) as caller:
        found, expected = caller.update(contexts, [["turn left", "drop"]] * 3)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=NATS)


def test_trees_too_large_for_a_mask_are_scored_from_the_cache(tiny_pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lamorel.ways._MOST_NODES", 8)
    contexts, candidates = ["go", "turn left", "drop"], [["red ball"], ["drop it now", "x y z", ""], ["a", "go on"]]
    with tiny_pair.caller(functions={"log": LogScore()}) as caller, tiny_pair.caller(scoring="reference") as slow:
        ways = caller._worker._llm.module.ways
        assert ways.way == "packed"
        run, sizes = ways._packed.run, []
        ways._packed.run = lambda c, tries, *a, **k: (sizes.extend(map(len, tries)), run(c, tries, *a, **k))[1]
        outputs = caller.score(contexts, candidates, ["log"])
        for context, group, output in zip(contexts, candidates, outputs, strict=True):
            alone = caller.score([context], [group])[0]
            expected = slow.score([context], [group])[0]
            for found in (output["__score"], output["log"], alone):
                torch.testing.assert_close(found, expected, rtol=0, atol=NATS)
        assert sizes
        assert max(sizes) <= 8


def test_context_only_functions_without_adapters_have_a_head_of_their_own(llama: Any) -> None:
    class Root(BaseModuleFunction):
        context_only = True

        def forward(self, forward_outputs: Any, minibatch: Any, tokenized_contexts: Any, **kwargs: Any) -> Any:
            return forward_outputs["hidden_states"][-1][:, 0]

    class BaseRoot(Root):
        adapters = False

    contexts = ["you see the red ball two steps ahead. " + text for text in ("a", "b", "turn left")]
    functions = {"root": Root(), "base": BaseRoot()}
    with llama.caller(functions=functions, lora={"r": 2}) as caller, llama.caller(functions={"root": Root()}) as plain:
        with torch.no_grad():
            for name, parameter in caller._worker._llm.module.named_parameters():
                if "lora_B" in name:
                    parameter.normal_()
        expected = plain.custom_module_fns(["root"], contexts)
        for keys in (["root", "base"], ["base", "root"], ["base"]):
            found = caller.custom_module_fns(keys, contexts)
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(one["base"], other["root"], rtol=0, atol=1e-4)
                if "root" in keys:
                    assert (one["root"] - other["root"]).abs().max() > 0.1


@pytest.mark.parametrize("lora", [None, {"r": 2, "target_modules": ["q", "k", "v", "o"]}])
def test_cross_attention_by_projected_queries_or_projected_keys(t5: Any, lora: Any) -> None:
    """Few nodes: the projections of keys and values move to the queries; adapters on them, or many nodes: they stay."""
    contexts, candidates = ["you see the red ball", "a"], [["turn left", "drop"], ["ab cd ef gh ij kl mn op", "x"]]
    with t5.caller(lora=lora) as fast, t5.caller(lora=lora, scoring="reference") as slow:
        for caller in (fast, slow):
            with torch.no_grad():
                for i, (name, parameter) in enumerate(caller._worker._llm.module.named_parameters()):
                    if "lora_B" in name:
                        parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(i))
        assert fast._worker._llm.module.ways.way == "packed"
        for one, other in zip(fast.score(contexts, candidates), slow.score(contexts, candidates), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=NATS)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_agrees_with_the_reference_in_the_same_precision(tiny_pair: Any, dtype: str) -> None:
    contexts = ["you see the red ball two steps ahead. " + text for text in ("a", "b", "turn left")]
    candidates = [["turn left", "drop"]] * 3
    with tiny_pair.caller(dtype=dtype) as fast, tiny_pair.caller(dtype=dtype, scoring="reference") as slow:
        assert fast._worker._llm.module.ways.way == "packed"
        found, expected = torch.cat(fast.score(contexts, candidates)), torch.cat(slow.score(contexts, candidates))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.3)  # two roundings of the same numbers


class LogScore(BaseModuleFunction):
    """A candidate's log-likelihood from what pairs show; the root is at index 0."""

    def forward(self, forward_outputs: Any, minibatch: Any, tokenized_contexts: Any, **kwargs: Any) -> torch.Tensor:
        name = "decoder_input_ids" if "decoder_input_ids" in minibatch else "input_ids"
        mask = minibatch[name.replace("input_ids", "attention_mask")]
        logprobs = forward_outputs["logits"].log_softmax(-1)[:, :-1]
        return (logprobs.gather(-1, minibatch[name][:, 1:, None])[..., 0] * mask[:, 1:]).sum(-1)


def test_functions_of_pairs_share_the_packed_forward(tiny_pair: Any) -> None:
    contexts = ["you see the red ball two steps ahead. " + text for text in ("a", "b", "turn left")]
    candidates = [["turn left", "drop", "turn right", ""], ["drop"], ["x", "turn left", "turn left"]]
    with tiny_pair.caller(functions={"mine": LogScore()}, minibatch_size=4) as caller:
        llm = caller._worker._llm
        found = []
        for key in ("mine", "__score"):
            outputs = llm([key], contexts=contexts, candidates=candidates, require_grad=True)
            torch.cat([output[key] for output in outputs]).sum().backward()
            found.append([p.grad.clone() for p in llm.parameters() if p.grad is not None])
            llm.zero_grad()
        assert len(found[0]) == len(found[1]) > 10
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))
        forwards = []
        llm.module.ways._packed.run, run = (
            lambda *a, **k: (forwards.append(1), run(*a, **k))[1],
            llm.module.ways._packed.run,
        )
        caller.custom_module_fns(["mine"], contexts, candidates)
        assert len(forwards) == 1


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_packed_scoring_takes_the_place_of_sdpa_alone(tiny_pair: Any, attention: str) -> None:
    with tiny_pair.caller(attention=attention) as caller:
        caller.score(["a b"], [["x", "y"]])
        model = caller._worker._llm.module._LLM_model
        assert caller._worker._llm.module.ways.way == ("packed" if attention == "sdpa" else "cached")
        assert model.config._attn_implementation == attention  # restored after every packed forward
