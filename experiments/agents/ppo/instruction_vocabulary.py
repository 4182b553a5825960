"""The words of Symbolic-PPO's instructions and their ids."""

from __future__ import annotations

import re
from collections.abc import Sequence

from experiments.errors import UserError

MAX_WORDS = 100  # released code
UNKNOWN = 0  # also stands for an instruction without words


class InstructionVocabulary:
    """Lower-case words, with ids from 1 in the order in which training meets them.

    Args:
        words: those known already, in the order of their ids.
    """

    def __init__(self, words: Sequence[str] = ()) -> None:
        self._ids = {word: number for number, word in enumerate(words, start=1)}

    @property
    def words(self) -> list[str]:
        """In the order of their ids."""
        return list(self._ids)

    def learn(self, instruction: str) -> None:
        """Give the new words of an instruction their ids.

        Raises:
            UserError: there are more than 100.
        """
        for word in split_words(instruction):
            if word not in self._ids:
                if len(self._ids) == MAX_WORDS:
                    raise UserError(
                        f"rl_script_args.name_environment: {word!r} in the mission {instruction!r} is the "
                        f"{MAX_WORDS + 1}th different word and Symbolic-PPO knows {MAX_WORDS} at most: choose another "
                        "level"
                    )
                self._ids[word] = len(self._ids) + 1

    def ids(self, instruction: str) -> list[int]:
        """At least one id; words never learned are `UNKNOWN`."""
        return [self._ids.get(word, UNKNOWN) for word in split_words(instruction)] or [UNKNOWN]


def split_words(instruction: str) -> list[str]:
    """Lower-case words without punctuation."""
    return re.findall(r"\w+", instruction.lower())
