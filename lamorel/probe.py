"""Finds out, once per model, which of the ways to score work for it.

Most architectures can be packed, or continue a cache; some keep a recurrent state, take positions from the place in
the row, or take no cache at all. They are recognised by trying: a few tokens must come out as in plain forwards.
"""

from collections.abc import Callable, Sequence

import torch

from lamorel.forwards import Forwards, base_model
from lamorel.scoring import nodes_from_pairs, read_scores
from lamorel.tokenization import TokenIds
from lamorel.trie import Trie, plan_all

# Nats. Generous: a wrong way is wrong by far more, and in bf16 two right ways differ by rounding.
_TOLERANCE = {torch.float32: 1e-3}
_LOW_PRECISION_TOLERANCE = 1.0

DecodeNodes = Callable[[Sequence[TokenIds], Sequence[Trie]], torch.Tensor]


@torch.no_grad()
def defect(forwards: Forwards, decode: DecodeNodes) -> str | None:
    """Why `decode` does not give this model's node logits, or None where it does."""
    model = base_model(forwards.model)
    vocabulary = model.config.get_text_config().vocab_size
    head = _tokens(10, vocabulary)  # long enough to be shared
    contexts = [head + _tokens(n, vocabulary) for n in (2, 9)]  # unequal: padding takes part
    candidates: list[list[TokenIds]] = [[_tokens(n, vocabulary) for n in (1, 3, 4)] for _ in contexts]
    candidates[1].append(candidates[1][2][:2] + candidates[1][1])  # a tree that branches below its root
    tries = plan_all(candidates)
    try:
        expected = read_scores(nodes_from_pairs(forwards, contexts, tries, rows_per_forward=8), tries)
        found = read_scores(decode(contexts, tries), tries)
    except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        # Whatever it is, the model is told apart, and the reason is logged. Where even plain forwards fail, as with
        # fewer positions than these tokens need, scoring by them will say so if it fails as well.
        return f"{type(error).__name__}: {error}"
    difference = (found.logprob - expected.logprob).abs().max().item()
    tolerance = _TOLERANCE.get(model.dtype, _LOW_PRECISION_TOLERANCE)
    # Written so that a difference which is no number counts as one.
    return None if difference <= tolerance else f"scores differ from a plain forward by {difference:.3g} nats"


def _tokens(count: int, vocabulary: int) -> TokenIds:
    """Some tokens, spread over the vocabulary."""
    return tuple((7919 * (i + count)) % vocabulary for i in range(count))
