"""Finds out, once per model, whether its cache can be continued the way scoring does it.

Most architectures can; some keep a recurrent state, or take no cache at all. They are recognised by trying: a few
tokens scored from the cache must come out as in a plain forward.
"""

import torch

from lamorel.forwards import Forwards, base_model
from lamorel.scoring import score_from_root, score_pairs
from lamorel.tokenization import TokenIds

# Nats. Generous: a cache that is used wrongly is wrong by far more, and in bf16 two right ways differ by rounding.
_TOLERANCE = {torch.float32: 1e-2}
_LOW_PRECISION_TOLERANCE = 1.0


@torch.no_grad()
def cache_defect(forwards: Forwards) -> str | None:
    """Why candidates cannot be scored from the cache, or None where they can."""
    model = base_model(forwards.model)
    vocabulary = model.config.get_text_config().vocab_size
    contexts: list[TokenIds] = [_tokens(3, vocabulary), _tokens(9, vocabulary)]  # unequal: padding takes part
    candidates: list[list[TokenIds]] = [[_tokens(n, vocabulary) for n in (1, 3, 4)] for _ in contexts]
    expected = score_pairs(forwards, contexts, candidates, rows_per_forward=8)
    try:
        root = forwards.root(contexts, use_cache=True, hidden_states=False)
        if root.cache is None:
            return "its forward returns no cache"
        found = score_from_root(forwards, root, candidates, rows_per_forward=8)
    except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        # Whatever it is, the plain way just worked: the model is told apart, and the reason is logged.
        return f"{type(error).__name__}: {error}"
    difference = (found.logprob - expected.logprob).abs().max().item()
    tolerance = _TOLERANCE.get(model.dtype, _LOW_PRECISION_TOLERANCE)
    return None if difference <= tolerance else f"scores differ from a plain forward by {difference:.3g} nats"


def _tokens(count: int, vocabulary: int) -> TokenIds:
    """Some tokens, spread over the vocabulary."""
    return tuple((7919 * (i + count)) % vocabulary for i in range(count))
