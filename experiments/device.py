"""The devices that a configuration asks for."""

from __future__ import annotations

from experiments.configuration import Config
from experiments.errors import UserError


def check_gpu(config: Config) -> None:
    """Raises UserError where a GPU is asked for and there is none; imports torch only then, and transformers never."""
    if not config.lamorel.llm_args.parallelism.use_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        raise UserError(
            "lamorel_args.llm_args.parallelism.use_gpu=true: torch finds no CUDA GPU, set it to false (machine=cpu), "
            "or install a CUDA build of torch on a machine with a GPU"
        )
