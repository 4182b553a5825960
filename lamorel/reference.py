"""The slow path: one unpadded sequence per (context, candidate), no cache, log-softmax over every position.

Written without a line of the fast path, so that tests can hold one against the other (`llm_args.scoring: reference`).
"""

from collections.abc import Sequence
from typing import Any

import torch


def candidate_logits(model: Any, context: tuple[int, ...], candidate: tuple[int, ...]) -> torch.Tensor:
    """Logits (K, V) that predict each of the K candidate tokens, from one plain Hugging Face forward."""
    device = model.get_input_embeddings().weight.device
    if model.config.is_encoder_decoder:
        start = model.config.decoder_start_token_id
        outputs = model(
            input_ids=torch.tensor([context], device=device),
            decoder_input_ids=torch.tensor([[start, *candidate]], device=device),
            use_cache=False,
        )
        return outputs.logits[0, : len(candidate)]
    sequence = torch.tensor([[*context, *candidate]], device=device)
    logits = model(input_ids=sequence, use_cache=False).logits[0]
    return logits[len(context) - 1 : len(context) - 1 + len(candidate)]


def token_scores(
    model: Any, contexts: Sequence[tuple[int, ...]], candidates: Sequence[Sequence[tuple[int, ...]]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities and raw logits of all candidate tokens, both (N,) fp32, in order of appearance."""
    logprobs, logits = [], []
    for context, group in zip(contexts, candidates, strict=True):
        for candidate in group:
            raw = candidate_logits(model, context, candidate).float()
            tokens = torch.tensor(candidate, dtype=torch.int64, device=raw.device)[:, None]
            logprobs.append(raw.log_softmax(dim=-1).gather(1, tokens)[:, 0])
            logits.append(raw.gather(1, tokens)[:, 0])
    return torch.cat(logprobs), torch.cat(logits)
