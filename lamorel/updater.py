"""Base of user code that trains the model."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from lamorel.config import LLM_KEY

LossFunction = Callable[..., Any]


class BaseUpdater(ABC):
    """Base of `Caller(custom_updater=...)`.

    `self._llm_module(keys, contexts=..., candidates=..., require_grad=True, minibatch_size=None, **kwargs)` runs the
    model with gradients and returns what `Caller.custom_module_fns` does, on the model's device; `"__score"` is the
    built-in key. `self._llm_module.module` holds `_LLM_model` and `_module_functions`. `self._llm_module.parameters()`
    are what an optimizer takes. `self._llm_module.mean_over_batch(means)` makes means over the whole batch out of those
    over this process's share, (n,), for decisions that must be the same in all processes, such as to drop a step; every
    process with a share calls it at the same place.

    An optimizer kept in the attribute `optimizer` is saved and restored with the checkpoint, also when it is made as
    late as in the first `perform_update`. An updater with more state, or another place for it, defines `state_dict()`
    and `load_state_dict(state)` instead (tensors, numbers, strings, lists and dicts). Where an entry of that state has
    the name of an attribute that is an optimizer, it is checked against it before anything is loaded.

    Attributes:
        tokens_per_chunk: token budget of one chunk of `accumulate`, contexts and candidates together; None:
            `llm_args.tokens_per_chunk`.
    """

    tokens_per_chunk: int | None = None

    _llm_module: Any = None
    _pending_optimizer_state: dict[str, Any] | None = None

    def set_llm_module(self, llm_module: Any) -> None:
        """Called once, before `setup`, with what `self._llm_module` is from then on."""
        self._llm_module = llm_module

    def setup(self) -> None:  # noqa: B027 (a hook that need not be used)
        """Called once, when `self._llm_module` is ready and before any update: the place to make an optimizer."""

    @abstractmethod
    def perform_update(self, contexts: list[str], candidates: Any, _current_batch_ids: list[int], **kwargs: Any) -> Any:
        """One update, with a loss that is a mean over `contexts`.

        Args:
            contexts: this process's share of the batch.
            candidates: per context of the share a list of texts; None where `Caller.update` was given None.
            _current_batch_ids: positions of the share in the whole batch; `kwargs["x"][_current_batch_ids]` aligns
                with `contexts`.
            **kwargs: what the caller of `Caller.update` gave, whole.

        Returns:
            Anything; `Caller.update` returns it in a list with one entry per LLM process.
        """

    def accumulate(
        self,
        loss_fn: LossFunction,
        keys: Sequence[str],
        contexts: Sequence[str],
        candidates: Sequence[Sequence[str]] | None,
        **rows: Any,
    ) -> Any:
        """Back-propagates a mean of per-sample losses, chunk by chunk, so that memory holds one chunk's graph.

        The gradients added to the parameters are those of `losses.mean()` in one graph. They are not zeroed before,
        and no optimizer step is made. Where a loss is not finite, all gradients become NaN, also those that would be
        finite: in every process, as gradients are shared, so that all can do the same about it.

        Args:
            loss_fn: `loss_fn(outputs, **rows)` -> (n,) losses of the n samples of a chunk, or these and a NamedTuple of
                other tensors (n,). `outputs` is a list of n dicts as `self._llm_module` returns them; `rows` are the
                given ones, cut to the same n samples.
            keys, contexts, candidates: as for `self._llm_module`.
            **rows: per-sample data, indexed along the first axis by the position in `contexts`: tensors (moved to the
                model's device), numpy arrays or lists.

        Returns:
            The losses, detached, (len(contexts),), in the order of `contexts`; with the NamedTuple as a pair, if
            `loss_fn` gives one.

        Raises:
            ValueError: a row has another length than `contexts`, or a loss another shape than (n,).
        """
        total = len(contexts)
        _check_rows(rows, total)
        order: list[int] = []
        parts: list[tuple[torch.Tensor, ...]] = []  # per chunk the losses and the NamedTuple's fields
        others: Any = None
        with self._llm_module.one_exchange():
            tokens = self.tokens_per_chunk or self._llm_module.module.tokens_per_chunk
            for chunk in self._llm_module.module.chunks(keys, contexts, candidates, tokens):
                try:
                    loss, others = self._chunk_losses(chunk, loss_fn, keys, contexts, candidates, rows)
                    (loss.sum() / total).backward()
                except torch.cuda.OutOfMemoryError as error:
                    error.add_note(f"{LLM_KEY}.tokens_per_chunk is {tokens} here: lower it")
                    raise
                order += chunk
                parts.append(tuple(tensor.detach() for tensor in (loss, *(others or ()))))
            if not parts:
                return torch.empty(0)
            places = torch.tensor(order).argsort()
            joined = [torch.cat(column) for column in zip(*parts, strict=True)]
            losses, *fields = [column[places.to(column.device)] for column in joined]
            if not torch.isfinite(losses.sum()):
                self._llm_module.spoil_gradients()
        return losses if others is None else (losses, type(others)(*fields))

    def _chunk_losses(
        self,
        chunk: list[int],
        loss_fn: LossFunction,
        keys: Sequence[str],
        contexts: Sequence[str],
        candidates: Sequence[Sequence[str]] | None,
        rows: Mapping[str, Any],
    ) -> tuple[torch.Tensor, Any]:
        """Losses (n,) of the n samples at the positions `chunk` of the share, with their graph, and the NamedTuple that
        `loss_fn` gives beside them, or None."""
        outputs = self._llm_module(
            keys,
            contexts=[contexts[i] for i in chunk],
            candidates=None if candidates is None else [candidates[i] for i in chunk],
            require_grad=True,
        )
        device = next(iter(outputs[0].values())).device
        given = loss_fn(outputs, **{name: _take(row, chunk, device) for name, row in rows.items()})
        losses, others = given if isinstance(given, tuple) else (given, None)
        if losses.shape != (len(chunk),):
            raise ValueError(f"accumulate: the losses of {len(chunk)} samples have shape {tuple(losses.shape)}")
        return losses, others

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        # A checkpoint was loaded before this updater made its optimizer: hand it its state now.
        if name == "optimizer" and value is not None and self._pending_optimizer_state is not None:
            value.load_state_dict(self._pending_optimizer_state)
            self._pending_optimizer_state = None


def updater_state(updater: BaseUpdater | None) -> dict[str, Any] | None:
    """State of the updater, where it has one to keep."""
    if updater is None:
        return None
    if hasattr(updater, "state_dict"):
        return updater.state_dict()
    optimizer = getattr(updater, "optimizer", None)
    # Restored, but the updater has not made its optimizer yet: what was restored is still its state.
    return updater._pending_optimizer_state if optimizer is None else optimizer.state_dict()


def restore_updater(updater: BaseUpdater, state: dict[str, Any]) -> None:
    """Hands `updater_state`'s result back, at once or as soon as the updater makes its optimizer."""
    if hasattr(updater, "load_state_dict"):
        updater.load_state_dict(state)
    elif getattr(updater, "optimizer", None) is not None:
        updater.optimizer.load_state_dict(state)  # type: ignore[attr-defined]
    else:
        updater._pending_optimizer_state = state


def _check_rows(rows: Mapping[str, Any], total: int) -> None:
    for name, row in rows.items():
        if len(row) != total:
            raise ValueError(f"accumulate: row {name!r} has {len(row)} entries for {total} contexts")


def _take(row: Any, chunk: list[int], device: torch.device) -> Any:
    """Entries `chunk` of per-sample data."""
    if isinstance(row, torch.Tensor):
        return row[torch.tensor(chunk, device=row.device)].to(device)
    if isinstance(row, Mapping):
        return {name: _take(part, chunk, device) for name, part in row.items()}
    return [row[i] for i in chunk] if isinstance(row, Sequence) else row[chunk]
