"""What Symbolic-PPO sees and how it decides, in acting, updating and tests alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from experiments.agents.ppo.instruction_vocabulary import InstructionVocabulary
from experiments.agents.ppo.network_file import load_network, save_network
from experiments.agents.ppo.symbolic_network import CHANNELS, SymbolicNetwork

VOCABULARY = "vocabulary.json"


class SymbolicView(NamedTuple):
    """All that a decision depends on."""

    image: np.ndarray  # (7, 7, 3) uint8
    mission: str
    first: bool  # the first decision of an episode: the memory is not used
    memory: Tensor  # (2, 128) before the decision, as it was when acting


class Unrolled(NamedTuple):
    """Decisions over K sequences of S steps, time-major, B = S * K."""

    log_probs: Tensor  # (B, A)
    values: Tensor  # (B,)
    memory: Tensor  # (2, K, 128) after the last step


def empty_memory() -> Tensor:
    """The memory before an episode."""
    return torch.zeros(2, CHANNELS)


class SymbolicPolicy:
    """The network with its vocabulary.

    Args:
        actions: A.
        device: of the network; what it is given and returns lies on the CPU but for the outputs of `unroll`.
    """

    def __init__(self, actions: int, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.network = SymbolicNetwork(actions).to(self.device)
        self.vocabulary = InstructionVocabulary()

    def unroll(self, views: Sequence[SymbolicView], steps: int = 1) -> Unrolled:
        """Decide over sequences of `steps` successive views.

        The memory before the first step is the one that the views bring along; from there on it is computed, so that
        gradients reach back through time, `steps` steps at most (Williams & Peng 1990).

        Args:
            views: B = steps * K, time-major: the k-th sequence's views are k, k + K, k + 2K, ...
        """
        count = len(views) // steps
        inputs, rows = self._distinct(views)
        features = self.network.see(*inputs)[rows].view(steps, count, CHANNELS)
        memory = torch.stack([view.memory for view in views[:count]], dim=1).to(self.device)
        first = torch.tensor([view.first for view in views], device=self.device).view(steps, count)
        states, memory = self.network.remember(features, memory, first)
        log_probs, values = self.network.judge(states.flatten(0, 1))
        return Unrolled(log_probs, values, memory)

    def take_statistics(self, views: Sequence[SymbolicView]) -> None:
        """Let the network's normalisation take in views, each as often as it occurs."""
        self.network.take_statistics(*self._inputs([(view.image, view.mission) for view in views]))

    def _distinct(self, views: Sequence[SymbolicView]) -> tuple[tuple[Tensor, list[Tensor], Tensor], Tensor]:
        """What `see` needs for the different (image, mission) pairs among the views, and the pair of every view.

        Features depend on nothing else, and many views are alike (an action that changes nothing, the same corner of
        every room), so each is computed once.
        """
        pairs: dict[tuple[bytes, str], int] = {}
        rows = [pairs.setdefault((view.image.tobytes(), view.mission), len(pairs)) for view in views]
        seen = dict(zip(rows, views, strict=True))
        inputs = self._inputs([(seen[row].image, seen[row].mission) for row in range(len(pairs))])
        return inputs, torch.tensor(rows, device=self.device)

    def _inputs(self, pairs: Sequence[tuple[np.ndarray, str]]) -> tuple[Tensor, list[Tensor], Tensor]:
        """Images, the different instructions, and the instruction of each image, as `see` takes them."""
        numbers: dict[str, int] = {}
        which = [numbers.setdefault(mission, len(numbers)) for _, mission in pairs]
        images = torch.from_numpy(np.stack([image for image, _ in pairs])).to(self.device)
        instructions = [torch.tensor(self.vocabulary.ids(mission), device=self.device) for mission in numbers]
        return images, instructions, torch.tensor(which, device=self.device)

    def save(self, folder: Path) -> None:
        """Write `network.safetensors` and `vocabulary.json` (the words in the order of their ids)."""
        save_network(self.network, folder)
        (folder / VOCABULARY).write_text(json.dumps(self.vocabulary.words), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Read what `save` wrote.

        Raises:
            UserError: the network is of another shape.
        """
        remedy = "give the action_space and version it was trained with, or another name_experiment"
        load_network(self.network, folder, remedy)
        self.vocabulary = InstructionVocabulary(json.loads((folder / VOCABULARY).read_text(encoding="utf-8")))
