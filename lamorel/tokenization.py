"""Text to token ids: contexts and candidates are tokenised apart, without special tokens, and remembered."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from lamorel.config import LLM_KEY, LamorelConfigError
from lamorel.vocabulary import largest_ids

logger = logging.getLogger(__name__)

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
        self._rows: int | None = None
        self._warned = False
        # Padding is always masked, so any id of the vocabulary will do.
        special = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
        self.pad_id: int = next(token for token in special if token is not None)

    def fit_to(self, rows: int) -> None:
        """Allow no token beyond the rows of a model's embeddings. On a GPU such a token would end the process.

        Args:
            rows: what `vocabulary.rows` gives; a model may have more than there are tokens.

        Raises:
            LamorelConfigError: there are such tokens. Special ones alone are logged, and refused in a text.
        """
        self._rows = rows
        self._known.clear()
        of_texts, of_all = largest_ids(self.tokenizer)
        self._check_row(of_texts)
        if of_all >= rows:
            logger.warning("%s. Texts with its last special tokens are refused", self._beyond(of_all))

    def contexts(self, texts: Sequence[str]) -> list[TokenIds]:
        """Token ids of each context, with the beginning-of-sequence token where asked for.

        Raises:
            ValueError: a context has no token, so there is no position from which to score.
            LamorelConfigError: the tokenizer has no token for a text that is not blank.
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
        """Token ids of each candidate of each context; an empty candidate has none.

        Raises:
            LamorelConfigError: the tokenizer has no token for a candidate that is not blank.
        """
        flat = [self._prefix + text if text else "" for group in texts for text in group]
        ids = iter(self._encode(flat))
        encoded = [[next(ids) for _ in group] for group in texts]
        if not self._warned:
            self._warn_of_equal(texts, encoded)
        return encoded

    def _warn_of_equal(self, texts: Sequence[Sequence[str]], encoded: list[list[TokenIds]]) -> None:
        """Logs, once, two candidates of a context whose tokens are the same, as those of unknown words are."""
        for group, tokens in zip(texts, encoded, strict=True):
            if len(set(tokens)) == len(set(group)):
                continue
            texts_of: dict[TokenIds, str] = {}
            for text, ids in zip(group, tokens, strict=True):
                other = texts_of.setdefault(ids, text)
                if other != text:
                    logger.warning(
                        "%s gives the candidates %r and %r the same tokens (%s): their scores are equal",
                        type(self.tokenizer).__name__, other, text,
                        " ".join(self.tokenizer.convert_ids_to_tokens(ids)) or "none",
                    )  # fmt: skip
                    self._warned = True
                    return

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
            for text, tokens in zip(new, ids, strict=True):
                if not tokens and text.strip():
                    raise LamorelConfigError(
                        f"{self._source}, loaded as {type(self.tokenizer).__name__}, has no token for {text!r}, which "
                        f"would score 0 whatever the model: transformers chooses the class by the model's "
                        f"architecture, save a tokenizer of this class beside the model"
                    )
                self._check_row(max(tokens, default=0))
                self._known[text] = tuple(tokens)
        return [self._known[text] for text in texts]

    def _check_row(self, token: int) -> None:
        if self._rows is not None and token >= self._rows:
            raise LamorelConfigError(f"{self._beyond(token)}, or save a tokenizer without the tokens that were added")

    def _beyond(self, token: int) -> str:
        return (
            f"{self._source} has ids up to {token} ({self.tokenizer.convert_ids_to_tokens(token)!r}), but the model's "
            f"embeddings have {self._rows} rows: call model.resize_token_embeddings({token + 1}) and save the model "
            f"again"
        )

    @property
    def _source(self) -> str:
        return f"{LLM_KEY}.model_path {self.tokenizer.name_or_path}: its tokenizer"


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
