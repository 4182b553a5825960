"""The (prompt, action) pairs of exported trajectories: read, divided, and put in order."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from experiments.errors import UserError

logger = logging.getLogger(__name__)

EXPORT = "export them with post-training_tests.py rl_script_args.get_example_trajectories=true"


@dataclass
class Transitions:
    """Aligned texts, in the order in which they were recorded.

    Attributes:
        prompts, actions: what the agent saw, and the text of what it did.
        files: of each file of prompts its path and the index of its first pair.
    """

    prompts: list[str] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)
    files: list[tuple[Path, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, part: slice) -> Transitions:
        """Some pairs that follow one another (`where` is for the whole)."""
        return Transitions(self.prompts[part], self.actions[part])

    def where(self, index: int) -> str:
        """The file of a pair and the place in it, for messages."""
        path, first = next(file for file in reversed(self.files) if file[1] <= index)
        return f"{path}[{index - first}]"

    def sha256(self) -> str:
        """The same for the same texts in the same order, wherever they are stored."""
        digest = hashlib.sha256()
        for texts in (self.prompts, self.actions):
            for text in texts:
                digest.update(text.encode() + b"\0")
        return digest.hexdigest()


def read_transitions(folder: Path, file_name: str, file_id: str) -> Transitions:
    """The pairs of `FILE_NAME_prompts_K.npy` and `FILE_NAME_actions_K.npy`.

    Args:
        file_name: trajectories | bot_trajectories.
        file_id: K as one number, a range `0-12` with both ends, or `all`.

    Raises:
        UserError: a file is missing, or is not what the export writes.
    """
    data = Transitions()
    for number in _numbers(folder, file_name, file_id):
        paths = [folder / f"{file_name}_{kind}_{number}.npy" for kind in ("prompts", "actions")]
        prompts, actions = (_read_texts(path) for path in paths)
        if len(prompts) != len(actions):
            raise UserError(
                f"{paths[0]} has {len(prompts)} texts, but {paths[1].name} has {len(actions)}: the two files are not "
                f"of one export, {EXPORT} again"
            )
        data.files.append((paths[0], len(data)))
        data.prompts += prompts
        data.actions += actions
    if file_id == "all":
        _check_all_are_there(folder / f"{file_name}.json", len(data))
    return data


def _numbers(folder: Path, file_name: str, file_id: str) -> list[int]:
    """The numbers K that `file_id` asks for, all of which have both files."""
    if not folder.is_dir():
        raise UserError(f"--data_dir {folder} does not exist: give the folder logs/ID/test/LEVEL of an export")
    found = {
        kind: {
            int(match[1])
            for path in folder.iterdir()
            if (match := re.fullmatch(rf"{file_name}_{kind}_(\d+)\.npy", path.name))
        }
        for kind in ("prompts", "actions")
    }
    present = found["prompts"] | found["actions"]
    if not present:
        raise UserError(
            f"--data_dir {folder} holds no {file_name}_prompts_K.npy: {EXPORT}, or give another --file_name"
        )
    if file_id == "all":
        wanted = range(max(present) + 1)
    elif match := re.fullmatch(r"(\d+)(?:-(\d+))?", file_id):
        wanted = range(int(match[1]), int(match[2] or match[1]) + 1)
    else:
        wanted = range(0)
    if not wanted:
        raise UserError(f"--file_id {file_id}: expected a number, a range such as 0-12, or all")
    for number in wanted:
        for kind, numbers in found.items():
            if number not in numbers:
                raise UserError(
                    f"--file_id {file_id}: {folder / f'{file_name}_{kind}_{number}.npy'} is missing (there are the "
                    f"numbers {_ranges(numbers)}): give others, or {EXPORT} again"
                )
    return list(wanted)


def _check_all_are_there(record: Path, found: int) -> None:
    """Raises UserError where the export's record, if there is one, tells of more pairs, or of fewer."""
    try:
        transitions = json.loads(record.read_text(encoding="utf-8"))["transitions"]
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{record} cannot be read ({error!r}): {EXPORT} again") from error
    if transitions != found:
        raise UserError(
            f"{record} tells of {transitions} pairs, but the files hold {found}: an export was interrupted, {EXPORT} "
            "again, or name the files with --file_id"
        )


def _ranges(numbers: set[int]) -> str:
    """`0-3, 5` for {0, 1, 2, 3, 5}."""
    starts = sorted(number for number in numbers if number - 1 not in numbers)
    ends = sorted(number for number in numbers if number + 1 not in numbers)
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True)) or "none"


def _read_texts(path: Path) -> list[str]:
    try:
        texts = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:  # cut short, no array, or an array of objects
        raise UserError(f"{path} cannot be read as an array of texts ({error}): {EXPORT} again") from error
    if not isinstance(texts, np.ndarray) or texts.ndim != 1 or texts.dtype.kind != "U" or len(texts) == 0:
        raise UserError(f"{path} is not a one-dimensional array of texts: {EXPORT} again")
    listed: list[str] = texts.tolist()
    if "" in listed:
        raise UserError(f"{path}[{listed.index('')}] is empty: {EXPORT} again")
    return listed


def split(
    data: Transitions, *, train_transitions: int, eval_share: float, eval_transitions: int | None
) -> tuple[Transitions, Transitions]:
    """Pairs to learn from, and pairs to evaluate on.

    The first `train_transitions` are learnt from and the rest is for evaluation. Where nothing would be left, the last
    `eval_share` is held out. Neither is drawn at random: prompts of one episode overlap.

    Args:
        eval_transitions: cap on the latter; None for all.

    Raises:
        UserError: one pair alone cannot be divided.
    """
    train = train_transitions
    if len(data) <= train_transitions:
        train = len(data) - math.ceil(eval_share * len(data))
        logger.info(
            "%d pairs are no more than --train_transitions %d: the last %d are held out for evaluation",
            len(data), train_transitions, len(data) - train,
        )  # fmt: skip
    if train == 0:
        raise UserError(
            "there is one pair only, and it is held out for evaluation: export more, or give --eval_share 0"
        )
    end = None if eval_transitions is None else train + eval_transitions
    return data[:train], data[train:end]


def batches(total: int, size: int, *, seed: int, epochs: int) -> Iterator[list[int]]:
    """Indices below `total` for every gradient step: in each epoch all of them, in an order from (seed, epoch).

    The last batch of an epoch may be smaller.
    """
    for epoch in range(epochs):
        order = np.random.default_rng([seed, epoch]).permutation(total).tolist()
        for start in range(0, total, size):
            yield order[start : start + size]
