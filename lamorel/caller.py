"""The client that an RL script holds."""

import logging
import os
import warnings
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lamorel.config import LamorelConfig, LamorelConfigError, parse_config
from lamorel.initializer import BaseModelInitializer, SequentialInitializer
from lamorel.module_function import BaseModuleFunction
from lamorel.updater import BaseUpdater
from lamorel.worker import Worker


def lamorel_init() -> None:
    """Joins the process group of the launcher that started this process; does nothing where none did."""
    _refuse_launched()


def _refuse_launched() -> None:
    if "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RuntimeError(
            f"this process was launched as rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']}, and Lamorel runs "
            f"the LLM in the RL script's own process: start the script by itself, with plain python"
        )


class Caller:
    """A language model for an RL script: scores, generates, runs heads, learns.

    Args:
        config: the `lamorel_args` tree (README.md lists its keys).
        custom_updater: what `update` runs.
        custom_module_functions: heads by name.
        custom_model_initializer: changes the model once heads are registered; one, or a sequence applied in order.

    Raises:
        LamorelConfigError: a value of `config` is wrong, or asks for what this machine does not have.

    Also a context manager; closed at interpreter exit. Callers can be made and closed one after another.
    """

    def __init__(
        self,
        config: Any,
        custom_updater: BaseUpdater | None = None,
        custom_module_functions: Mapping[str, BaseModuleFunction] | None = None,
        custom_model_initializer: BaseModelInitializer | Sequence[BaseModelInitializer] | None = None,
    ) -> None:
        parsed = parse_config(config)
        logging.getLogger("lamorel").setLevel(parsed.log_level.upper())
        _refuse_launched()
        _check_processes(parsed)
        initializer = custom_model_initializer
        if isinstance(initializer, Sequence):
            initializer = SequentialInitializer(initializer)
        worker = Worker(parsed, custom_updater, custom_module_functions or {}, initializer)
        self._worker: Worker | None = worker
        # Runs once: by close, when this Caller is collected, or at interpreter exit.
        self._finalizer = weakref.finalize(self, worker.close)

    def score(
        self,
        contexts: Sequence[str],
        candidates: Sequence[Sequence[str]],
        additional_module_function_keys: Sequence[str] = (),
        **kwargs: Any,
    ) -> list[Any]:
        """Log-likelihood of every candidate after its context.

        Args:
            contexts: C texts.
            candidates: per context its K_c >= 1 candidates.
            additional_module_function_keys: functions (and built-in keys) to run as well.
            **kwargs: handed to those functions.

        Returns:
            Per context a CPU tensor (K_c,) fp32: the sum over the candidate's tokens of log p(token | context, tokens
            before it), natural logarithm, no special tokens added; 0 for an empty candidate. With additional keys,
            per context a dict: `__score` and these keys.
        """
        keys = ["__score", *additional_module_function_keys]
        outputs = self._open.outputs(list(dict.fromkeys(keys)), contexts, candidates, kwargs)
        return outputs if len(keys) > 1 else [output["__score"] for output in outputs]

    def custom_module_fns(
        self,
        module_function_keys: Sequence[str],
        contexts: Sequence[str],
        candidates: Sequence[Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> list[dict[str, torch.Tensor]]:
        """Runs module functions: per context a dict of CPU tensors with K_c rows; one row without candidates."""
        return self._open.outputs(module_function_keys, contexts, candidates, kwargs)

    def generate(
        self, contexts: Sequence[str], return_logprobs: bool = False, **hf_generate_kwargs: Any
    ) -> list[list[dict[str, Any]]]:
        """Continues each context; per context a list of dicts, see `lamorel.generation.generate`."""
        return self._open.generate(contexts, return_logprobs, hf_generate_kwargs)

    def update(self, contexts: Sequence[str], candidates: Sequence[list[str]], **kwargs: Any) -> list[Any]:
        """Runs the updater; a list with what `perform_update` returned in each LLM process."""
        return self._open.update(contexts, candidates, kwargs)

    def save(self, folder: str | Path) -> None:
        """Writes model, tokenizer, heads and optimizer into `folder`; see `lamorel.checkpoint`."""
        self._open.save(folder)

    def load(self, folder: str | Path) -> None:
        """Restores what `save` wrote into the live model, in place; see `lamorel.checkpoint`."""
        self._open.load(folder)

    def close(self) -> None:
        """Lets go of the model. Closing twice is allowed."""
        self._worker = None
        self._finalizer()

    def __enter__(self) -> "Caller":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _open(self) -> Worker:
        if self._worker is None:
            raise RuntimeError("this Caller is closed")
        return self._worker


def _check_processes(config: LamorelConfig) -> None:
    wanted = config.distributed_setup_args.n_llm_processes
    key = "lamorel_args.distributed_setup_args.n_llm_processes"
    if wanted == 0:
        raise LamorelConfigError(f"{key} is 0, so no LLM is wanted: do not make a Caller")
    if wanted > 1:
        warnings.warn(f"{key} is {wanted}, but without a launcher one LLM is used, in this process", stacklevel=3)
