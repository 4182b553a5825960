"""Generated texts, and that their log-probabilities are those of `score`."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from lamorel import Caller

CONTEXTS = ["you see the red ball", "a", "turn left and right; the ball is ahead of you"]
END = 2  # the end-of-sequence token of the tiny models


def scored(caller: Any, context: str, tokens: list[int]) -> torch.Tensor:
    """Log-probability of every token, from the scoring path, on its own."""
    llm = caller._worker._llm.module
    with torch.no_grad():
        return llm.score_tokens(llm.encoder.contexts([context]), [[tuple(tokens)]]).logprob


def test_greedy_equals_plain_hugging_face_one_at_a_time(tiny: Any) -> None:
    model = tiny.plain_model()
    with tiny.caller(minibatch_size=2) as caller:
        results = caller.generate(CONTEXTS, max_new_tokens=8)
        encoder = caller._worker._llm.module.encoder
        for context, [result] in zip(CONTEXTS, results, strict=True):
            ids = torch.tensor(encoder.contexts([context]))
            new = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, pad_token_id=3)[0]
            new = new[1 if tiny.model_type == "seq2seq" else ids.shape[1] :].tolist()
            assert result["tokens"].tolist() == new
            assert result["text"] == encoder.tokenizer.decode(new, skip_special_tokens=True)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"do_sample": True, "num_return_sequences": 3, "temperature": 3.0, "top_k": 5},
        {"num_beams": 3, "num_return_sequences": 2},
    ],
)
def test_logprobs_equal_scores_of_the_same_tokens(tiny: Any, options: dict[str, Any]) -> None:
    with tiny.caller(minibatch_size=4) as caller:
        torch.manual_seed(0)
        results = caller.generate(CONTEXTS, return_logprobs=True, max_new_tokens=6, **options)
        torch.manual_seed(0)
        again = caller.generate(CONTEXTS, max_new_tokens=6, **options)
        for context, group, group_again in zip(CONTEXTS, results, again, strict=True):
            assert len(group) == options.get("num_return_sequences", 1)
            for entry, other in zip(group, group_again, strict=True):
                expected = scored(caller, context, entry["tokens"].tolist())
                torch.testing.assert_close(entry["tokens_logprob"], expected, rtol=0, atol=1e-4)
                assert entry["text_logprob"].item() == pytest.approx(expected.sum().item(), abs=1e-3)
                assert ("beam_score" in entry) == ("num_beams" in options)
                assert torch.equal(other["tokens"], entry["tokens"])  # the same random state, the same text
                expected_probability = math.exp(entry["text_logprob"].item())
                assert other["text_probability"].item() == pytest.approx(expected_probability, rel=1e-3)
                torch.testing.assert_close(other["tokens_probability"], entry["tokens_logprob"].exp())


SAMPLED = {"do_sample": True, "num_return_sequences": 3, "top_k": 5, "max_new_tokens": 4}
BEAMS = {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 4}


@pytest.mark.parametrize("options", [SAMPLED, BEAMS])
def test_a_generation_config_is_as_good_as_options(tiny_pair: Any, options: dict[str, Any]) -> None:
    with tiny_pair.caller(minibatch_size=4) as caller:
        results = []
        for given in (
            options,
            {"generation_config": GenerationConfig(**options)},
            # Options go before the config.
            {"generation_config": GenerationConfig(**options | {"num_return_sequences": 1}), **options},
        ):
            torch.manual_seed(0)
            results.append(caller.generate(CONTEXTS, **given))
        for group, *others in zip(*results, strict=True):
            assert len(group) == options["num_return_sequences"]
            for entry, *same in zip(group, *others, strict=True):
                assert ("beam_score" in entry) == ("num_beams" in options)
                for other in same:
                    assert torch.equal(other["tokens"], entry["tokens"])
                    assert other.get("beam_score") == entry.get("beam_score")


@pytest.mark.parametrize("options", [SAMPLED, BEAMS])
def test_the_generation_config_of_the_model(tiny_pair: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    folder = shutil.copytree(tiny_pair.folder, tmp_path / "model")
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | options))
    with tiny_pair.caller() as plain, Caller(tiny_pair.config(model_path=str(folder))) as caller:
        torch.manual_seed(0)
        expected = plain.generate(CONTEXTS, **options)
        torch.manual_seed(0)
        assert tokens(caller.generate(CONTEXTS)) == tokens(expected)
        torch.manual_seed(0)
        one = caller.generate(CONTEXTS, do_sample=False, num_beams=1, num_return_sequences=1)
        assert tokens(one) == tokens(plain.generate(CONTEXTS, max_new_tokens=4))


def tokens(results: list[list[dict[str, Any]]]) -> list[list[tuple[Any, Any]]]:
    return [[(entry["tokens"].tolist(), entry.get("beam_score")) for entry in group] for group in results]


def first_tokens(caller: Any, **options: Any) -> list[int]:
    """The ids that continue the first context of all."""
    return caller.generate(CONTEXTS, **options)[0][0]["tokens"].tolist()


def test_ends_and_stops_in_a_generation_config(tiny_pair: Any) -> None:
    with tiny_pair.caller() as caller:
        first = first_tokens(caller, max_new_tokens=6)
        ended = first[: first.index(first[1]) + 1]
        given = GenerationConfig(max_new_tokens=6, eos_token_id=[first[1], END])
        assert first_tokens(caller, generation_config=given) == ended
        # An option that is None clears what the config says: no end at all.
        assert first_tokens(caller, generation_config=given, eos_token_id=None) == first
        stop = caller._worker._llm.module.encoder.tokenizer.decode(first[:2])
        given = GenerationConfig(max_new_tokens=6, stop_strings=[stop])
        assert first_tokens(caller, generation_config=given) == first[:2]
        assert given.stop_strings == [stop]
        assert given.pad_token_id is None  # the user's own object is left as it was


def test_tokens_after_the_end_do_not_count(tiny: Any) -> None:
    with tiny.caller() as caller:
        # Ends at different lengths: a context's own first greedy token is made its end.
        first = first_tokens(caller, max_new_tokens=6)
        assert len(first) == 6
        results = caller.generate(CONTEXTS, return_logprobs=True, max_new_tokens=6, eos_token_id=[first[1], END])
        for context, [entry] in zip(CONTEXTS, results, strict=True):
            ids = entry["tokens"].tolist()
            assert all(token not in (first[1], END) for token in ids[:-1])
            assert len(entry["tokens_logprob"]) == len(ids)
            expected = scored(caller, context, ids).sum().item()
            assert entry["text_logprob"].item() == pytest.approx(expected, abs=1e-3)
        assert results[0][0]["tokens"].tolist() == first[: first.index(first[1]) + 1]


def test_text_after_a_stop_string_does_not_count(tiny_pair: Any) -> None:
    with tiny_pair.caller() as caller:
        whole = [group[0] for group in caller.generate(CONTEXTS, max_new_tokens=6)]
        stop = caller._worker._llm.module.encoder.tokenizer.decode(whole[0]["tokens"][:2])
        results = caller.generate(CONTEXTS, max_new_tokens=6, stop_strings=[stop])
        assert torch.equal(results[0][0]["tokens"], whole[0]["tokens"][:2])
        together = [group[0]["text_probability"].item() for group in results]
        alone = [
            caller.generate([context], max_new_tokens=6, stop_strings=[stop])[0][0]["text_probability"].item()
            for context in CONTEXTS
        ]
    assert together == pytest.approx(alone, rel=1e-3)
