"""Free generation. Log-probabilities come from the same forwards as scores, so that the two agree."""

from collections.abc import Sequence
from typing import Any

import torch

from lamorel.forwards import base_model
from lamorel.llm import LLMModule
from lamorel.loading import quiet
from lamorel.padding import pad
from lamorel.tokenization import TokenIds, check_inputs


@torch.no_grad()
def generate(
    llm: LLMModule, contexts: Sequence[str], *, return_logprobs: bool, options: dict[str, Any]
) -> list[list[dict[str, Any]]]:
    """Continues each context.

    Args:
        contexts: C texts.
        return_logprobs: `text_logprob` and `tokens_logprob` in place of `text_probability`, `tokens_probability`.
        options: of Hugging Face's `generate` (max_new_tokens, do_sample, num_beams, num_return_sequences, ...).

    Returns:
        Per context a list of dicts, best beam first: `text` (without special tokens), `tokens` (ids up to and with
        the end-of-sequence token), the probability of the text (float) and of its tokens (fp32, per token) under the
        model itself, before temperature and other warping; `beam_score` where beams were used.
    """
    check_inputs(contexts, None)
    context_ids = llm.encoder.contexts(contexts)
    sequences_each = options.get("num_return_sequences") or 1
    rows_each = max(options.get("num_beams") or 1, sequences_each)
    step = max(1, llm.minibatch_size // rows_each)
    results: list[list[dict[str, Any]]] = []
    for start in range(0, len(context_ids), step):
        chunk = context_ids[start : start + step]
        sequences, beam_scores = _generate_ids(llm, chunk, options)
        groups = [sequences[i : i + sequences_each] for i in range(0, len(sequences), sequences_each)]
        logprobs = iter(_logprobs(llm, chunk, groups))
        scores = iter(beam_scores)
        for group in groups:
            described = [_describe(llm, ids, next(logprobs), return_logprobs) for ids in group]
            if beam_scores:
                described = [{**entry, "beam_score": next(scores)} for entry in described]
            results.append(described)
    return results


def _generate_ids(
    llm: LLMModule, contexts: Sequence[TokenIds], options: dict[str, Any]
) -> tuple[list[TokenIds], list[float]]:
    """New tokens of every sequence, up to and with the end of sequence, and the beam scores if there are any."""
    model = llm._LLM_model
    is_encoder_decoder = base_model(model).config.is_encoder_decoder
    batch = pad(contexts, fill=llm.encoder.pad_id, left=not is_encoder_decoder, device=llm.forwards().device)
    # The beams' scores come with the scores of every step; without beams these are not worth their memory.
    own = {"return_dict_in_generate": True, "output_scores": (options.get("num_beams") or 1) > 1}
    options = {"pad_token_id": llm.encoder.pad_id} | options | own
    if "stop_strings" in options:
        options["tokenizer"] = llm.encoder.tokenizer
    with quiet():
        output = model.generate(input_ids=batch.ids, attention_mask=batch.mask, **options)
    skipped = 1 if is_encoder_decoder else batch.ids.shape[1]
    ends = options.get("eos_token_id", model.generation_config.eos_token_id)
    ends = set(ends) if isinstance(ends, list | tuple) else {ends}
    sequences = [_up_to_end(row, ends) for row in output.sequences[:, skipped:].tolist()]
    if "stop_strings" in options or "stopping_criteria" in options:
        # These end a sequence without an end token; what follows in a batch is padding.
        sequences = [_without_trailing(ids, options["pad_token_id"]) for ids in sequences]
    beam_scores = getattr(output, "sequences_scores", None)
    return sequences, [] if beam_scores is None else beam_scores.tolist()


def _up_to_end(tokens: list[int], ends: set[int]) -> TokenIds:
    for i, token in enumerate(tokens):
        if token in ends:
            return tuple(tokens[: i + 1])
    return tuple(tokens)


def _without_trailing(tokens: TokenIds, pad: int) -> TokenIds:
    length = len(tokens)
    while length and tokens[length - 1] == pad:
        length -= 1
    return tokens[:length]


def _logprobs(
    llm: LLMModule, contexts: Sequence[TokenIds], groups: Sequence[Sequence[TokenIds]]
) -> Sequence[torch.Tensor]:
    """Log-probability of every token, per sequence."""
    scores = llm.score_tokens(contexts, groups)
    return scores.logprob.cpu().split([len(ids) for group in groups for ids in group])


def _describe(llm: LLMModule, ids: TokenIds, logprobs: torch.Tensor, return_logprobs: bool) -> dict[str, Any]:
    entry = {"text": llm.encoder.tokenizer.decode(ids, skip_special_tokens=True), "tokens": list(ids)}
    total = logprobs.sum()
    if return_logprobs:
        return entry | {"text_logprob": total.item(), "tokens_logprob": logprobs}
    return entry | {"text_probability": total.exp().item(), "tokens_probability": logprobs.exp()}
