"""What ours is compared with: the same work by plain Hugging Face, on the same weights.

(a) one unpadded (context, candidate) sequence per forward; (b) all pairs, padded, 16 per batch, log-softmax over all
positions; (c) the contexts alone through the encoder, or through the base model without its LM head: what any exact
method must do at least.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import transformers

PAIRS_PER_BATCH = 16
CONTEXTS_PER_BATCH = 8

Pair = tuple[list[int], list[int]]  # token ids of a context and of a candidate


class HuggingFace:
    """A model of plain Hugging Face, sdpa, eval mode."""

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype) -> None:
        config = transformers.AutoConfig.from_pretrained(folder)
        self.causal = not config.is_encoder_decoder
        auto = transformers.AutoModelForCausalLM if self.causal else transformers.AutoModelForSeq2SeqLM
        model: Any = auto.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa")
        self.model = model.to(device).eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.device = device
        self.start_id = 0 if self.causal else config.decoder_start_token_id

    def pairs(self, contexts: Sequence[str], candidates: Sequence[str]) -> list[Pair]:
        """Token ids of every context with every candidate."""
        options = self.ids(candidates)
        return [(ids, option) for ids in self.ids(contexts) for option in options]

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        return self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]

    @torch.no_grad()
    def one_at_a_time(self, pairs: Sequence[Pair]) -> torch.Tensor:
        """(a): scores (pairs,) fp32 on the CPU."""
        return torch.stack([self._batch_scores([pair])[0] for pair in pairs]).cpu()

    @torch.no_grad()
    def all_pairs(self, pairs: Sequence[Pair]) -> torch.Tensor:
        """(b): scores (pairs,) fp32 on the CPU."""
        return torch.cat([self._batch_scores(batch) for batch in _batches(pairs, PAIRS_PER_BATCH)]).cpu()

    def update_all_pairs(self, pairs: Sequence[Pair]) -> None:
        """(b) with gradients. Each batch is back-propagated by itself, with fixed weights in place of a PPO loss, as
        the graph of all of them would not fit: forward and backward cost the same."""
        for batch in _batches(pairs, PAIRS_PER_BATCH):
            self._batch_scores(batch).sum().backward()
        self.model.zero_grad(set_to_none=True)

    def encode_contexts(self, contexts: Sequence[list[int]], *, gradients: bool = False) -> None:
        """(c): encoder or base model over the contexts, sorted by length, padded batches of 8; the update's bound
        with `gradients`: back-propagates the sum of the outputs."""
        module = self.model.base_model if self.causal else self.model.get_encoder()
        with nullcontext() if gradients else torch.no_grad():
            for batch in _batches(sorted(contexts, key=len), CONTEXTS_PER_BATCH):
                ids, mask = self._pad(batch)
                options = {"use_cache": False} if self.causal else {}
                outputs = module(input_ids=ids, attention_mask=mask, **options).last_hidden_state
                if gradients:
                    outputs.sum().backward()
        self.model.zero_grad(set_to_none=True)

    def _batch_scores(self, pairs: Sequence[Pair]) -> torch.Tensor:
        """Scores (pairs,) fp32 of one padded batch. Right padding is exact: causal attention looks left."""
        lengths = torch.tensor([len(candidate) for _, candidate in pairs], device=self.device)
        targets, _ = self._pad([candidate for _, candidate in pairs])
        steps = torch.arange(targets.shape[1], device=self.device)
        if self.causal:
            ids, mask = self._pad([context + candidate for context, candidate in pairs])
            logprobs = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float().log_softmax(-1)
            first = torch.tensor([len(context) - 1 for context, _ in pairs], device=self.device)
            where = (first[:, None] + steps).clamp(max=ids.shape[1] - 1)  # beyond a candidate's end: masked below
            logprobs = logprobs.gather(1, where[:, :, None].expand(-1, -1, logprobs.shape[-1]))
        else:
            ids, mask = self._pad([context for context, _ in pairs])
            decoder, _ = self._pad([[self.start_id, *candidate] for _, candidate in pairs])
            outputs = self.model(input_ids=ids, attention_mask=mask, decoder_input_ids=decoder, use_cache=False)
            logprobs = outputs.logits.float().log_softmax(-1)[:, :-1]
        chosen = logprobs.gather(2, targets[:, :, None])[:, :, 0]
        return chosen.masked_fill(steps >= lengths[:, None], 0.0).sum(dim=1)

    def _pad(self, rows: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask, right-padded to the longest row."""
        width = max(len(row) for row in rows)
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=self.device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=self.device)
        return ids, mask


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
