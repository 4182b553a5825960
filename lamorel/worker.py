"""Owns the model, its heads and the updater, and answers one request at a time.

Every public method is one message of the RL script: plain data in, plain data and CPU tensors out. `Caller` sends
them to a worker in its own process, or an LLM process's server does.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from lamorel import checkpoint
from lamorel.config import LamorelConfig
from lamorel.generation import generate
from lamorel.initializer import BaseModelInitializer
from lamorel.llm import BUILTIN_KEYS, LLMModule, Outputs
from lamorel.loading import load_model, load_tokenizer, read_config, seeded
from lamorel.module_function import BaseModuleFunction
from lamorel.placement import check_device, choose_dtype, input_device
from lamorel.tokenization import TextEncoder
from lamorel.updater import BaseUpdater
from lamorel.vocabulary import rows

logger = logging.getLogger(__name__)

_NAMES = torch.nn.ModuleDict()  # holds functions by name; its own attributes are no names for them


class LocalModule(torch.nn.Module):
    """What an updater calls: the LLM module, reached by `.module` as in DistributedDataParallel."""

    def __init__(self, module: LLMModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> list[Outputs]:
        return self.module(*args, **kwargs)

    def one_exchange(self) -> AbstractContextManager[None]:
        """Around backward passes whose gradients belong together; here there is nobody to exchange them with."""
        return nullcontext()

    def mean_over_batch(self, means: torch.Tensor) -> torch.Tensor:
        """Means over the whole batch of an update out of means over the share of this process, which is the batch."""
        return means

    def spoil_gradients(self) -> None:
        """Make every gradient NaN that the backward passes have added to."""
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad.fill_(float("nan"))


class Worker:
    """One LLM process's state.

    Args:
        wrap: puts around the module what an updater calls.
    """

    def __init__(
        self,
        config: LamorelConfig,
        updater: BaseUpdater | None,
        functions: Mapping[str, BaseModuleFunction],
        initializer: BaseModelInitializer | None,
        wrap: Callable[[LLMModule], LocalModule] = LocalModule,
    ) -> None:
        _check_functions(functions)
        self._parallelism = config.llm_args.parallelism
        device = check_device(config.llm_args)
        args = choose_dtype(config.llm_args, device, updates=updater is not None)
        llm_config = read_config(args)
        encoder = TextEncoder(load_tokenizer(args), add_bos=args.add_bos, candidate_prefix=args.candidate_prefix)
        model = load_model(args, llm_config, device)
        with seeded(args.seed, "heads"):
            for function in functions.values():
                function.device = input_device(model)
                function.llm_config = model.config
                function.initialize()
            module: Any = LLMModule(model, encoder, dict(functions), args)
            if initializer is not None:
                module = initializer.initialize_model(module)
        encoder.fit_to(rows(module._LLM_model))  # which an initializer may have resized
        self._llm = wrap(module.eval())
        self._updater = updater
        if updater is not None:
            updater.set_llm_module(self._llm)
            updater.setup()
        logger.info("loaded %s (%s, %s)", args.model_path, type(model).__name__, device)

    @property
    def model(self) -> Any:
        """The Hugging Face model."""
        return self._llm.module._LLM_model

    def outputs(
        self,
        keys: Sequence[str],
        contexts: Sequence[str],
        candidates: Sequence[Sequence[str]] | None,
        kwargs: Mapping[str, Any],
    ) -> list[Outputs]:
        """Built-in keys and module functions, without gradient; per context a dict of CPU tensors."""
        results = self._llm(keys, contexts=contexts, candidates=candidates, **kwargs)
        results = [{key: value.cpu() for key, value in result.items()} for result in results]
        self._after_scoring()
        return results

    def generate(
        self, contexts: Sequence[str], return_logprobs: bool, kwargs: Mapping[str, Any]
    ) -> list[list[dict[str, Any]]]:
        """Texts that continue the contexts."""
        return generate(self._llm.module, contexts, return_logprobs=return_logprobs, options=dict(kwargs))

    def update(
        self,
        contexts: Sequence[str],
        candidates: Sequence[list[str]] | None,
        kwargs: Mapping[str, Any],
        batch_ids: Sequence[int] | None = None,
    ) -> list[Any]:
        """What the updater returns, in a list with one entry per LLM process that had a share.

        Args:
            batch_ids: positions of the given contexts in the whole batch; None where they are the whole batch.
        """
        assert self._updater is not None
        if len(contexts) == 0:
            return []
        ids = list(range(len(contexts)) if batch_ids is None else batch_ids)
        groups = None if candidates is None else list(candidates)
        with self._llm.module.weights_changing():
            result = self._updater.perform_update(list(contexts), groups, _current_batch_ids=ids, **kwargs)
        if self._updater._pending_optimizer_state is not None:
            raise RuntimeError(
                f"{type(self._updater).__name__} was updated without the optimizer state of the loaded checkpoint: "
                f"keep the optimizer in the attribute `optimizer`, or define state_dict and load_state_dict"
            )
        return [result]

    def save(self, folder: str | Path, merge_adapters: bool = False) -> None:
        """Writes the LLM side of a checkpoint into `folder`, made if need be."""
        checkpoint.save(Path(folder), self._llm.module, self._updater, merge_adapters=merge_adapters)

    def load(self, folder: str | Path) -> None:
        """Restores what `save` wrote, in place."""
        checkpoint.load(Path(folder), self._llm.module, self._updater)
        self._llm.module.weights_changed()

    def close(self) -> None:
        """Lets go of the model, so that another one fits into memory."""
        if self._updater is not None:
            self._updater._llm_module = None
        del self._llm, self._updater
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def _after_scoring(self) -> None:
        if self._parallelism.use_gpu and self._parallelism.synchronize_gpus_after_scoring:
            torch.cuda.synchronize()
        if self._parallelism.use_gpu and self._parallelism.empty_cuda_cache_after_scoring:
            torch.cuda.empty_cache()


def _check_functions(functions: Mapping[str, BaseModuleFunction]) -> None:
    """Raises TypeError or ValueError for module functions that cannot be registered, before any model is loaded."""
    for name, function in functions.items():
        if not isinstance(function, torch.nn.Module):
            raise TypeError(
                f"custom_module_functions[{name!r}]: expected an instance of BaseModuleFunction, got {function!r:.200}"
            )
        if not isinstance(name, str) or not name or "." in name or name in BUILTIN_KEYS or hasattr(_NAMES, name):
            raise ValueError(
                f"custom_module_functions: {name!r} cannot be the name of a function, because it is empty, has a dot "
                f"or means something else already: choose another"
            )
