"""The MLP heads on the LLM: values, and one logit per action instead of scoring (AFlan, NPAE, NPA)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lamorel import BaseModuleFunction

HIDDEN_UNITS = 1024  # paper, appendix: d -> 1024 -> 1024 -> out, sigmoid between


class ContextHead(BaseModuleFunction):
    """An MLP in fp32 on the last hidden state at the root position of a context.

    The root is the decoder's first position (encoder-decoder) or the prompt's last token (decoder-only).

    Args:
        outputs: size of the last layer.
        detach: True keeps the head's gradient out of the LLM.
    """

    context_only = True

    def __init__(self, outputs: int, *, detach: bool = False) -> None:
        super().__init__()
        self.outputs = outputs
        self.detach = detach

    def initialize(self) -> None:
        self.mlp = nn.Sequential(
            nn.Linear(self.llm_config.hidden_size, HIDDEN_UNITS),
            nn.Sigmoid(),
            nn.Linear(HIDDEN_UNITS, HIDDEN_UNITS),
            nn.Sigmoid(),
            nn.Linear(HIDDEN_UNITS, self.outputs),
        ).to(self.device)

    def forward(self, forward_outputs, minibatch, tokenized_contexts, **kwargs) -> Tensor:
        """(contexts, outputs)."""
        hidden = last_hidden_state(forward_outputs)
        return self.mlp(hidden.detach() if self.detach else hidden)


def last_hidden_state(forward_outputs: Any) -> Tensor:
    """(contexts, hidden) in fp32: of the last layer, after the final norm, at the position that a head sees."""
    key = "decoder_hidden_states" if "decoder_hidden_states" in forward_outputs else "hidden_states"
    return forward_outputs[key][-1][:, 0, :].to(torch.float32)


class ValueHead(ContextHead):
    """V(s), in units of the scaled return."""

    def __init__(self, *, detach: bool = False) -> None:
        super().__init__(1, detach=detach)


class ActionHead(ContextHead):
    """One logit per action of the action list, which then must not change between states."""


class FrozenFeatures(BaseModuleFunction):
    """What TWOSOME's critic reads: the last hidden state of the frozen model, its adapters disabled, in fp32.

    Of the prompt's last token (decoder-only), or of the decoder's first position (encoder-decoder).
    """

    context_only = True
    adapters = False

    def forward(self, forward_outputs, minibatch, tokenized_contexts, **kwargs) -> Tensor:
        """(contexts, hidden)."""
        return last_hidden_state(forward_outputs)


class FrozenCritic(BaseModuleFunction):
    """TWOSOME's critic: V(s) by an MLP in fp32 on `FrozenFeatures`."""

    context_only = True
    adapters = False

    def initialize(self) -> None:
        self.mlp = nn.Sequential(
            nn.Linear(self.llm_config.hidden_size, 1024, bias=False),
            nn.ReLU(),
            nn.Linear(1024, 512, bias=False),
            nn.ReLU(),
            nn.Linear(512, 1, bias=False),
        ).to(self.device)

    def forward(self, forward_outputs, minibatch, tokenized_contexts, **kwargs) -> Tensor:
        """(contexts, 1)."""
        return self.values(last_hidden_state(forward_outputs))

    def values(self, features: Tensor) -> Tensor:
        """(n, 1) of features (n, hidden)."""
        return self.mlp(features)


class ReleasedFrozenCritic(FrozenCritic):
    """The same on the last position of the right-padded batch.

    PAPER-DIFF(19): the released critic reads there, which is padding for every prompt but the longest ones, so that
    values depend on what else is in the batch. For comparison only.
    """

    right_padded = True
