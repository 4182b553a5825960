"""The network of Symbolic-PPO: a FiLM-conditioned CNN over the symbolic view, a memory, an actor and a critic.

The architecture is that of the BabyAI baseline (Chevalier-Boisvert et al. 2019) with FiLM blocks (Perez et al. 2018),
in the sizes of the GLAM paper's appendix. B views, K sequences of S steps, A actions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from experiments.agents.ppo.instruction_vocabulary import MAX_WORDS, UNKNOWN
from experiments.environments import SYMBOLIC_VIEW

CHANNELS = 128  # of every convolution, and the size of word embeddings, instructions and each half of the memory
HEAD_UNITS = 64
AVERAGED_UPDATES = 10  # from then on the statistics of the normalisation are exponential means


class SymbolicNetwork(nn.Module):
    """View and instruction to features (`see`), features and memory to policy and value (`remember`, `judge`).

    Batch normalisation always uses its running statistics, which only `take_statistics` changes.

    PAPER-DIFF(4): with statistics of the batch at hand, as layers in training mode have them, the policy in a state
    would depend on what other environments happen to see, and would differ between acting (N views) and updating (a
    minibatch): the ratio would not start at 1. Here the statistics are part of the policy that acted, fixed throughout
    its update; gradients take them as constants. After the update they move on by that rollout's views.

    Args:
        actions: A.
    """

    def __init__(self, actions: int) -> None:
        super().__init__()
        self.instruction = InstructionEncoder()
        self.convolutions = nn.Sequential(
            nn.Conv2d(SYMBOLIC_VIEW[2], CHANNELS, kernel_size=2, padding=1),
            nn.BatchNorm2d(CHANNELS),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(CHANNELS, CHANNELS, kernel_size=3, padding=1),
            nn.BatchNorm2d(CHANNELS),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.film = nn.ModuleList(FiLMBlock() for _ in range(2))
        self.pool = nn.MaxPool2d(2)
        self.memory = nn.LSTMCell(CHANNELS, CHANNELS)
        self.actor = _head(actions)
        self.critic = _head(1)
        self.apply(_initialise_linear)
        self._normalisations = [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]
        for normalisation in self._normalisations:
            normalisation.eval()

    def see(self, images: Tensor, instructions: Sequence[Tensor], which: Tensor) -> Tensor:
        """(B, 128) features of views.

        Args:
            images: (B, 7, 7, 3) integers.
            instructions: M instructions, each (words,) ids.
            which: (B,) the instruction of each view.
        """
        words = self.instruction(instructions)[which]
        maps = self.convolutions(images.permute(0, 3, 1, 2).float())  # 7x7 -> 8x8 -> 4x4 -> 4x4 -> 2x2
        for block in self.film:
            maps = block(maps, words)
        return self.pool(maps).flatten(1)

    def remember(self, features: Tensor, memory: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        """Run the memory over K sequences, forgetting where an episode begins.

        Args:
            features: (S, K, 128)
            memory: (2, K, 128) hidden and cell state before the first step.
            first: (S, K) bool, the first decision of an episode.

        Returns:
            (S, K, 128) the hidden state at every step, and (2, K, 128) the memory after the last.
        """
        hidden, cell = memory
        states = []
        for seen, begins in zip(features, first, strict=True):
            kept = (~begins)[:, None].to(hidden.dtype)
            hidden, cell = self.memory(seen, (hidden * kept, cell * kept))
            states.append(hidden)
        return torch.stack(states), torch.stack([hidden, cell])

    def judge(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """(..., A) log-probabilities and (...) values of hidden states (..., 128)."""
        return torch.log_softmax(self.actor(states), dim=-1), self.critic(states)[..., 0]

    @torch.no_grad()
    def take_statistics(self, images: Tensor, instructions: Sequence[Tensor], which: Tensor) -> None:
        """Let the running statistics of the normalisation take in views, given as to `see`.

        The first ten times they become the plain mean over all times so far, later they move a tenth of the way.
        """
        for normalisation in self._normalisations:
            started = int(normalisation.num_batches_tracked or 0)
            normalisation.momentum = 0.1 if started >= AVERAGED_UPDATES else None  # None: torch's cumulative mean
            normalisation.train()
        self.see(images, instructions, which)
        for normalisation in self._normalisations:
            normalisation.eval()


class FiLMBlock(nn.Module):
    """Feature-wise linear modulation (Perez et al. 2018, eq. 2): each channel is scaled and shifted by the instruction.

    ReLU(BN(gamma * Conv(ReLU(BN(Conv(x)))) + beta)), gamma and beta linear in the instruction; convolutions are 3x3 and
    keep the map's size.
    """

    def __init__(self, channels: int = CHANNELS, condition: int = CHANNELS) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(channels, channels, kernel_size=3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel_size=3, padding=1),
        )
        self.gamma = nn.Linear(condition, channels)
        self.beta = nn.Linear(condition, channels)
        self.outer = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())

    def forward(self, maps: Tensor, condition: Tensor) -> Tensor:
        """(B, C, H, W) from maps (B, C, H, W) and conditions (B, D)."""
        gamma, beta = (layer(condition)[:, :, None, None] for layer in (self.gamma, self.beta))
        return self.outer(gamma * self.inner(maps) + beta)


class InstructionEncoder(nn.Module):
    """The last state of a GRU over the words' embeddings; an unknown word's embedding is zero and stays so."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(MAX_WORDS + 1, CHANNELS, padding_idx=UNKNOWN)
        self.gru = nn.GRU(CHANNELS, CHANNELS)

    def forward(self, instructions: Sequence[Tensor]) -> Tensor:
        """(M, 128) of M instructions, each (words,) ids, of any lengths: they are packed, so nothing is padded."""
        _, last = self.gru(pack_sequence([self.embedding(ids) for ids in instructions], enforce_sorted=False))
        return last[0]


def _head(outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(CHANNELS, HEAD_UNITS), nn.Tanh(), nn.Linear(HEAD_UNITS, outputs))


def _initialise_linear(module: nn.Module) -> None:
    """Rows from N(0, 1), scaled to unit norm; biases 0 (released code)."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight)
        with torch.no_grad():
            module.weight /= module.weight.norm(dim=1, keepdim=True)
        nn.init.zeros_(module.bias)
