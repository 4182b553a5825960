"""NPAE and NPE: random weights, but the token embeddings of the pretrained model."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModel

from experiments.errors import UserError
from lamorel import BaseModelInitializer
from lamorel.loading import model_location, quiet


class EmbeddingInitializer(BaseModelInitializer):
    """Copies the token embeddings of a pretrained model into a model with random weights.

    Args:
        model_path: local folder or hub id of the pretrained model, safetensors or bin.
    """

    def __init__(self, model_path: str) -> None:
        super().__init__()
        self.model_path = model_path

    def initialize_model(self, model: Any) -> Any:
        """Raises UserError where the two embeddings differ in shape."""
        target = model._LLM_model.get_input_embeddings().weight
        with quiet():
            pretrained = AutoModel.from_pretrained(model_location(self.model_path), dtype=torch.float32)
        source = pretrained.get_input_embeddings().weight
        if source.shape != target.shape:
            raise UserError(
                f"{self.model_path}: its embeddings are {tuple(source.shape)}, the model's are {tuple(target.shape)}; "
                "choose a model_path of the same architecture or load_embedding=false"
            )
        with torch.no_grad():
            target.copy_(source)
        return model
