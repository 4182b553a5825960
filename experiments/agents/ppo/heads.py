"""The MLP heads on the LLM: the value, and one logit per action instead of scoring (AFlan, NPAE, NPA)."""

from __future__ import annotations

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
        key = "decoder_hidden_states" if "decoder_hidden_states" in forward_outputs else "hidden_states"
        hidden = forward_outputs[key][-1][:, 0, :].to(torch.float32)
        return self.mlp(hidden.detach() if self.detach else hidden)


class ValueHead(ContextHead):
    """V(s), in units of the scaled return."""

    def __init__(self, *, detach: bool = False) -> None:
        super().__init__(1, detach=detach)


class ActionHead(ContextHead):
    """One logit per action of the action list, which then must not change between states."""
