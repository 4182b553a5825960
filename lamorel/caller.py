"""The client that an RL script holds."""

import logging
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lamorel.config import LamorelConfig, LamorelConfigError, parse_config
from lamorel.distributed.client import Client
from lamorel.distributed.joining import lamorel_init, world_store
from lamorel.distributed.launched import SETUP_KEY, launched_world
from lamorel.distributed.server import serve
from lamorel.initializer import BaseModelInitializer, SequentialInitializer
from lamorel.module_function import BaseModuleFunction
from lamorel.updater import BaseUpdater
from lamorel.worker import Worker

logger = logging.getLogger(__name__)


class Caller:
    """A language model for an RL script: scores, generates, runs heads, learns.

    Args:
        config: the `lamorel_args` tree (README.md lists its keys).
        custom_updater: what `update` runs.
        custom_module_functions: heads by name.
        custom_model_initializer: changes the model once heads are registered; one, or a sequence applied in order.

    Raises:
        LamorelConfigError: a value of `config` is wrong, or asks for what this machine does not have.
        SystemExit: in a launched LLM process, once the RL processes have closed; there the constructor serves and
            never returns.

    Started by itself, a process holds the LLM; Callers can then be made and closed one after another. Started by a
    launcher, RL processes make one Caller each, which sends its requests to the LLM processes (README.md). Also a
    context manager; closed at interpreter exit.
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
        _check_llm_is_wanted(parsed)
        if parsed.updater_args:
            names = ", ".join(map(str, parsed.updater_args))
            logger.warning("lamorel_args.updater_args is ignored: give %s to the constructor of your updater", names)
        initializer = custom_model_initializer
        if isinstance(initializer, Sequence):
            initializer = SequentialInitializer(initializer)
        functions = custom_module_functions or {}
        world = launched_world(parsed.distributed_setup_args)
        worker: Worker | Client
        if world is None:
            _warn_of_one_process(parsed)
            worker = Worker(parsed, custom_updater, functions, initializer)
            at_exit: Callable[[], None] = worker.close
        else:
            lamorel_init()
            if world.is_llm:
                serve(parsed, world, world_store(), custom_updater, functions, initializer)
            worker = Client(parsed, world, world_store())
            # Other RL processes may go on for long.
            at_exit = partial(worker.close, wait=world.n_rl == 1)
        self._worker: Worker | Client | None = worker
        self._has_updater = custom_updater is not None
        # When this Caller is collected, or at interpreter exit.
        self._finalizer = weakref.finalize(self, at_exit)

    def score(
        self,
        contexts: Sequence[str],
        candidates: Sequence[Sequence[str]],
        additional_module_function_keys: Sequence[str] = (),
        **kwargs: Any,
    ) -> list[Any]:
        """Log-likelihood of every candidate after its context.

        Args:
            contexts: C texts, in a list or a numpy array.
            candidates: per context its K_c >= 0 candidates, likewise; `[]` gives no context any.
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

    def update(
        self, contexts: Sequence[str | None], candidates: Sequence[Sequence[str | None]] | None, **kwargs: Any
    ) -> Any:
        """Runs the updater.

        Args:
            contexts: C texts, divided among the LLM processes. Texts that are empty or None make a control message:
                each LLM process gets as many as the others, one of them where there are as many as LLM processes.
            candidates: per context its candidates; None is handed on as None.
            **kwargs: handed to `perform_update`, whole.

        Returns:
            A list with what `perform_update` returned in each LLM process that had a share. Without an updater, None,
            after a warning.
        """
        worker = self._open
        if not self._has_updater:
            warnings.warn("update does nothing without an updater: Caller(config, custom_updater=...)", stacklevel=2)
            return None
        contexts = _plain(contexts)
        groups = None
        if candidates is not None:
            groups = [_plain(group) for group in candidates] or [[] for _ in contexts]
        if groups is not None and len(groups) != len(contexts):
            raise ValueError(f"update: {len(contexts)} contexts, but {len(groups)} lists of candidates")
        return worker.update(contexts, groups, kwargs)

    def save(self, folder: str | Path, merge_adapters: bool = False) -> None:
        """Writes model, tokenizer, heads and optimizer into `folder`; see `lamorel.checkpoint`.

        Args:
            merge_adapters: write plain model weights with the adapters merged in, which load without peft, and no
                optimizer. The live model stays as it is.
        """
        self._open.save(folder, merge_adapters)

    def load(self, folder: str | Path) -> None:
        """Restores what `save` wrote into the live model, in place; see `lamorel.checkpoint`."""
        self._open.load(folder)

    @cached_property
    def accelerator(self) -> Any:
        """An `accelerate.Accelerator`, for its view of the launched processes."""
        from accelerate import Accelerator

        return Accelerator()

    def close(self) -> None:
        """Lets go of the model, or ends the LLM processes; returns when that is done. Closing twice is allowed.

        Raises:
            WaitTimeoutError: launched, another RL process did not close within `gloo_timeout`, or an LLM process did
                not end.
        """
        worker, self._worker = self._worker, None
        if worker is not None:
            self._finalizer.detach()
            worker.close()

    def __enter__(self) -> "Caller":
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if error is None:
            self.close()
        else:  # other RL processes may never come to close
            self._worker = None
            self._finalizer()

    @property
    def _open(self) -> Worker | Client:
        if self._worker is None:
            raise RuntimeError("this Caller is closed")
        return self._worker


def _plain(values: Sequence[Any]) -> list[Any]:
    """A sequence or numpy array as a list."""
    return values.tolist() if isinstance(values, np.ndarray) else list(values)


def _check_llm_is_wanted(config: LamorelConfig) -> None:
    if config.distributed_setup_args.n_llm_processes == 0:
        raise LamorelConfigError(f"{SETUP_KEY}.n_llm_processes is 0, so no LLM is wanted: do not make a Caller")


def _warn_of_one_process(config: LamorelConfig) -> None:
    wanted = config.distributed_setup_args.n_llm_processes
    if wanted > 1:
        key = f"{SETUP_KEY}.n_llm_processes"
        warnings.warn(f"{key} is {wanted}, but without a launcher one LLM is used, in this process", stacklevel=3)
