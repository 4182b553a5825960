"""Sequences laid end to end in one row, so that no layer works on padding; attention keeps them apart.

Linear layers, norms and feed-forward layers see (1, T, hidden), the tokens of all sequences. Attention is taken over
by `_attend`, which Hugging Face models call through their attention interface while `packed_attention` is active: it
splits queries, keys and values into the sequences, and lets each see its own tokens and the shared head. Any model
that leaves its attention to that interface can run so.

Letters: T tokens of the row, h tokens of the shared head, G sequences of a group, L tokens of the longest of them,
H attention heads, d width of one.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv

NAME = "lamorel_packed"

KeyValue = tuple[torch.Tensor, torch.Tensor]  # (1, H, tokens, d) each

# What models hand to their attention that changes nothing here. Anything else might change the result.
_HARMLESS = frozenset(
    {
        *("position_ids", "position_embeddings", "position_bias", "use_cache", "cache_position", "is_causal"),
        *("dropout", "return_dict", "output_attentions", "output_hidden_states", "output_router_logits"),
        "logits_to_keep",
    }
)


class UnsupportedAttentionError(RuntimeError):
    """The model asks more of its attention than packed sequences know."""


class Mask(NamedTuple):
    """What each token of a group sees."""

    bias: torch.Tensor  # (G or 1, H or 1, L, h + L), added to the attention scores; -inf where a token is not seen
    positions: torch.Tensor | None = None  # (G, h + L) of head and own tokens; for models with a sliding window

    def within(self, window: int | None) -> torch.Tensor:
        """The bias, for tokens that see only the last `window` positions, their own included."""
        if window is None or self.positions is None or int(self.positions.max()) < window:
            return self.bias
        own = self.positions[:, -self.bias.shape[2] :]
        too_far = own[:, None, :, None] - self.positions[:, None, None, :] >= window
        return self.bias.masked_fill(too_far, float("-inf"))


class Group:
    """Sequences, adjacent in the row, that one attention call handles.

    A sequence by itself is cut out of the row. Several are gathered into a rectangle: one call in place of many pays
    on a GPU, padding does not on a CPU.

    Args:
        lengths: tokens of each sequence.
        head: tokens of the shared head that the sequences see, 0 where they see none.
    """

    def __init__(self, lengths: Sequence[int], mask: Mask, *, head: int = 0) -> None:
        self.mask = mask
        self.head = head
        self.tokens = sum(lengths)
        self._windowed: dict[int | None, torch.Tensor] = {}
        self._rectangle: torch.Tensor | None = None  # (G, L) places among the group's tokens
        if len(lengths) > 1:
            sizes = torch.tensor(lengths)[:, None]
            steps = torch.arange(max(lengths))
            real = steps < sizes
            # Padding repeats the group's first token: its results are thrown away, and nobody sees it.
            places = torch.where(real, sizes.cumsum(0) - sizes + steps, 0)
            self._rectangle = places.to(mask.bias.device)
            self._real = real.flatten().nonzero()[:, 0].to(mask.bias.device)  # its cells that are no padding

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        head: KeyValue,
        *,
        scaling: float | None,
        window: int | None,
    ) -> torch.Tensor:
        """Attention outputs (1, tokens of the group, H, d).

        Args:
            query, key, value: (1, H, tokens of the group, d).
            head: keys and values of the shared head.
            scaling: of the attention scores; None for 1 / sqrt(d).
            window: positions that a token looks back on; None for all.
        """
        keys, values = (self._with_head(*pair) for pair in zip(head, (key, value), strict=True))
        bias = self._bias(window, query.device).to(query.dtype)
        outputs = scaled_dot_product_attention(
            self._pick(query), keys, values, attn_mask=bias, scale=scaling
        ).transpose(1, 2)
        if self._rectangle is None:
            return outputs
        return outputs.flatten(0, 1).index_select(0, self._real.to(outputs.device))[None]

    def _pick(self, x: torch.Tensor) -> torch.Tensor:
        """x (1, H, tokens, d) as (G, H, L, d)."""
        if self._rectangle is None:
            return x
        return x[0].transpose(0, 1)[self._rectangle.to(x.device)].transpose(1, 2)

    def _with_head(self, head: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        own = self._pick(x)
        return torch.cat([head.expand(own.shape[0], -1, -1, -1), own], dim=2) if self.head else own

    @property
    def positions(self) -> torch.Tensor:
        """Position ids (tokens of the group,), where the mask has them."""
        assert self.mask.positions is not None
        own = self.mask.positions[:, self.head :]
        return own[0] if self._rectangle is None else own.flatten()[self._real]

    def _bias(self, window: int | None, device: torch.device) -> torch.Tensor:
        if window not in self._windowed:
            self._windowed[window] = self.mask.within(window)
        return self._windowed[window].to(device)


@dataclass
class Layout:
    """Where the sequences of a row stand.

    Attributes:
        groups: in the order of the row, which they cover.
        head: per layer the keys and values of a shared head that is not in the row; empty where there is none, or
            where its tokens begin the row.
        seen: per layer the keys and values of the whole row, filled in by a forward; None: not wanted.
    """

    groups: list[Group]
    head: Sequence[KeyValue] = ()
    seen: list[KeyValue] | None = None
    layers: int = field(default=0, init=False)  # that have been through `attend`
    windowed: bool = field(default=False, init=False)  # some of them had a window

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, scaling: float | None, window: int | None
    ) -> torch.Tensor:
        """Outputs (1, T, H, d) of the next layer."""
        if self.seen is not None:
            self.seen.append((key, value))
        if self.head:
            before = self.head[self.layers]
            key, value = (torch.cat([old, new], dim=2) for old, new in zip(before, (key, value), strict=True))
        self.layers += 1
        self.windowed |= window is not None
        repeats, dtype = query.shape[1] // key.shape[1], query.dtype
        key, value = repeat_kv(key, repeats), repeat_kv(value, repeats)
        if query.requires_grad and dtype == torch.bfloat16 and query.device.type == "cpu":
            # torch's backward of attention takes 2 to 4 times longer in bf16 than in fp32 on up to 150 tokens
            query, key, value = query.float(), key.float(), value.float()
        # One split: the backward pass of a slice per group would fill, and add up, a row of zeros for each.
        sizes = [group.tokens for group in self.groups]
        in_front = key.shape[2] - query.shape[2]
        parts = (query.split(sizes, dim=2), *(x.split([in_front, *sizes], dim=2)[1:] for x in (key, value)))
        shared = max(group.head for group in self.groups)
        head = key[:, :, :shared], value[:, :, :shared]
        outputs = [
            group.attend(*part, head, scaling=scaling, window=window)
            for group, *part in zip(self.groups, *parts, strict=True)
        ]
        return torch.cat(outputs, dim=1).to(dtype)


_active: list[Layout] = []


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """An attention function of transformers' `AttentionInterface`, for the layout that is active."""
    unknown = [name for name, value in others.items() if value is not None and name not in _HARMLESS]
    if unknown or attention_mask is not None or not _active:
        raise UnsupportedAttentionError(f"{type(module).__name__} gives its attention {', '.join(unknown) or 'a mask'}")
    return _active[-1].attend(query, key, value, scaling=scaling, window=sliding_window), None


AttentionInterface.register(NAME, torch.compiler.disable(_attend))


@contextmanager
def packed_attention(model: torch.nn.Module, layout: Layout, *, layers: int) -> Iterator[None]:
    """While active, the attention of `model` follows `layout`, and transformers makes no masks for it.

    Raises:
        UnsupportedAttentionError: not all of its `layers` layers went through the layout.
    """
    configs = {id(m.config): m.config for m in model.modules() if isinstance(m, PreTrainedModel)}.values()
    before = [config._attn_implementation for config in configs]
    layout.layers = 0
    _active.append(layout)
    try:
        for config in configs:
            config._attn_implementation = NAME
        yield
    finally:
        _active.pop()
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation = implementation
    if layout.layers != layers:
        raise UnsupportedAttentionError(f"{layout.layers} of its {layers} layers leave their attention to transformers")
