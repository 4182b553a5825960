"""Packed scoring by T5 models (T5, Flan-T5, mT5).

Hugging Face's T5 takes its position bias from consecutive positions, so it cannot decode a tree as it is. Here its
blocks run one after the other: the encoder's on packed contexts, the decoder's on (C, N, hidden), the N nodes of every
context's tree, whose bias comes from their depths. Modules are called, so that adapters and quantised layers work.

Letters: C contexts, N nodes of the largest tree, L tokens of the longest context, H heads, d width of one, m width of
the model.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import MT5ForConditionalGeneration, T5ForConditionalGeneration
from transformers.modeling_outputs import Seq2SeqLMOutput

from lamorel.forwards import View, base_model, unpadded
from lamorel.packed import Nodes, PackedForwards, Shown, gather
from lamorel.packing import Group, Layout, Mask, packed_attention
from lamorel.padding import pad
from lamorel.tokenization import TokenIds
from lamorel.trie import Trie


def is_t5(model: Any) -> bool:
    """Whether `PackedT5` can run the model: T5's blocks, all on one device."""
    base = base_model(model)
    spread = len(set(getattr(base, "hf_device_map", {}).values())) > 1
    return isinstance(base, T5ForConditionalGeneration | MT5ForConditionalGeneration) and not spread


class PackedT5(PackedForwards):
    """The packed forward of a T5 model."""

    def __init__(self, model: Any, *, pad_id: int, start_id: int, together: bool | None = None) -> None:
        super().__init__(model, pad_id=pad_id, together=together)
        self._start_id = start_id

    def run(
        self, contexts: Sequence[TokenIds], tries: Sequence[Trie], shared: Any = None, *, hidden_states: bool = False
    ) -> Nodes:
        base = base_model(self.model)
        batch = pad(contexts, fill=self.pad_id, left=False, device=self.device)
        encoded = self._encode(base.encoder, contexts)
        memory = encoded.new_zeros(*batch.ids.shape, encoded.shape[-1])
        memory[batch.mask.bool()] = encoded
        layers = list(self._decode(base.decoder, tries, memory, batch.mask))
        sizes = torch.tensor([len(trie) for trie in tries], device=self.device)
        real = torch.arange(layers[-1].shape[1], device=self.device) < sizes[:, None]
        outputs = layers[-1][real]
        if getattr(base.config, "scale_decoder_outputs", False):  # mT5 has no such switch
            outputs = outputs * base.model_dim**-0.5
        states = tuple(layer[real] for layer in layers) if hidden_states else ()
        return Nodes(base.lm_head(outputs), states, memory)

    def view(self, nodes: Nodes, contexts: Sequence[TokenIds], rows: Sequence[Shown]) -> View:
        assert nodes.memory is not None
        of_context = torch.tensor([row.context for row in rows], device=self.device)
        batch = pad(contexts, fill=self.pad_id, left=False, device=self.device)
        # Functions take id 0 for padding in candidates; the mask is there for those that want to be sure.
        decoder = pad([(self._start_id, *row.ids) for row in rows], fill=0, left=False, device=self.device)
        index = gather(rows, self.device)
        outputs = Seq2SeqLMOutput(
            logits=nodes.logits[index],
            decoder_hidden_states=tuple(layer[index] for layer in nodes.hidden_states),
            encoder_last_hidden_state=nodes.memory[of_context],
        )
        minibatch = {
            "input_ids": batch.ids[of_context],
            "attention_mask": batch.mask[of_context],
            "decoder_input_ids": decoder.ids,
            "decoder_attention_mask": decoder.mask,
        }
        return View(outputs, minibatch, unpadded([contexts[row.context] for row in rows]))

    def _encode(self, encoder: Any, contexts: Sequence[TokenIds]) -> torch.Tensor:
        """The encoder's output (tokens of all contexts, m)."""
        lengths = [len(ids) for ids in contexts]
        attention = encoder.block[0].layer[0].SelfAttention
        # The bias depends on distances only: that of a shorter context is the corner of that of the longest.
        bias = attention.compute_bias(max(lengths), max(lengths), device=self.device)
        groups = []
        for members in self.groups(len(contexts)):
            sizes = [lengths[i] for i in members]
            groups.append(Group(sizes, Mask(_bias_of(bias, sizes))))
        hidden = encoder.embed_tokens(torch.tensor([[i for ids in contexts for i in ids]], device=self.device))
        with packed_attention(encoder, Layout(groups), layers=len(encoder.block)):
            for block in encoder.block:
                hidden = block(hidden, position_bias=bias)[0]  # any bias will do: the layout has its own
        return encoder.final_layer_norm(hidden)[0]

    def _decode(
        self, decoder: Any, tries: Sequence[Trie], memory: torch.Tensor, memory_mask: torch.Tensor
    ) -> Iterator[torch.Tensor]:
        """Hidden states (C, N, m): the embeddings, those after every block but the last, and the final ones."""
        tokens = pad([(self._start_id, *trie.tokens) for trie in tries], fill=0, left=False, device=self.device)
        bias = _tree_bias(decoder.block[0].layer[0].SelfAttention, tries, self.device)
        seen = torch.zeros(memory.shape[0], 1, memory.shape[1], device=self.device, dtype=memory.dtype)
        seen.masked_fill_(memory_mask[:, None] == 0, float("-inf"))
        hidden = decoder.embed_tokens(tokens.ids)
        for block in decoder.block:
            yield hidden
            hidden = _clamped(block.layer[0](hidden, position_bias=bias)[0])
            hidden = _clamped(_cross_attention(block.layer[1], hidden, memory, seen))
            hidden = _clamped(block.layer[-1](hidden))
        yield decoder.final_layer_norm(hidden)


def _bias_of(bias: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """The bias (1 or G, H, n, n) of contexts of these sizes, n the largest; padding is not seen."""
    longest = max(sizes)
    bias = bias[:, :, :longest, :longest]
    if len(sizes) == 1:
        return bias.contiguous()
    padding = torch.arange(longest, device=bias.device) >= torch.tensor(sizes, device=bias.device)[:, None]
    return bias.masked_fill(padding[:, None, None, :], float("-inf"))


def _tree_bias(attention: Any, tries: Sequence[Trie], device: torch.device) -> torch.Tensor:
    """The decoder's bias (C or 1, H, N, N): by difference of depths, -inf but for a node and its ancestors."""
    distinct = list(tries[:1]) if all(trie is tries[0] for trie in tries) else list(tries)
    nodes = max(map(len, tries))
    sees = np.broadcast_to(np.eye(nodes, dtype=bool), (len(distinct), nodes, nodes)).copy()
    depths = np.zeros((len(distinct), nodes), dtype=np.int64)
    for i, trie in enumerate(distinct):
        sees[i, : len(trie), : len(trie)] = trie.ancestors()
        depths[i, : len(trie)] = trie.depths
    deepest = int(depths.max()) + 1
    table = attention.compute_bias(deepest, deepest, device=device)[0]  # (H, depth, depth)
    depth = torch.from_numpy(depths).to(device)
    bias = table[:, depth[:, :, None], depth[:, None, :]].transpose(0, 1)
    return bias.masked_fill(~torch.from_numpy(sees).to(device)[:, None], float("-inf"))


def _cross_attention(layer: Any, hidden: torch.Tensor, memory: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """T5's cross-attention sublayer.

    A tree has few nodes. Keys and values of all L encoder positions cost 4 L m H d operations per context. Moving the
    projections to the side of the nodes, q (W_k e) = (q W_k) e and p (W_v e) = (p e) W_v, costs 4 L m H N: the same
    numbers for N / d of the work.

    Args:
        layer: T5LayerCrossAttention.
        hidden: (C, N, m).
        memory: (C, L, m), the encoder's output.
        seen: (C, 1, L), 0, or -inf on padding.
    """
    attention = layer.EncDecAttention
    contexts, nodes, _ = hidden.shape
    heads, width = attention.n_heads, attention.key_value_proj_dim
    query = attention.q(layer.layer_norm(hidden)).view(contexts, nodes, heads, width)
    key, value = _without_disabled(attention.k), _without_disabled(attention.v)
    if nodes < width and _is_plain(key) and _is_plain(value) and memory.dtype != torch.float16:
        to_key, to_value = (linear.weight.view(heads, width, -1) for linear in (key, value))
        query = torch.einsum("cnhd,hdm->cnhm", query, to_key).reshape(contexts, nodes * heads, -1)
        scores = torch.baddbmm(seen, query, memory.transpose(1, 2), alpha=attention.scaling)
        looked_at = torch.bmm(scores.softmax(dim=-1, dtype=torch.float32).to(memory.dtype), memory)
        output = torch.einsum("cnhm,hdm->cnhd", looked_at.view(contexts, nodes, heads, -1), to_value)
    else:
        keys, values = (m(memory).view(contexts, -1, heads, width).transpose(1, 2) for m in (key, value))
        output = scaled_dot_product_attention(
            query.transpose(1, 2), keys, values, attn_mask=seen[:, None], scale=attention.scaling
        ).transpose(1, 2)
    return hidden + attention.o(output.reshape(contexts, nodes, -1))


def _without_disabled(module: Any) -> Any:
    """The layer inside one of peft whose adapters are disabled: the base model's bits, not just its numbers."""
    return module.get_base_layer() if getattr(module, "disable_adapters", False) else module


def _is_plain(module: torch.nn.Module) -> bool:
    """A linear layer that its weight tells all about: no adapter, no quantised weight, no offloading hook."""
    return type(module) is torch.nn.Linear and module.bias is None and not hasattr(module, "_hf_hook")


def _clamped(hidden: torch.Tensor) -> torch.Tensor:
    """As transformers' T5 does to survive overflow in half precision."""
    if hidden.dtype != torch.float16:
        return hidden
    limit = torch.finfo(hidden.dtype).max - torch.isinf(hidden).any() * 1000
    return hidden.clamp(min=-limit, max=limit)
