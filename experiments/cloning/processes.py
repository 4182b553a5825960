"""The processes of a cloning run."""

from __future__ import annotations

import os

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from experiments.cloning.options import CloningOptions
from experiments.errors import UserError


def make_accelerator(options: CloningOptions) -> Accelerator:
    """The processes that the launcher started, joined.

    Raises:
        UserError: there are not as many as the launcher was asked for, or they would share one model's weights out.
    """
    launched = os.environ.get("WORLD_SIZE")
    # accelerate's launcher knows several CPU processes with MPI alone, sets these two and starts one process
    if launched is None and "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_ADDR" in os.environ:
        raise UserError(
            "accelerate launch was asked for several processes and started one: on CPUs use "
            "ACCELERATE_USE_CPU=true torchrun --standalone --nproc_per_node N experiments/clm_behavioral-cloning.py"
        )
    # without cpu=True, accelerate leaves torchrun's CPU processes alone, each in a world of its own
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(), mixed_precision="bf16" if options.dtype == "bf16" else "no"
    )
    if launched is not None and accelerator.num_processes != int(launched):
        raise UserError(
            f"the launcher promised WORLD_SIZE={launched} processes, but accelerate found {accelerator.num_processes}: "
            "start them with torchrun or accelerate launch"
        )
    known = (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)
    if accelerator.distributed_type not in known:
        raise UserError(
            f"accelerate is configured for {accelerator.distributed_type.value}, but every process holds the whole "
            "model here: use torchrun, or accelerate launch --multi_gpu"
        )
    return accelerator
