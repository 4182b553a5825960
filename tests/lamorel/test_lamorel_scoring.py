"""Scores against plain Hugging Face, one unpadded sequence at a time, whatever they are batched with."""

import itertools
from typing import Any

import pytest
import torch

ACTIONS = ["turn left", "turn right", "go forward", "pick up", "drop", "toggle"]
CONTEXTS = [
    "goal: go to the red ball. you see a wall 2 steps ahead. action:",
    "a",
    "you see the ball, l'été, 日本 and ½ of a 🎈 ; the red ball is two steps ahead of you ahead of you",
    "goal: pick up",
    "you see nothing",
]
CANDIDATES = [
    ACTIONS,
    ["drop", "", "drop", "turn <pad> left", "x"],  # empty, repeated, a pad token inside, one token
    ["aller à gauche", "日本語 🎈", "turn left", "turn left turn left turn left turn left", "turn"],
    ["<pad>", "<pad><pad>", "left <pad>"],
    ["pick up", "pick", "pick up the red ball", "pick up the"],  # prefixes of each other
]
TOLERANCE = 1e-4


def plain_scores(tiny: Any, contexts: list[str], candidates: list[list[str]]) -> list[torch.Tensor]:
    """Log-likelihoods by Hugging Face alone."""
    import transformers

    model = tiny.plain_model()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny.folder)

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    def score(context: str, candidate: str) -> float:
        before, after = ids(context), ids(candidate)
        with torch.no_grad():
            if tiny.model_type == "seq2seq":
                decoder = [model.config.decoder_start_token_id, *after]
                logits = model(torch.tensor([before]), decoder_input_ids=torch.tensor([decoder])).logits[0]
            else:
                logits = model(torch.tensor([before + after])).logits[0, len(before) - 1 :]
        logprobs = torch.log_softmax(logits.double(), dim=-1)
        return sum(logprobs[i, token].item() for i, token in enumerate(after))

    return [torch.tensor([score(c, k) for k in group]) for c, group in zip(contexts, candidates, strict=True)]


def assert_same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=TOLERANCE)


def test_scores_equal_plain_hugging_face(tiny: Any) -> None:
    expected = plain_scores(tiny, CONTEXTS, CANDIDATES)
    assert max(group.std().item() for group in expected) > 5  # nats: weights large enough for the test to fail
    with tiny.caller() as caller:
        for size in (1, 3, 7, 16, 1000):
            caller._worker._llm.module._args.__dict__["minibatch_size"] = size
            found = caller.score(CONTEXTS, CANDIDATES)
            assert_same(found, expected)
            assert all(group.dtype == torch.float32 and not group.requires_grad for group in found)
        assert caller._worker._llm.module._cache_works
