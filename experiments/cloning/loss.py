"""The loss of behavioural cloning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lamorel.config import LLMArgs
from lamorel.padding import pad
from lamorel.tokenization import TextEncoder, TokenIds
from lamorel.ways import Ways

IGNORED = -100  # cross_entropy's mark of targets that do not count


class CloningLoss(torch.nn.Module):
    """Negative log-likelihood of actions given prompts, tokenised and encoded as lamorel scores candidates.

    No special token is added to prompt or action. An encoder-decoder reads the prompt and its decoder begins with
    decoder_start_token_id; a decoder-only model reads the prompt's tokens followed by the action's.

    Args:
        model: Hugging Face model in eval mode. It stays there: without dropout the policy that acts is the one that
            learns, as in training by PPO.
        args: how lamorel loaded it.
    """

    def __init__(self, model: Any, encoder: TextEncoder, args: LLMArgs) -> None:
        super().__init__()
        self.model = model
        self.encoder = encoder
        self.forwards = Ways(model, args, pad_id=encoder.pad_id).forwards

    def tokens(self, actions: Sequence[str]) -> list[TokenIds]:
        """Token ids of each action."""
        return [ids for [ids] in self.encoder.candidates([[action] for action in actions])]

    def forward(self, prompts: Sequence[str], actions: Sequence[str]) -> Tensor:
        """Minus the sum of log p(token | prompt, tokens before it) over all tokens of the actions, () fp32, in nats."""
        targets = self.tokens(actions)
        rows = list(enumerate(targets))
        view = self.forwards.pairs(self.encoder.contexts(prompts), rows, hidden_states=False)
        logits = view.forward_outputs.logits
        target = pad(targets, fill=IGNORED, left=False, device=logits.device).ids  # (R, T)
        # the root's logits predict the first token, those of the last token nothing
        predicting = logits[:, view.root : view.root + target.shape[1]]
        return F.cross_entropy(
            predicting.float().flatten(0, 1), target.flatten(), ignore_index=IGNORED, reduction="sum"
        )
