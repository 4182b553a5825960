"""Forward passes of decoder-only models (Llama, GPT-2, Qwen2, ...)."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers.modeling_outputs import CausalLMOutputWithPast

from lamorel.forwards import Forwards, Root, Row, View, select_cache, unpadded
from lamorel.padding import Padded, concatenate, pad, positions
from lamorel.tokenization import TokenIds


class CausalForwards(Forwards):
    """Contexts are left-padded, so that all of them end at the same place; candidates follow, right-padded.

    Args:
        from_last_context_token: what pairs show to module functions: True from the last context token on
            (`pre_encode_inputs`), False the whole sequence.
    """

    def __init__(self, model: Any, *, pad_id: int, from_last_context_token: bool = True) -> None:
        super().__init__(model, pad_id=pad_id)
        self.from_last_context_token = from_last_context_token

    def positions_needed(self, context: int, candidate: int) -> int:
        return context + max(candidate - 1, 0)

    def root(self, contexts: Sequence[TokenIds], *, use_cache: bool, hidden_states: bool) -> Root:
        batch = pad(contexts, fill=self.pad_id, left=True, device=self.device)
        options: dict[str, Any] = {"logits_to_keep": 1} if self.accepts_logits_to_keep else {}
        outputs = self._forward(batch, use_cache=use_cache, output_hidden_states=hidden_states, **options)
        last = CausalLMOutputWithPast(
            logits=outputs.logits[:, -1:], hidden_states=_from_position(outputs.hidden_states, -1)
        )
        minibatch = {"input_ids": batch.ids[:, -1:], "attention_mask": batch.mask[:, -1:]}
        view = View(last, minibatch, unpadded(contexts))
        return Root(batch, outputs.logits[:, -1], view, outputs.past_key_values if use_cache else None)

    def continuation(self, root: Root, rows: Sequence[Row]) -> torch.Tensor:
        assert root.cache is not None
        tokens = pad([ids for _, ids in rows], fill=self.pad_id, left=False, device=self.device)
        of_context = torch.tensor([context for context, _ in rows], device=self.device)
        context_mask = root.contexts.mask[of_context]
        options: dict[str, Any] = {}
        if self.accepts_position_ids:
            steps = torch.arange(tokens.ids.shape[1], device=self.device)
            options["position_ids"] = context_mask.sum(dim=1, keepdim=True) + steps
        # Padding stands to the right of every token, where causal attention does not look: ones will do for it.
        return self.model(
            input_ids=tokens.ids,
            attention_mask=torch.cat([context_mask, torch.ones_like(tokens.mask)], dim=1),
            past_key_values=select_cache(root.cache, of_context),
            use_cache=True,
            **options,
        ).logits

    def pairs(self, contexts: Sequence[TokenIds], rows: Sequence[Row], *, hidden_states: bool = True) -> View:
        left = pad([contexts[context] for context, _ in rows], fill=self.pad_id, left=True, device=self.device)
        # Functions take id 0 for padding in candidates; the mask is there for those that want to be sure.
        right = pad([ids for _, ids in rows], fill=0, left=False, device=self.device)
        batch = concatenate(left, right)
        last = left.ids.shape[1] - 1
        shown_positions = batch.ids.shape[1] - last
        # The logits of a long context and a large vocabulary are most of a forward's memory.
        keeps = self.from_last_context_token and self.accepts_logits_to_keep
        options: dict[str, Any] = {"logits_to_keep": shown_positions} if keeps else {}
        outputs = self._forward(batch, use_cache=False, output_hidden_states=hidden_states, **options)
        if self.from_last_context_token:
            shown = CausalLMOutputWithPast(
                logits=outputs.logits[:, -shown_positions:], hidden_states=_from_position(outputs.hidden_states, last)
            )
            minibatch = {"input_ids": batch.ids[:, last:], "attention_mask": batch.mask[:, last:]}
            return View(shown, minibatch, unpadded([contexts[context] for context, _ in rows]))
        ids, mask = left.ids[:, :last].tolist(), left.mask[:, :last].tolist()
        tokenized = [{"input_ids": i, "attention_mask": m} for i, m in zip(ids, mask, strict=True)]
        return View(outputs, {"input_ids": batch.ids, "attention_mask": batch.mask}, tokenized, root=last)

    def right_padded(self, contexts: Sequence[TokenIds], width: int) -> View:
        # Padding that is read is no matter of taste: TWOSOME's code, which reads it, pads with id 0 whatever the model.
        batch = pad(contexts, fill=0, left=False, device=self.device)
        more = (0, width - batch.ids.shape[1])
        ids = torch.nn.functional.pad(batch.ids, more, value=0)
        mask = torch.nn.functional.pad(batch.mask, more, value=0)
        options: dict[str, Any] = {"logits_to_keep": 1} if self.accepts_logits_to_keep else {}
        # Positions are the model's own, which count on in the padding.
        outputs = self.model(input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=True, **options)
        last = CausalLMOutputWithPast(
            logits=outputs.logits[:, -1:], hidden_states=_from_position(outputs.hidden_states, -1)
        )
        return View(last, {"input_ids": ids[:, -1:], "attention_mask": mask[:, -1:]}, unpadded(contexts))

    def _forward(self, batch: Padded, **options: Any) -> Any:
        if self.accepts_position_ids and batch.has_padding:
            # Without them learned positions would count the padding (GPT-2's scores move by up to 1 nat). Without
            # padding the model's own are right, which need not begin at 0 (RoBERTa).
            options["position_ids"] = positions(batch.mask)
        return self.model(input_ids=batch.ids, attention_mask=batch.mask, **options)


def _from_position(hidden_states: tuple[torch.Tensor, ...] | None, start: int) -> tuple[torch.Tensor, ...] | None:
    return None if hidden_states is None else tuple(layer[:, start:] for layer in hidden_states)
