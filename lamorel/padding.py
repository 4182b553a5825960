"""Ragged token ids to rectangular batches. Masks say what is padding, never the ids."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch


class Padded(NamedTuple):
    ids: torch.Tensor  # (rows, width) int64
    mask: torch.Tensor  # (rows, width) int64, 1 on tokens
    has_padding: bool


def pad(rows: Sequence[Sequence[int]], *, fill: int, left: bool, device: torch.device) -> Padded:
    """Rows of token ids padded with `fill` to the longest, on the left or on the right."""
    width = max((len(row) for row in rows), default=0)
    ids = np.full((len(rows), width), fill, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[i, place] = row
        mask[i, place] = 1
    has_padding = any(len(row) < width for row in rows)
    return Padded(torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device), has_padding)


def concatenate(first: Padded, second: Padded) -> Padded:
    """Two batches of the same rows, side by side."""
    ids, mask = (torch.cat(parts, dim=1) for parts in zip(first[:2], second[:2], strict=True))
    return Padded(ids, mask, first.has_padding or second.has_padding)


def positions(mask: torch.Tensor) -> torch.Tensor:
    """Position of every token among the tokens of its row, (rows, width); 0 on padding before the first."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)


def chunks_by_length(
    lengths: Sequence[int], continued: Sequence[int], *, tokens: int, rows: int, padded: bool = True
) -> list[list[int]]:
    """Indices of texts that run together, of similar length, so that padding is small; each chunk in input order.

    Args:
        lengths: tokens of each text.
        continued: further tokens of each text, which are not padded to the chunk's longest.
        tokens: budget of a chunk, padding included; a single text may exceed it.
        rows: cap on the texts of a chunk.
        padded: texts are padded to the longest of their chunk.
    """
    chunks: list[list[int]] = []
    extra = 0  # tokens that come without padding
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        more = continued[i] if padded else continued[i] + lengths[i]
        needed = extra + more + ((len(chunks[-1]) + 1) * lengths[i] if padded and chunks else 0)
        if not chunks or len(chunks[-1]) == rows or needed > tokens:
            chunks.append([])
            extra = 0
        extra += more
        chunks[-1].append(i)
    return [sorted(chunk) for chunk in chunks]
