"""The network of DRRN: two recurrent encoders, one for the state's text, one for the action's.

He et al. 2016, "Deep Reinforcement Learning with a Natural Language Action Space" (arXiv 1511.04636), with the sizes
and the joint layers of the code released with GLAM.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from experiments.agents.drrn.gru import last_states

Ids = Sequence[int] | np.ndarray  # a text as at least one piece of the vocabulary


class DRRN(nn.Module):
    """Q(state, action) = MLP([GRU_s(state); GRU_a(action)]), both GRUs over one embedding of the pieces.

    Args:
        vocabulary: pieces of the sentencepiece model.
        embedding: width of a piece.
        hidden: width of each GRU, and of the layer between their joint output and Q.
    """

    def __init__(self, vocabulary: int, embedding: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.state_encoder = nn.GRU(embedding, hidden)
        self.action_encoder = nn.GRU(embedding, hidden)
        self.q = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, states: Sequence[Ids], candidates: Sequence[Sequence[tuple[int, ...]]]) -> Tensor:
        """(N, A) Q-values of each state's own candidates, -inf where a state has fewer than A.

        What a row holds does not depend on the other rows (up to rounding).

        Args:
            states: N texts.
            candidates: of each of them the texts of its actions, at least one.
        """
        distinct = {text: row for row, text in enumerate(dict.fromkeys(text for row in candidates for text in row))}
        counts = torch.tensor([len(row) for row in candidates])
        keys = [np.asarray(text, dtype=np.int64).tobytes() for text in states]
        places = {key: row for row, key in enumerate(dict.fromkeys(keys))}
        once = list(dict(zip(keys, states, strict=True)).values())
        of_state = torch.repeat_interleave(torch.tensor([places[key] for key in keys]), counts)
        of_action = torch.tensor([distinct[text] for row in candidates for text in row])
        pairs = torch.cat(
            [
                self._encode(self.state_encoder, once)[of_state.to(self.device)],
                self._encode(self.action_encoder, list(distinct))[of_action.to(self.device)],
            ],
            dim=1,
        )
        offered = torch.arange(int(counts.max())) < counts[:, None]
        values = torch.full(offered.shape, -torch.inf, device=self.device)
        return values.masked_scatter(offered.to(self.device), self.q(pairs)[:, 0])

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    def _encode(self, encoder: nn.GRU, texts: Sequence[Ids]) -> Tensor:
        """(N, hidden) state of a GRU after the last piece of each of N texts."""
        if self.device.type == "cpu":
            return last_states(encoder, self.embedding, [np.asarray(text) for text in texts])
        lengths = torch.tensor([len(text) for text in texts], device=self.device)
        padded = pad_sequence([torch.as_tensor(np.asarray(text, dtype=np.int64)) for text in texts])
        # read forwards, what is behind a text's last piece cannot change its state there
        outputs = encoder(self.embedding(padded.to(self.device)))[0]
        return outputs[lengths - 1, torch.arange(len(texts), device=self.device)]
