"""Texts as sentencepiece pieces."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from experiments.configuration import RLScriptArgs
from experiments.errors import UserError

MAX_PIECES = 2**16  # replayed texts are kept as 16-bit numbers


def check_sentencepiece_model(rl: RLScriptArgs) -> None:
    """Raises UserError where `spm_path` names no file; needs no torch."""
    if not rl.spm_path or not Path(rl.spm_path).expanduser().is_file():
        path = rl.spm_path or "PATH"
        raise UserError(
            f"rl_script_args.spm_path={rl.spm_path!r}: DRRN (n_llm_processes=0) reads through a sentencepiece model, "
            f"and there is none: make it with experiments/make_sentencepiece.py and rl_script_args.spm_path={path}"
        )


class Vocabulary:
    """A sentencepiece model.

    Attributes:
        model: its file's content; checkpoints carry it, so that weights are never read with another vocabulary.

    Raises:
        UserError: the file is no sentencepiece model, or has more pieces than are supported.
    """

    def __init__(self, path: Path) -> None:
        from sentencepiece import SentencePieceProcessor

        self.model = path.read_bytes()
        try:
            if not self.model:  # sentencepiece would take it, and fail at the first text
                raise RuntimeError("it is empty")
            self._pieces = SentencePieceProcessor(model_proto=self.model)
        except RuntimeError as error:
            raise UserError(f"rl_script_args.spm_path={path} is no sentencepiece model: {error}") from error
        if len(self) > MAX_PIECES:
            raise UserError(
                f"rl_script_args.spm_path={path} has {len(self)} pieces: at most {MAX_PIECES} are supported"
            )
        self.action = lru_cache(maxsize=10_000)(lambda text: tuple(self.encode(text).tolist()))

    def __len__(self) -> int:
        return self._pieces.get_piece_size()

    def encode(self, text: str) -> np.ndarray:
        """(L,) uint16, L at least 1: an empty text is one unknown piece."""
        return np.array(self._pieces.encode(text) or [self._pieces.unk_id()], dtype=np.uint16)
