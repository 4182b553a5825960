"""Contextual calibration: a candidate's mean score over states is subtracted from its score.

A model as it comes may never choose some action because its words are rare, and PPO then has nothing to reinforce. The
bias of a candidate is its mean score over many states (batch calibration: Zhou et al. 2023, arXiv 2309.17249; Zhao et
al. 2021, arXiv 2102.09690 take it from inputs without content). It is measured once and stays as it is.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from experiments.atomic_files import write_atomically
from experiments.prompters import TextState

CALIBRATION = "calibration.json"  # in a checkpoint's folder

Biases = Mapping[str, float]  # candidate -> mean score

logger = logging.getLogger("glam")


def mean_scores(scores: Sequence[Tensor], candidates: Sequence[Sequence[str]]) -> dict[str, float]:
    """The bias of every candidate: the mean of its scores over the states that offer it.

    Args:
        scores: per state (K_b,), by any score rule.
    """
    of_candidate: dict[str, list[float]] = defaultdict(list)
    for row, texts in zip(scores, candidates, strict=True):
        for text, score in zip(texts, row.tolist(), strict=True):
            of_candidate[text].append(score)
    return {text: float(np.mean(found)) for text, found in of_candidate.items()}


def subtract_biases(scores: Tensor, candidates: Sequence[str], biases: Biases) -> Tensor:
    """The calibrated scores of one state, (K,)."""
    return scores - scores.new_tensor([biases[text] for text in candidates])


def with_unseen(biases: Biases, states: Sequence[TextState]) -> Biases:
    """The biases, and for candidates that no state of the calibration offered the mean of the others."""
    unseen = {text: None for state in states for text in state.candidates if text not in biases}
    if not unseen:
        return biases
    mean = float(np.mean(list(biases.values())))
    logger.warning(
        "rl_script_args.calibration: %s was offered in no calibration state; it gets the mean bias of the other "
        "actions, %.2f",
        ", ".join(map(repr, unseen)),
        mean,
    )
    return {**biases, **dict.fromkeys(unseen, mean)}


def write_biases(folder: Path, biases: Biases) -> None:
    write_atomically(folder / CALIBRATION, json.dumps(biases, indent=1, ensure_ascii=False))


def read_biases(folder: Path) -> dict[str, float]:
    return json.loads((folder / CALIBRATION).read_text(encoding="utf-8"))
