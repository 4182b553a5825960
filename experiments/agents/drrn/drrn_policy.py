"""DRRN as a policy: texts in, Q-values and softmax(Q) out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from experiments.agents.base_agent import Policy, View
from experiments.agents.drrn.network import DRRN
from experiments.agents.drrn.replay_memory import EncodedState
from experiments.agents.drrn.vocabulary import Vocabulary
from experiments.configuration import RLScriptArgs
from experiments.errors import UserError
from experiments.nonfinite import check_policy
from experiments.prompters import TextState

WEIGHTS, VOCABULARY = "model.safetensors", "sentencepiece.model"


class DRRNPolicy:
    """The network with its vocabulary: texts in, Q-values out."""

    def __init__(self, network: DRRN, vocabulary: Vocabulary) -> None:
        self.network = network
        self.vocabulary = vocabulary

    def q_values(self, prompts: Sequence[np.ndarray], candidates: Sequence[Sequence[str]]) -> torch.Tensor:
        """(N, A) Q-values, -inf where a state has fewer than A candidates.

        Args:
            prompts: the pieces of N prompts.
            candidates: the action texts of each.
        """
        return self.network(prompts, [[self.vocabulary.action(text) for text in row] for row in candidates])

    def encode(self, states: Sequence[TextState]) -> list[EncodedState]:
        return [EncodedState(self.vocabulary.encode(state.prompt), state) for state in states]

    @torch.no_grad()
    def decide(self, states: Sequence[EncodedState]) -> Policy:
        """softmax(Q) over each state's candidates, and the largest Q as the value."""
        q = self.q_values([state.pieces for state in states], [state.text.candidates for state in states]).cpu()
        policy = Policy(F.log_softmax(q, dim=1).numpy(), q.max(dim=1).values.numpy())
        check_policy(policy.log_probs, policy.values, [state.text.prompt for state in states])
        return policy

    def save(self, folder: Path) -> None:
        """Write weights and vocabulary."""
        save_file({name: tensor.cpu() for name, tensor in self.network.state_dict().items()}, folder / WEIGHTS)
        (folder / VOCABULARY).write_bytes(self.vocabulary.model)

    def load(self, folder: Path) -> None:
        """Read the weights of a checkpoint.

        Raises:
            UserError: they belong to another vocabulary or to a network of another shape.
        """
        if (folder / VOCABULARY).read_bytes() != self.vocabulary.model:
            raise UserError(
                f"{folder} was trained with another sentencepiece model than that of rl_script_args.spm_path: give its "
                f"own, {folder / VOCABULARY}"
            )
        try:
            self.network.load_state_dict(load_file(folder / WEIGHTS))
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{folder} holds a network of another shape: give the rl_script_args.drrn.embedding and .hidden it was "
                f"trained with ({reason})"
            ) from error


class DRRNTestAgent:
    """The policy without learning; its values are the largest Q."""

    name: ClassVar[str] = "drrn"
    env_wrapper: ClassVar[Any] = None

    def __init__(self, policy: DRRNPolicy) -> None:
        self.policy = policy

    def decide(self, views: Sequence[View]) -> Policy:
        return self.policy.decide(self.policy.encode([view.text for view in views]))

    def begin(self, rl: RLScriptArgs, test: str) -> None:
        pass

    def close(self) -> None:
        pass
