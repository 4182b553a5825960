"""NPAE and NPE: random weights, but the token embeddings of the pretrained model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from experiments.errors import UserError
from lamorel import BaseModelInitializer
from lamorel.config import LLMArgs
from lamorel.loading import load_model, model_type_of, read_any_config
from lamorel.vocabulary import input_embeddings


class EmbeddingInitializer(BaseModelInitializer):
    """Copies the token embeddings of a pretrained model into a model with random weights.

    An output head that is a matrix of its own keeps its weights.

    Args:
        model_path: of the pretrained model, as in `llm_args`.
    """

    def __init__(self, model_path: str) -> None:
        super().__init__()
        self.model_path = model_path

    def initialize_model(self, model: Any) -> Any:
        """Raises UserError where the two embeddings differ in shape."""
        args = LLMArgs(model_path=self.model_path)
        config = read_any_config(args)
        pretrained = load_model(replace(args, model_type=model_type_of(config)), config, torch.device("cpu"))
        sources = [embedding.weight for embedding in input_embeddings(pretrained)]
        targets = [embedding.weight for embedding in input_embeddings(model._LLM_model)]
        for source, target in zip(sources, targets, strict=True):
            if source.shape != target.shape:
                raise UserError(
                    f"{self.model_path}: its embeddings are {tuple(source.shape)}, the model's are "
                    f"{tuple(target.shape)}; choose a model_path of the same architecture or load_embedding=false"
                )
            with torch.no_grad():
                target.copy_(source)
        return model
