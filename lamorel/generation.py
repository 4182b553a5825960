"""Free generation. Log-probabilities come from the same forwards as scores, so that the two agree."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig

from lamorel.forwards import base_model
from lamorel.loading import quiet
from lamorel.padding import pad
from lamorel.tokenization import TokenIds, read_inputs

if TYPE_CHECKING:
    from lamorel.llm import LLMModule


@torch.no_grad()
def generate(
    llm: LLMModule, contexts: Sequence[str], *, return_logprobs: bool, options: dict[str, Any]
) -> list[list[dict[str, Any]]]:
    """Continues each context.

    Args:
        contexts: C texts.
        return_logprobs: `text_logprob` and `tokens_logprob` in place of `text_probability`, `tokens_probability`.
        options: of Hugging Face's `generate` (max_new_tokens, do_sample, num_beams, num_return_sequences, ...;
            generation_config). They go before the given generation_config, and that before the model's own.

    Returns:
        Per context a list of dicts, best beam first: `text` (without special tokens), `tokens` ((n,) int64 ids up to
        and with the end-of-sequence token), the probability of the text (() fp32) and of its tokens ((n,) fp32) under
        the model itself, before temperature and other warping; `beam_score` (float) where beams were used. Tensors
        are on the CPU.
    """
    contexts, _ = read_inputs(contexts, None)
    context_ids = llm.encoder.contexts(contexts)
    config, arguments = _resolve(llm, options)
    sequences_each = config.num_return_sequences or 1
    rows_each = max(config.num_beams or 1, sequences_each)
    longest = max(map(len, context_ids), default=0) + (config.max_new_tokens or 0)
    step = max(1, llm.minibatch_size // rows_each) if llm.ways.may_pad(longest) else 1
    results: list[list[dict[str, Any]]] = []
    for start in range(0, len(context_ids), step):
        chunk = context_ids[start : start + step]
        sequences, beam_scores = _generate_ids(llm, chunk, config, arguments)
        groups = [sequences[i : i + sequences_each] for i in range(0, len(sequences), sequences_each)]
        logprobs = iter(_logprobs(llm, chunk, groups))
        scores = iter(beam_scores)
        for group in groups:
            described = [_describe(llm, ids, next(logprobs), return_logprobs) for ids in group]
            if beam_scores:
                described = [{**entry, "beam_score": next(scores)} for entry in described]
            results.append(described)
    return results


def _resolve(llm: LLMModule, options: Mapping[str, Any]) -> tuple[GenerationConfig, dict[str, Any]]:
    """The generation config that holds, and what is left of the options for `generate` itself.

    A field of a config that is None is not set there. An option that is None clears what the configs say.
    """
    given = options.get("generation_config")
    config = GenerationConfig() if given is None else copy.deepcopy(given)
    # Any id will do for padding: an end of sequence is told by its own id.
    pads = (options.get("pad_token_id"), config.pad_token_id, llm.encoder.pad_id)
    for name, value in vars(llm._LLM_model.generation_config).items():
        if getattr(config, name, None) is None:
            setattr(config, name, value)
    options = {name: value for name, value in options.items() if name != "generation_config"}
    arguments = config.update(**options)
    config.pad_token_id = next(pad for pad in pads if pad is not None)
    config.return_dict_in_generate = True
    # The beams' scores come with the scores of every step; without beams these are not worth their memory.
    config.output_scores = (config.num_beams or 1) > 1
    if config.stop_strings:
        arguments["tokenizer"] = llm.encoder.tokenizer
    # Once more, as `generate` fills what is None from the model's own config.
    cleared = {name: None for name, value in options.items() if value is None and name != "pad_token_id"}
    return config, {**cleared, **arguments}


def _generate_ids(
    llm: LLMModule, contexts: Sequence[TokenIds], config: GenerationConfig, arguments: dict[str, Any]
) -> tuple[list[TokenIds], list[float]]:
    """New tokens of every sequence, up to and with the end of sequence, and the beam scores if there are any."""
    model = llm._LLM_model
    is_encoder_decoder = base_model(model).config.is_encoder_decoder
    batch = pad(contexts, fill=llm.encoder.pad_id, left=not is_encoder_decoder, device=llm.forwards.device)
    with quiet():
        output = model.generate(input_ids=batch.ids, attention_mask=batch.mask, generation_config=config, **arguments)
    skipped = 1 if is_encoder_decoder else batch.ids.shape[1]
    ends = config.eos_token_id
    ends = set(ends) if isinstance(ends, list | tuple) else {ends}
    sequences = [_up_to_end(row, ends) for row in output.sequences[:, skipped:].tolist()]
    if config.stop_strings or "stopping_criteria" in arguments:
        # These end a sequence without an end token; what follows in a batch is padding.
        sequences = [_without_trailing(ids, config.pad_token_id) for ids in sequences]
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
    tokens = torch.tensor(ids, dtype=torch.int64)
    entry = {"text": llm.encoder.tokenizer.decode(ids, skip_special_tokens=True), "tokens": tokens}
    total = logprobs.sum()
    if return_logprobs:
        return entry | {"text_logprob": total, "tokens_logprob": logprobs}
    return entry | {"text_probability": total.exp(), "tokens_probability": logprobs.exp()}
