"""Text to token ids: contexts and candidates are tokenised apart, without special tokens, and remembered."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lamorel.config import LLM_KEY

TokenIds = tuple[int, ...]

_REMEMBERED = 1 << 14  # strings; an update reads each prompt once per epoch, and candidates come back at every step


class TextEncoder:
    """Token ids of contexts and candidates.

    Args:
        tokenizer: a Hugging Face tokenizer.
        add_bos: put the beginning-of-sequence token, where the tokenizer has one, before each context.
        candidate_prefix: `space` puts a space before each candidate that is not empty, `auto` does so where the
            tokenizer does not already mark the start of a word, `none` never. With `auto` the tokens are those of
            context + " " + candidate: spaces that a context ends with are left out, as the candidate has the one.
    """

    def __init__(self, tokenizer: Any, *, add_bos: bool = False, candidate_prefix: str = "none") -> None:
        self.tokenizer = tokenizer
        self._bos: TokenIds = (tokenizer.bos_token_id,) if add_bos and tokenizer.bos_token_id is not None else ()
        with_space = candidate_prefix == "space" or (candidate_prefix == "auto" and not _has_dummy_prefix(tokenizer))
        self._prefix = " " if with_space else ""
        self._strips = candidate_prefix == "auto"
        self._known: dict[str, TokenIds] = {}
        # Padding is always masked, so any id of the vocabulary will do.
        special = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
        self.pad_id: int = next(token for token in special if token is not None)

    def contexts(self, texts: Sequence[str]) -> list[TokenIds]:
        """Token ids of each context, with the beginning-of-sequence token where asked for.

        Raises:
            ValueError: a context has no token, so there is no position from which to score.
        """
        stripped = [text.rstrip(" ") or text for text in texts] if self._strips else texts
        encoded = [self._bos + ids for ids in self._encode(stripped)]
        for i, ids in enumerate(encoded):
            if not ids:
                raise ValueError(
                    f"contexts[{i}] = {texts[i]!r} has no tokens, so no token can follow it; give a text, or set "
                    f"{LLM_KEY}.add_bos with a tokenizer that has a beginning-of-sequence token"
                )
        return encoded

    def candidates(self, texts: Sequence[Sequence[str]]) -> list[list[TokenIds]]:
        """Token ids of each candidate of each context; an empty candidate has none."""
        flat = [self._prefix + text if text else "" for group in texts for text in group]
        ids = iter(self._encode(flat))
        return [[next(ids) for _ in group] for group in texts]

    def lengths(self, texts: Sequence[str | None]) -> list[int]:
        """Tokens of each text, without what is put before it; 0 of None."""
        return [len(ids) for ids in self._encode([text or "" for text in texts])]

    def _encode(self, texts: Sequence[str]) -> list[TokenIds]:
        new = list(dict.fromkeys(text for text in texts if text not in self._known))
        if len(self._known) + len(new) > _REMEMBERED:
            self._known.clear()
            new = list(dict.fromkeys(texts))
        if new:
            ids = self.tokenizer(new, add_special_tokens=False, verbose=False)["input_ids"]
            self._known.update(zip(new, map(tuple, ids), strict=True))
        return [self._known[text] for text in texts]


def _has_dummy_prefix(tokenizer: Any) -> bool:
    """Whether the tokenizer itself marks the first word as the start of a word (SentencePiece ▁, byte-level Ġ)."""
    ids = tokenizer("a", add_special_tokens=False)["input_ids"]
    return bool(ids) and tokenizer.convert_ids_to_tokens(ids)[0].startswith(("▁", "Ġ"))


def read_inputs(
    contexts: Sequence[str], candidates: Sequence[Sequence[str]] | None
) -> tuple[list[str], list[list[str]] | None]:
    """Contexts and candidates as lists, whatever sequences or numpy arrays they come in.

    Args:
        contexts: C texts.
        candidates: per context its K_c >= 0 candidates; `[]` leaves every context without any. None stays None.

    Raises:
        TypeError, ValueError: they cannot be scored; the message names the index.
    """
    texts = _read_texts(contexts, "contexts")
    if candidates is None:
        return texts, None
    expected = f"expected one list of candidates per context: {len(texts)} contexts"
    groups = _as_list(candidates, expected) or [[] for _ in texts]
    if len(groups) != len(texts):
        raise ValueError(f"{expected}, got {candidates!r:.200}")
    return texts, [_read_texts(group, f"candidates[{i}]") for i, group in enumerate(groups)]


def _read_texts(texts: Any, name: str) -> list[str]:
    found = _as_list(texts, f"{name}: expected a list of str")
    for i, text in enumerate(found):
        if not isinstance(text, str):
            raise TypeError(f"{name}[{i}]: expected a str, got {text!r:.200} ({type(text).__name__})")
    return found


def _as_list(values: Any, expected: str) -> list[Any]:
    found = values.tolist() if isinstance(values, np.ndarray) else values
    if isinstance(found, str) or not isinstance(found, Sequence):
        raise TypeError(f"{expected}, got {values!r:.200}")
    return list(found)
