"""Forward passes of encoder-decoder models (T5, BART, ...)."""

from collections.abc import Sequence

import torch
from transformers.modeling_outputs import BaseModelOutput

from lamorel.forwards import Forwards, Root, Row, View, base_model, select_cache, unpadded
from lamorel.padding import pad
from lamorel.tokenization import TokenIds


class Seq2SeqForwards(Forwards):
    """Contexts go through the encoder, right-padded; candidates follow the decoder's start token."""

    @property
    def start_id(self) -> int:
        """The token a decoder begins with."""
        model = base_model(self.model)
        for config in (model.config, model.generation_config):
            for name in ("decoder_start_token_id", "bos_token_id"):
                token = getattr(config, name, None)
                if token is not None:
                    return token
        raise ValueError(f"{type(model).__name__}: its config names no decoder_start_token_id to begin decoding with")

    def positions_needed(self, context: int, candidate: int) -> int:
        return max(context, candidate)

    def root(self, contexts: Sequence[TokenIds], *, use_cache: bool, hidden_states: bool) -> Root:
        batch = pad(contexts, fill=self.pad_id, left=False, device=self.device)
        start = torch.full((len(contexts), 1), self.start_id, device=self.device)
        outputs = self.model(
            input_ids=batch.ids,
            attention_mask=batch.mask,
            decoder_input_ids=start,
            use_cache=use_cache,
            output_hidden_states=hidden_states,
        )
        minibatch = {
            "input_ids": batch.ids,
            "attention_mask": batch.mask,
            "decoder_input_ids": start,
            "decoder_attention_mask": torch.ones_like(start),
        }
        view = View(outputs, minibatch, unpadded(contexts))
        encoded = outputs.encoder_last_hidden_state
        return Root(batch, outputs.logits[:, 0], view, outputs.past_key_values if use_cache else None, encoded)

    def continuation(self, root: Root, rows: Sequence[Row]) -> torch.Tensor:
        assert root.cache is not None
        assert root.encoded is not None
        tokens = pad([ids for _, ids in rows], fill=self.pad_id, left=False, device=self.device)
        of_context = torch.tensor([context for context, _ in rows], device=self.device)
        # Padding stands to the right of every token, where causal attention does not look: it needs no mask.
        # The encoder's output is given for its shape: cross-attention takes its keys and values from the cache.
        return self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=root.encoded[of_context]),
            attention_mask=root.contexts.mask[of_context],
            decoder_input_ids=tokens.ids,
            past_key_values=select_cache(root.cache, of_context),
            use_cache=True,
        ).logits

    def pairs(self, contexts: Sequence[TokenIds], rows: Sequence[Row], *, hidden_states: bool = True) -> View:
        used = {context: i for i, context in enumerate(dict.fromkeys(context for context, _ in rows))}
        batch = pad([contexts[c] for c in used], fill=self.pad_id, left=False, device=self.device)
        of_context = torch.tensor([used[context] for context, _ in rows], device=self.device)
        # Functions take id 0 for padding in candidates; the mask is there for those that want to be sure.
        decoder = pad([(self.start_id, *ids) for _, ids in rows], fill=0, left=False, device=self.device)
        encoded = self.model.get_encoder()(input_ids=batch.ids, attention_mask=batch.mask)
        # An encoder spread over GPUs ends on its last one.
        encoded.last_hidden_state = encoded.last_hidden_state.to(self.device)[of_context]
        minibatch = {
            "input_ids": batch.ids[of_context],
            "attention_mask": batch.mask[of_context],
            "decoder_input_ids": decoder.ids,
            "decoder_attention_mask": decoder.mask,
        }
        outputs = self.model(
            encoder_outputs=encoded,
            attention_mask=minibatch["attention_mask"],
            decoder_input_ids=decoder.ids,
            decoder_attention_mask=decoder.mask,
            use_cache=False,
            output_hidden_states=hidden_states,
        )
        return View(outputs, minibatch, unpadded([contexts[context] for context, _ in rows]))
