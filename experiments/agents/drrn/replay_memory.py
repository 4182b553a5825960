"""Replay memory: the newest transitions, sampled uniformly (Lin 1992; Mnih et al. 2015).

Every state is kept once, as the numbers of its pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.agents.drrn.segments import SEGMENT, Segment
from experiments.prompters import TextState


class EncodedState(NamedTuple):
    """A state as the network reads it."""

    pieces: np.ndarray  # (L,) uint16
    text: TextState


class Transition(NamedTuple):
    """What is replayed."""

    pieces: np.ndarray  # (L,) uint16, of the state
    action: str
    reward: float  # as it was given to `add`
    duration: int  # primitive steps
    next_pieces: np.ndarray  # of the next state; empty where there is nothing to bootstrap from
    next_candidates: list[str]


class ReplayMemory:
    """The newest `capacity` transitions of N environments that step together.

    A transition's next state is the one that the same environment acts in N transitions later, so those of the newest
    step are replayed only after the next one.

    Args:
        capacity: transitions; whole segments are let go of once all their transitions are older.
        environments: N.
        segment: transitions per segment.
    """

    def __init__(self, capacity: int, environments: int, *, segment: int = SEGMENT) -> None:
        self.capacity, self.environments, self.segment = capacity, environments, segment
        self.added = 0
        self.segments: dict[int, Segment] = {}
        self.action_texts: list[str] = []
        self._numbers: dict[str, int] = {}

    def __len__(self) -> int:
        """Transitions that may be replayed."""
        return max(0, self.added - self.environments - self._oldest)

    @property
    def _oldest(self) -> int:
        return max(0, self.added - self.capacity)

    def add(
        self,
        states: Sequence[EncodedState],
        actions: np.ndarray,
        rewards: np.ndarray,
        ended: np.ndarray,
        durations: Sequence[int],
        last_states: dict[int, EncodedState],
    ) -> None:
        """Add one step of all environments.

        Args:
            states: N states acted in.
            actions: (N,) index of the chosen candidate of each.
            rewards, ended, durations: (N,) of the step.
            last_states: environment -> the state in which its episode ended, where that is to be bootstrapped.
        """
        for i, state in enumerate(states):
            number, row = divmod(self.added, self.segment)
            if row == 0:
                self.segments[number] = Segment(self.segment)
            segment = self.segments[number]
            for place, present in ((2 * row, state), (2 * row + 1, last_states.get(i))):
                segment.pieces.put(place, () if present is None else present.pieces)
                segment.candidates.put(place, () if present is None else self._number(present.text.candidates))
            segment.columns["action"][row] = segment.candidates.get(2 * row)[actions[i]]
            segment.columns["reward"][row] = rewards[i]
            segment.columns["duration"][row] = durations[i]
            segment.columns["end"][row] = ended[i]
            self.added += 1
            if row == self.segment - 1:
                segment.fit()
        for number in [n for n in self.segments if (n + 1) * self.segment <= self._oldest]:
            del self.segments[number]

    def _number(self, texts: Sequence[str]) -> list[int]:
        for text in texts:
            if text not in self._numbers:
                self._numbers[text] = len(self.action_texts)
                self.action_texts.append(text)
        return [self._numbers[text] for text in texts]

    def sample(self, count: int, generator: np.random.Generator) -> list[Transition]:
        """`count` transitions, uniformly and with replacement.

        Raises:
            ValueError: there is none yet.
        """
        numbers = generator.integers(self._oldest, self.added - self.environments, size=count)
        return [self._transition(int(number)) for number in numbers]

    def _transition(self, number: int) -> Transition:
        segment, row = self._find(number)
        columns = segment.columns
        then, place = segment, 2 * row + 1  # where the episode ended: its last state, or nothing
        if not columns["end"][row]:
            then, row_then = self._find(number + self.environments)
            place = 2 * row_then
        return Transition(
            segment.pieces.get(2 * row),
            self.action_texts[columns["action"][row]],
            float(columns["reward"][row]),
            int(columns["duration"][row]),
            then.pieces.get(place),
            [self.action_texts[text] for text in then.candidates.get(place)],
        )

    def _find(self, number: int) -> tuple[Segment, int]:
        segment, row = divmod(number, self.segment)
        return self.segments[segment], row

    # -- checkpoints ----------------------------------------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        """What is not in the segments, JSON-able."""
        return {"added": self.added, "action_texts": self.action_texts}

    def set_state(self, state: dict[str, Any]) -> None:
        self.added = state["added"]
        self.action_texts = list(state["action_texts"])
        self._numbers = {text: number for number, text in enumerate(self.action_texts)}

    def save(self, folder: Path, previous: Path) -> None:
        """Write the segments into `folder`, one file each.

        Args:
            previous: where they were written or read the last time; full segments there are linked to.
        """
        folder.mkdir()
        for number, segment in self.segments.items():
            count = min(self.segment, self.added - number * self.segment)
            segment.save(folder / f"{number:06d}.safetensors", count, previous)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote; `set_state` tells the rest."""
        self.segments = {
            int(path.stem): Segment.load(path, self.segment) for path in sorted(folder.glob("*.safetensors"))
        }
