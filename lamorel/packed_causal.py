"""Packed scoring by decoder-only models (Llama, GPT-2, Qwen2, Mistral, ...).

A context and the nodes of its tree run in one sequence. A node's position is that of the last context token plus its
depth; it sees the whole context and its ancestors. The root is the last context token.

Tokens that all contexts begin with, the shared head, run once: their keys and values stand before those of every
context. Without gradient they may be kept until the weights change; with gradient they are part of the graph.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers.modeling_outputs import CausalLMOutputWithPast

from lamorel.forwards import View, accepts, base_model, unpadded
from lamorel.packed import Nodes, PackedForwards, Shown, gather
from lamorel.packing import Group, KeyValue, Layout, Mask, UnsupportedAttentionError, packed_attention
from lamorel.padding import pad
from lamorel.tokenization import TokenIds
from lamorel.trie import ROOT, Trie

Fingerprint = tuple[tuple[int, int], ...]  # of the weights: place and version of each

_SHORTEST_HEAD = 8  # tokens; a forward of its own does not pay for fewer


class SharedHead(NamedTuple):
    """Tokens that all contexts begin with."""

    ids: TokenIds = ()
    layers: tuple[KeyValue, ...] = ()  # keys and values; empty where the head runs along, in the graph


class PackedCausal(PackedForwards):
    """The packed forward of a decoder-only model."""

    def __init__(self, model: Any, *, pad_id: int, together: bool | None = None) -> None:
        super().__init__(model, pad_id=pad_id, together=together)
        self._accepts_logits_to_keep = accepts(model, "logits_to_keep")
        config = base_model(model).config.get_text_config()
        self._layers = config.num_hidden_layers
        self._looks_back = _looks_back(config)
        self._last_mlp = _last_mlp(model)
        self._kept: dict[bool, tuple[Fingerprint, SharedHead]] = {}  # by state of the adapters

    def shared_tokens(self, contexts: Sequence[TokenIds]) -> int:
        return len(common_head(contexts))

    def share(self, contexts: Sequence[TokenIds], *, adapters: bool = True, keep: bool = False) -> SharedHead:
        ids = common_head(contexts)
        if not ids or torch.is_grad_enabled():
            return SharedHead(ids)
        if not keep:
            return self._run_head(ids)
        # An in-place change of a weight raises its version; another tensor in its place lies elsewhere.
        weights = tuple((weight.data_ptr(), weight._version) for weight in self.model.parameters())
        of_weights, head = self._kept.get(adapters, ((), SharedHead()))
        if of_weights != weights or head.ids != ids:
            head = self._run_head(ids)
            self._kept[adapters] = (weights, head)
        return head

    def forget(self) -> None:
        self._kept = {}

    def run(
        self, contexts: Sequence[TokenIds], tries: Sequence[Trie], shared: Any = None, *, hidden_states: bool = False
    ) -> Nodes:
        head = shared or SharedHead()
        along = () if head.layers else head.ids  # the head's tokens, where they begin the row
        row = [*along]
        groups = [self._group([len(along)], [ROOT], head=0)] if along else []
        tails = [ids[len(head.ids) :] for ids in contexts]
        ends: list[int] = []
        for members in self.groups(len(contexts)):
            lengths = [len(tails[i]) for i in members]
            groups.append(self._group(lengths, [tries[i] for i in members], head=len(head.ids)))
            for i in members:
                row += [*tails[i], *tries[i].tokens]
                ends.append(len(row))
        nodes = [place for end, trie in zip(ends, tries, strict=True) for place in range(end - len(trie), end)]
        outputs = self._forward(row, Layout(groups, head.layers), nodes, hidden_states)
        places = torch.tensor(nodes, device=self.device)
        layers = outputs.hidden_states if hidden_states else ()
        return Nodes(outputs.logits[0], tuple(layer[0, places.to(layer.device)] for layer in layers))

    def view(self, nodes: Nodes, contexts: Sequence[TokenIds], rows: Sequence[Shown]) -> View:
        # Functions take id 0 for padding in candidates; the mask is there for those that want to be sure.
        batch = pad([(contexts[row.context][-1], *row.ids) for row in rows], fill=0, left=False, device=self.device)
        index = gather(rows, self.device)
        outputs = CausalLMOutputWithPast(
            logits=nodes.logits[index.to(nodes.logits.device)],
            hidden_states=tuple(layer[index.to(layer.device)] for layer in nodes.hidden_states),
        )
        minibatch = {"input_ids": batch.ids, "attention_mask": batch.mask}
        return View(outputs, minibatch, unpadded([contexts[row.context] for row in rows]))

    def _group(self, lengths: Sequence[int], tries: Sequence[Trie], *, head: int) -> Group:
        mask = tree_mask(lengths, tries, head, device=self.device, dtype=self.model.dtype)
        totals = [length + len(trie) - 1 for length, trie in zip(lengths, tries, strict=True)]
        return Group(totals, mask, head=head)

    def _run_head(self, ids: TokenIds) -> SharedHead:
        layout = Layout([self._group([len(ids)], [ROOT], head=0)], seen=[])
        self._forward(ids, layout, [len(ids) - 1], False)
        assert layout.seen is not None
        return SharedHead(ids, tuple(layout.seen))

    def _forward(self, row: Sequence[int], layout: Layout, nodes: Sequence[int], hidden_states: bool) -> Any:
        """The model's output over the row; logits (1, R, V) of the nodes only."""
        ids = torch.tensor([row], device=self.device)
        places = torch.tensor(nodes, device=self.device)
        options: dict[str, Any] = {"logits_to_keep": places} if self._accepts_logits_to_keep else {}
        with packed_attention(self.model, layout, layers=self._layers), _only_at(places, self._last_mlp):
            outputs = self.model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                position_ids=torch.cat([group.positions for group in layout.groups])[None],
                use_cache=False,
                output_hidden_states=hidden_states,
                **options,
            )
        if self._looks_back is not None and not layout.windowed:
            # Too few tokens were tried to see it: what leaves the window would be seen.
            raise UnsupportedAttentionError(f"its {self._looks_back} is in its attention mask alone")
        if not self._accepts_logits_to_keep:
            outputs.logits = outputs.logits[:, places]
        return outputs


def _looks_back(config: Any) -> str | None:
    """The key of the model's configuration by which tokens see only some of those before them, where there is one."""
    kinds = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
    layers = getattr(config, "layer_types", None)
    asked = [kinds[layer] for layer in layers if layer in kinds] if layers else list(kinds.values())
    if getattr(config, "use_sliding_window", True) is False:
        asked = [key for key in asked if key != "sliding_window"]
    return next((key for key in asked if getattr(config, key, None) is not None), None)


def _last_mlp(model: Any) -> torch.nn.Module | None:
    """The feed-forward part of the last layer, where it is known to work on every position by itself."""
    layers = next((m for m in base_model(model).modules() if isinstance(m, torch.nn.ModuleList)), None)
    if not layers or getattr(layers[-1], "_compiled_call_impl", None) is not None:
        return None  # a compiled layer would be compiled again for every new hook
    mlp = getattr(layers[-1], "mlp", None)
    known = any(hasattr(mlp, name) for name in ("up_proj", "gate_up_proj", "c_fc", "fc1", "dense_h_to_4h"))
    return mlp if known and not hasattr(mlp, "experts") else None


@contextmanager
def _only_at(places: torch.Tensor, mlp: torch.nn.Module | None) -> Iterator[None]:
    """While active, `mlp` works on these places of the row alone and gives 0 at the others.

    After the attention of the last layer no place looks at another, and only these are read.
    """
    length = 0

    def pick(_: torch.nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        nonlocal length
        length = args[0].shape[1]
        return (args[0][:, places.to(args[0].device)],)

    def put_back(_: torch.nn.Module, args: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        return output.new_zeros(1, length, output.shape[-1]).index_copy(1, places.to(output.device), output)

    with ExitStack() as hooks:
        if mlp is not None:
            hooks.enter_context(mlp.register_forward_pre_hook(pick))
            hooks.enter_context(mlp.register_forward_hook(put_back))
        yield


def common_head(contexts: Sequence[TokenIds]) -> TokenIds:
    """The tokens that all contexts begin with; none where they are too few to share, or the contexts one.

    Each context keeps its last token: it is the root.
    """
    if len(contexts) < 2:
        return ()
    first, last = min(contexts), max(contexts)  # what these two begin with, all between them do
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    shared = min(shared, min(map(len, contexts)) - 1)
    return first[:shared] if shared >= _SHORTEST_HEAD else ()


def tree_mask(
    lengths: Sequence[int], tries: Sequence[Trie], head: int, *, device: torch.device, dtype: torch.dtype
) -> Mask:
    """What the tokens of contexts and their nodes see: the head, the context up to them, and their ancestors.

    Args:
        lengths: (G,) tokens of each context that follow the head.
        tries: (G,).
        head: tokens of the shared head.
    """
    most = max(map(len, tries))
    ancestors = np.zeros((len(tries), most, most), dtype=bool)
    depths = np.zeros((len(tries), most), dtype=np.int64)
    for i, trie in enumerate(tries):
        ancestors[i, : len(trie), : len(trie)] = trie.ancestors()
        depths[i, : len(trie)] = trie.depths
    own = torch.tensor(lengths, device=device)[:, None]
    totals = [length + len(trie) - 1 for length, trie in zip(lengths, tries, strict=True)]
    steps = torch.arange(max(totals), device=device)
    node = (steps - own + 1).clamp(0, most - 1)  # of every place; the context up to its last token counts as the root
    at = torch.arange(len(tries), device=device)[:, None]
    related = torch.from_numpy(ancestors).to(device)[at[:, :, None], node[:, :, None], node[:, None, :]]
    sees = (steps <= steps[:, None]) & ((steps < own)[:, None, :] | related)
    bias = torch.zeros(len(tries), 1, len(steps), head + len(steps), device=device, dtype=dtype)
    bias[:, 0, :, head:].masked_fill_(~sees, float("-inf"))
    positions = head + torch.minimum(steps, own - 1) + torch.from_numpy(depths).to(device)[at, node]
    heads = torch.arange(head, device=device).expand(len(tries), -1)
    return Mask(bias, torch.cat([heads, positions], dim=1))
