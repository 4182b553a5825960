"""Models that padding, company or earlier calls disturb: each is scored as one unpadded sequence at a time is."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import make_tokenizer
from model_zoo import VOCABULARY, largest_difference, make_config, make_model, randomise, score, tokens

from lamorel import BaseModuleFunction, Caller, reference
from lamorel.config import LLMArgs
from lamorel.forwards import base_model
from lamorel.ways import Ways

NATS = 1e-4  # as lamorel/README.md promises

DYNAMIC: dict[str, Any] = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
LONGROPE: dict[str, Any] = {
    **{"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 48},
    **{"short_factor": [1.0] * 4, "long_factor": [2.0, 4.0, 8.0, 16.0]},
}
SIZE: dict[str, Any] = {
    **{"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1},
}
OF_LENGTH = {
    "llama dynamic": transformers.LlamaConfig(**SIZE, max_position_embeddings=48, rope_parameters=DYNAMIC),
    "phi3 longrope": transformers.Phi3Config(
        **SIZE, max_position_embeddings=256, original_max_position_embeddings=48, rope_parameters=LONGROPE
    ),
    "gemma3 dynamic in full attention": transformers.Gemma3TextConfig(
        **SIZE,
        head_dim=8,
        max_position_embeddings=48,
        layer_types=["sliding_attention", "full_attention"],
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": DYNAMIC,
        },
    ),
    "opt-like without": transformers.LlamaConfig(**SIZE, max_position_embeddings=256),
}


def random_model(config: transformers.PretrainedConfig) -> Any:
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        randomise(model)
    return model


@pytest.mark.parametrize("scoring", ["fast", "cached", "pairs", "reference"])
@pytest.mark.parametrize("name", OF_LENGTH)
def test_frequencies_that_depend_on_the_length(name: str, scoring: str, caplog: pytest.LogCaptureFixture) -> None:
    """Contexts of 70 and 55 tokens are past the threshold of 48, those of 5 and 21 are not."""
    model = random_model(OF_LENGTH[name])
    ways = Ways(model, LLMArgs(scoring=scoring), pad_id=0)
    assert largest_difference(model, ways) < NATS
    assert ways.way == ("packed" if scoring == "fast" else scoring)
    warned = [r.getMessage() for r in caplog.records if r.levelname == "WARNING" and r.name == "lamorel.ways"]
    assert len(warned) == (name != "opt-like without" and scoring != "reference")
    assert all("past 48 tokens" in message for message in warned)


def test_a_context_counts_as_long_with_its_candidates() -> None:
    """47 tokens and a candidate of two are past the threshold of 48, with a candidate of one they are not."""
    model = random_model(OF_LENGTH["phi3 longrope"])
    ways = Ways(model, LLMArgs(), pad_id=0)
    contexts, candidates = [tokens(47, 1), tokens(46, 2)], [[tokens(1, 5), tokens(2, 6)], [tokens(1, 5), tokens(2, 6)]]
    with torch.no_grad():
        expected = reference.token_scores(model, contexts, candidates)[0]
        found = torch.cat(score(ways, contexts, candidates))
        short = reference.token_scores(model, contexts[:1], [[tokens(2, 6)[:1]]])[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=NATS)
    assert ways.chunks(contexts, candidates, tokens=None, rows=16) == [[0], [1]]
    long = expected[1]  # the same token of the same context, before another one
    assert short.shape == (1,)
    assert (short[0] - long).abs() > 1e-3  # the threshold is seen


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a RecurrentGemma, whose recurrent layers read padding."""
    folder = tmp_path_factory.mktemp("recurrent")
    tokenizer = make_tokenizer()
    config = transformers.RecurrentGemmaConfig(
        **{**SIZE, "vocab_size": len(tokenizer), "num_hidden_layers": 3}, attention_window_size=16, lru_width=32
    )
    model = random_model(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


TEXTS = ["the red ball is two steps ahead of you", "turn", "go forward, then turn left", "pick up"]
ACTIONS = [["turn left", "toggle", "go forward"], ["drop"], ["turn left", "turn right"], ["toggle", ""]]


class LastHiddenState(BaseModuleFunction):
    """Of every candidate's last token, or of the context's."""

    def __init__(self, context_only: bool) -> None:
        super().__init__()
        self.context_only = context_only

    def initialize(self) -> None:
        pass

    def forward(self, forward_outputs: Any, minibatch: Any, tokenized_contexts: Any, **kwargs: Any) -> torch.Tensor:
        last = minibatch["attention_mask"].sum(dim=1) - 1
        return forward_outputs["hidden_states"][-1][torch.arange(len(last)), last]


def test_functions_and_texts_of_a_model_that_reads_padding(disturbed: str) -> None:
    functions = {"pair": LastHiddenState(False), "context": LastHiddenState(True)}
    config = {"llm_args": {"model_type": "causal", "model_path": disturbed}}
    with Caller(config, custom_module_functions=functions) as caller:
        keys = ["pair", "context"]
        together = caller.score(TEXTS, ACTIONS, keys)
        texts = caller.generate(TEXTS, max_new_tokens=4, do_sample=False)
        for i, (text, group) in enumerate(zip(TEXTS, ACTIONS, strict=True)):
            alone = caller.score([text], [group], keys)[0]
            torch.testing.assert_close(together[i], alone, rtol=0, atol=NATS)
            assert caller.generate([text], max_new_tokens=4, do_sample=False)[0][0]["text"] == texts[i][0]["text"]
        model = base_model(caller._worker._llm.module._LLM_model)
        tokenizer = caller._worker._llm.module.encoder.tokenizer
        ids = tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            plain = model(torch.tensor([ids]), use_cache=False, output_hidden_states=True).hidden_states[-1][0, -1]
        torch.testing.assert_close(together[0]["context"][0], plain, rtol=0, atol=NATS)


def test_gradients_of_a_model_that_reads_padding(disturbed: str) -> None:
    gradients = []
    for scoring in ("fast", "reference"):
        with Caller({"llm_args": {"model_type": "causal", "model_path": disturbed, "scoring": scoring}}) as caller:
            module = caller._worker._llm.module
            outputs = module(["__score"], TEXTS, ACTIONS, require_grad=True)
            sum(output["__score"].sum() for output in outputs).backward()
            gradients.append({name: p.grad for name, p in module.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, expected in gradients[1].items():
        assert (gradients[0][name] - expected).abs().max() <= 1e-4 * expected.abs().max().clamp(min=1.0), name


LOW_PRECISION = {"llama": "packed", "recurrent_gemma": "equal", "prophetnet": "equal"}


@pytest.mark.parametrize("family", LOW_PRECISION)
def test_rounding_does_not_hide_a_wrong_way_in_low_precision(family: str) -> None:
    """Embeddings so small that a wrong way differs by less than bf16 rounds."""
    model = make_model("seq2seq" if family == "prophetnet" else "causal", family)
    model.get_output_embeddings().weight.data *= 0.02
    ways = Ways(model.to(torch.bfloat16), LLMArgs(), pad_id=0)
    assert ways.way == LOW_PRECISION[family]


def test_untrained_weights_do_not_hide_a_wrong_way() -> None:
    """With them a wrong way differs by 1e-5 nats on the few tokens that are tried, and by 5e-4 on longer contexts."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(make_config("causal", "hy_v4")).eval()
    ways = Ways(model, LLMArgs(), pad_id=0)
    assert ways.way == "equal"
    assert largest_difference(model, ways) < NATS


@pytest.mark.parametrize("length", [{"max_new_tokens": 8}, {"max_length": 60}, {}])
def test_generation_past_fixed_frequencies(tmp_path: Path, length: dict[str, int]) -> None:
    """Texts that grow past the threshold of 48 tokens are those that each context has alone."""
    tokenizer = make_tokenizer()
    config = transformers.Qwen2Config(
        **{**SIZE, "vocab_size": len(tokenizer)},
        num_key_value_heads=2,
        max_position_embeddings=48,
        rope_parameters=DYNAMIC,
    )
    model = random_model(config)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    texts = ["x" * 30, "q" * 45, "z" * 8]
    with Caller({"llm_args": {"model_type": "causal", "model_path": str(tmp_path)}}) as caller:
        together = [[one["text"]] for [one] in caller.generate(texts, do_sample=False, **length)]
        alone = [[one["text"] for [one] in caller.generate([text], do_sample=False, **length)] for text in texts]
    assert together == alone
