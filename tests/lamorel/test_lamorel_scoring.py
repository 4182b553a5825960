"""Scores against plain Hugging Face, one unpadded sequence at a time, whatever they are batched with."""

from typing import Any

import pytest
import torch
import transformers
from conftest import TinyModel

from lamorel.trie import plan

ACTIONS = ["turn left", "turn right", "go forward", "pick up", "drop", "toggle"]
CONTEXTS = [
    "goal: go to the red ball. you see a wall 2 steps ahead. action:",
    "a",
    "you see the ball, l'été, 日本 and ½ of a 🎈 ; the red ball is two steps ahead of you ahead of you",
    "goal: pick <pad> up",
    "you see nothing",
]
CANDIDATES = [
    ACTIONS,
    ["drop", "", "drop", "turn <pad> left", "x"],  # empty, repeated, a pad token inside, one token
    ["aller à gauche", "日本語 🎈", "turn left", "turn left turn left turn left turn left", "turn"],
    ["<pad>", "<pad><pad>", "left <pad>", "left <unk>", "<unk> left"],  # padding (id 3), and id 0 as a token
    ["pick up", "pick", "pick up the red ball", "pick up the"],  # prefixes of each other
]
NATS = 1e-4  # absolute tolerance of a score


def plain_scores(tiny: Any, contexts: list[str], candidates: list[list[str]]) -> list[torch.Tensor]:
    """Log-likelihoods by Hugging Face alone."""
    model = tiny.plain_model()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny.folder)

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    @torch.no_grad()
    def score(context: str, candidate: str) -> float:
        before, after = ids(context), ids(candidate)
        if tiny.model_type == "seq2seq":
            decoder = [model.config.decoder_start_token_id, *after]
            logits = model(torch.tensor([before]), decoder_input_ids=torch.tensor([decoder])).logits[0]
        else:
            logits = model(torch.tensor([before + after])).logits[0, len(before) - 1 :]
        logprobs = torch.log_softmax(logits.double(), dim=-1)
        return sum(logprobs[i, token].item() for i, token in enumerate(after))

    return [torch.tensor([score(c, k) for k in group]) for c, group in zip(contexts, candidates, strict=True)]


def assert_same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=NATS)


@pytest.mark.parametrize("minibatch_size", [1, 3, 7, 16, 1000])
def test_scores_equal_plain_hugging_face(tiny: Any, minibatch_size: int) -> None:
    expected = plain_scores(tiny, CONTEXTS, CANDIDATES)
    assert expected[0].std() > 2  # weights are large enough for the test to fail
    with tiny.caller(minibatch_size=minibatch_size) as caller:
        found = caller.score(CONTEXTS, CANDIDATES)
        assert_same(found, expected)
        assert all(group.dtype == torch.float32 and not group.requires_grad for group in found)
        assert caller._worker._llm.module.ways.way == ("cached" if tiny.family == "bart" else "packed")


def test_reference_path_agrees(tiny: Any) -> None:
    with tiny.caller() as fast, tiny.caller(scoring="reference") as slow:
        keys = ["__logits", "__tokens"]
        for one, other in zip(
            fast.score(CONTEXTS, CANDIDATES, keys), slow.score(CONTEXTS, CANDIDATES, keys), strict=True
        ):
            assert list(one) == list(other) == ["__score", *keys]
            torch.testing.assert_close(one, other, rtol=0, atol=10 * NATS)  # logits are sums of larger numbers


def test_fallback_for_a_model_without_a_usable_cache(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = plain_scores(tiny, CONTEXTS, CANDIDATES)
    with tiny.caller(scoring="cached") as caller:
        model = caller._worker._llm.module._LLM_model
        forward = model.forward

        def refuse_cache(*args: Any, past_key_values: Any = None, **kwargs: Any) -> Any:
            if past_key_values is not None:
                raise ValueError("this model keeps no keys and values")
            return forward(*args, **kwargs)

        monkeypatch.setattr(model, "forward", refuse_cache)
        assert_same(caller.score(CONTEXTS, CANDIDATES), expected)
        caller.score(CONTEXTS, CANDIDATES)
    said = [record.message for record in caplog.records if record.name == "lamorel.ways"]
    assert len(said) == 1  # once
    assert "keeps no keys and values" in said[0]


@pytest.mark.parametrize("scoring", ["fast", "cached"])
def test_no_forward_has_more_rows_than_the_minibatch_size(
    tiny_pair: Any, scoring: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    with tiny_pair.caller(minibatch_size=3, scoring=scoring) as caller:
        llm = caller._worker._llm.module
        assert llm.ways.way == ("packed" if scoring == "fast" else "cached")

        def record(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
            ids = kwargs.get("decoder_input_ids")
            seen.append(len(kwargs["input_ids"] if ids is None else ids))

        if scoring == "fast":  # a packed forward has one row of several contexts
            run = llm.ways._packed.run
            monkeypatch.setattr(llm.ways._packed, "run", lambda c, *a, **k: (seen.append(len(c)), run(c, *a, **k))[1])
        else:
            llm._LLM_model.register_forward_pre_hook(record, with_kwargs=True)
        caller.score(CONTEXTS, CANDIDATES)
    assert max(seen) == 3


def test_order_and_company_do_not_matter(tiny: Any) -> None:
    with tiny.caller() as caller:
        together = caller.score(CONTEXTS, CANDIDATES)
        reversed_order = caller.score(CONTEXTS[::-1], [group[::-1] for group in CANDIDATES[::-1]])
        assert_same([group.flip(0) for group in reversed_order[::-1]], together)
        for context, group, expected in zip(CONTEXTS, CANDIDATES, together, strict=True):
            alone = torch.cat([caller.score([context], [[candidate]])[0] for candidate in group])
            assert_same([alone], [expected])


def test_built_in_keys(t5: Any) -> None:
    with t5.caller() as caller:
        tokenizer = caller._worker._llm.module.encoder.tokenizer
        output = caller.custom_module_fns(["__tokens"], CONTEXTS, CANDIDATES)[1]
        assert output["__tokens"].tolist() == [
            len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in CANDIDATES[1]
        ]
        scores = caller.score(CONTEXTS, CANDIDATES)
        assert scores[1][1] == 0  # an empty candidate
        assert scores[1][0] == scores[1][2]  # the same candidate twice
        assert caller.score([], []) == []


def test_tree_has_a_node_for_every_prefix_that_predicts_something() -> None:
    # Tokens: turn 1, left 2, right 3, go 4, up 5. Nodes: the root, [1], [4], [4, 5].
    tree = plan(((1, 2), (1, 3), (4,), (4, 5), (4, 5, 2), ()))
    assert (tree.tokens, tree.parents, tree.depths) == ((1, 4, 5), (0, 0, 2), (0, 1, 1, 2))
    assert tree.reads == ((0, 1), (1, 2), (0, 1), (1, 3), (0, 4), (0, 4), (2, 5), (0, 4), (2, 5), (3, 2))
    assert tree.ancestors().tolist() == [
        [True, False, False, False],
        [True, True, False, False],
        [True, False, True, False],
        [True, False, True, True],
    ]
    assert tree.paths == ((0, 1), (0, 1), (0,), (0, 2), (0, 2, 3), (0,))
    whole = plan(((1, 2), (1, 3), ()), whole=True)  # nodes: the root, [1], [1, 2], [1, 3]
    assert (whole.tokens, whole.paths) == ((1, 2, 3), ((0, 1, 2), (0, 1, 3), (0,)))
    # As plain sequences: [1] serves both turns, [4, 5] serves [4] too.
    assert tree.rows() == ([(1,), (4, 5)], [(0, 0), (0, 1), (1, 1), (1, 2)])


@pytest.mark.parametrize(("prefix", "same_as"), [("space", " drop"), ("auto", " drop"), ("none", "drop")])
def test_candidate_prefix(t5: Any, prefix: str, same_as: str) -> None:
    # The byte-level tokenizer marks no first word, so that `auto` adds the space too.
    with t5.caller() as plain, t5.caller(candidate_prefix=prefix) as caller:
        assert_same(caller.score(["a"], [["drop", ""]]), plain.score(["a"], [[same_as, ""]]))


def test_add_bos(llama: Any) -> None:
    with llama.caller() as plain, llama.caller(add_bos=True) as caller:
        assert_same(caller.score(["a", ""], [["drop"]] * 2), plain.score(["<s>a", "<s>"], [["drop"]] * 2))


@pytest.mark.parametrize(
    ("contexts", "candidates", "message"),
    [
        (["a", "b"], [["x"]], "2 contexts"),
        (["a", ""], [["x"], ["x"]], r"contexts\[1\] = '' has no tokens.*set lamorel_args.llm_args.add_bos"),
        (["a", 1], [["x"], ["x"]], r"contexts\[1\]: expected a str"),
        ("a", [["x"]], "contexts: expected a list of str"),
        (["a"], ["x"], r"candidates\[0\]: expected a list of str"),
        (["a"], (["x"] for _ in "a"), "expected one list of candidates per context"),
        (["a"], [["x", None]], r"candidates\[0\]\[1\]: expected a str"),
    ],
)
def test_wrong_inputs_are_named(tiny_pair: Any, contexts: Any, candidates: Any, message: str) -> None:
    with tiny_pair.caller() as caller, pytest.raises((TypeError, ValueError), match=message):
        caller.score(contexts, candidates)


@pytest.mark.parametrize("minibatch_size", [0, -1, "8"])
def test_a_wrong_minibatch_size_is_named(t5: Any, minibatch_size: Any) -> None:
    with t5.caller() as caller, pytest.raises(ValueError, match="minibatch_size: expected a number of at least 1"):
        caller.score(["a"], [["x"]], minibatch_size=minibatch_size)


@pytest.mark.parametrize("family", ["gpt2", "bart"])
def test_few_positions(tmp_path: Any, tiny_models: Any, family: str) -> None:
    """Fewer than the tokens that the ways are tried with."""
    tiny = tiny_models[family]
    config = tiny.plain_model().config
    config.max_position_embeddings = 6
    model = type(tiny.plain_model())(config).eval()
    model.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(tiny.folder).save_pretrained(tmp_path)
    few = TinyModel(family, tiny.model_type, tmp_path)
    contexts, candidates = ["a", "go"], [["x y"], ["go", "a"]]
    with few.caller() as caller, few.caller(scoring="reference") as slow:
        assert_same(caller.score(contexts, candidates), slow.score(contexts, candidates))
        with pytest.raises(ValueError, match=r"contexts\[1\] \(\d+ tokens\).* positions, but .* has 6: shorten"):
            caller.score(["a", "turn left " * 9], [["x"]] * 2)


def test_dropout_is_never_active(tmp_path: Any, t5: Any) -> None:
    with t5.caller(pretrained=False) as caller:
        llm = caller._worker._llm
        assert llm.module._LLM_model.config.dropout_rate > 0
        llm.train()
        assert not any(module.training for module in llm.module.modules())
        assert_same(caller.score(CONTEXTS, CANDIDATES), caller.score(CONTEXTS, CANDIDATES))
