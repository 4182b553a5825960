"""User hooks that change the model once it is built: freeze weights, add adapters, load a checkpoint."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch


class BaseModelInitializer(ABC):
    """Base of `Caller(custom_model_initializer=...)`."""

    @abstractmethod
    def initialize_model(self, model: torch.nn.Module) -> torch.nn.Module:
        """The model to use, usually `model` itself, changed.

        Args:
            model: the whole module: `model._LLM_model` is the Hugging Face model, `model._module_functions` the
                heads by name, already initialised.
        """


class SequentialInitializer(BaseModelInitializer):
    """Several initializers, applied in order."""

    def __init__(self, initializers: Sequence[BaseModelInitializer]) -> None:
        self._initializers = list(initializers)

    def initialize_model(self, model: torch.nn.Module) -> torch.nn.Module:
        for initializer in self._initializers:
            model = initializer.initialize_model(model)
        return model
