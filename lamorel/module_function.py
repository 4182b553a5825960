"""User heads: modules that run on the model's outputs and are trained with it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch


class BaseModuleFunction(torch.nn.Module, ABC):
    """Base of functions registered by name in `Caller(custom_module_functions={name: function})`.

    Attributes:
        device: where the model's outputs lie and where parameters must be created; set before `initialize`.
        llm_config: the Hugging Face configuration; `llm_config.hidden_size` works for every architecture (T5's
            `d_model` and GPT-2's `n_embd` answer to it). Set before `initialize`.
        context_only: the function depends on the context alone (a value head). It then runs once per context and
            sees one position, index 0: the decoder's start token, or the last context token of a decoder-only model.
        adapters: False runs the function on the base model's outputs, adapters disabled, without gradient into the
            model; the function's own parameters are still trained.
        right_padded: with `context_only`, of decoder-only models: the function sees, in place of a context's last
            token, the last position of all contexts of the call, right-padded to the longest with id 0. Of a shorter
            one that is padding, and the result depends on what else is in the call: for comparison with code that reads
            there.
    """

    context_only: ClassVar[bool] = False
    adapters: ClassVar[bool] = True
    right_padded: ClassVar[bool] = False

    device: torch.device
    llm_config: Any

    def initialize(self) -> None:
        """Creates the parameters; called once, with the random state seeded by `llm_args.seed`."""

    @abstractmethod
    def forward(
        self,
        forward_outputs: Mapping[str, Any],
        minibatch: Mapping[str, torch.Tensor],
        tokenized_contexts: Sequence[Mapping[str, list[int]]],
        **kwargs: Any,
    ) -> torch.Tensor:
        """One row per (context, candidate) pair of the minibatch; per context where `context_only`.

        Args:
            forward_outputs: `logits` (rows, positions, vocabulary) and a tuple over layers, `decoder_hidden_states`
                (encoder-decoder) or `hidden_states` (decoder-only), each (rows, positions, hidden).
            minibatch: `decoder_input_ids` (encoder-decoder) or `input_ids` (decoder-only) and their masks,
                (rows, positions). README.md says which positions.
            tokenized_contexts: per row `input_ids` and `attention_mask` of its context.
            **kwargs: what the caller of `score`, `custom_module_fns` or `_llm_module` gave beside the inputs, whole.
        """
