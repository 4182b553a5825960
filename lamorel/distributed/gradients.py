"""One gradient out of the shares of all LLM processes.

After a user's `loss.backward()`, with a loss that is a mean over the process's share, `.grad` is on every process

    sum over processes i of  share_i / batch * grad_i

which is the gradient of the mean over the whole batch. Not torch's DistributedDataParallel, which takes the plain mean
over processes, and expects of each the same number of backward passes, one forward before each, and a share. Here
several forwards may come before one backward (DDP's second forward resets its buckets); a share may be worked off in
more or fewer backward passes than elsewhere, or be empty; and many chunks may be accumulated before one exchange.

Every exchange begins with a small sum of flags over all LLM processes: who takes part, who has failed, which parameters
have a new gradient anywhere. A process that has finished its share, or has none, keeps answering, with weight 0, until
all have finished. What an earlier exchange left in `.grad`, equal on all, is set aside during a backward pass, and only
what the pass adds is exchanged. Where the pass begins with no gradient it is a step of those that take part, whose
weights are scaled up to 1; where it adds to a gradient, the weights stay those of the whole batch. Whoever did not take
part in every exchange receives the parameters, the updater's state and the gradients at the end: processes are always
equal between updates.

Numbers are exchanged in the same rounds: `mean_over_batch` is a round in which all processes with a share take part and
no gradients go, and those without one, which keep answering, add nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch

from lamorel.distributed.llm_group import GROUP_ERRORS, LLMGroup, buckets
from lamorel.llm import LLMModule, Outputs
from lamorel.updater import BaseUpdater, restore_updater, updater_state
from lamorel.worker import LocalModule


class _Round(NamedTuple):
    """What the flags say that begin an exchange."""

    taking_part: list[int]  # processes
    averaged: list[int]  # per process the numbers that it brings to `mean_over_batch`, 0 for an exchange of gradients
    with_gradient: list[int]  # per parameter the processes that have a new gradient of it
    without: list[int]  # per parameter the processes that lack any


class SharedModule(LocalModule):
    """What an updater calls, when several processes hold the same module.

    Args:
        unused_allowed: parameters may be left without gradient by a backward pass
            (`allow_subgraph_use_whith_gradient`).
    """

    def __init__(self, module: LLMModule, group: LLMGroup, *, unused_allowed: bool) -> None:
        super().__init__(module)
        self._group = group
        self._unused_allowed = unused_allowed
        self._named_parameters: list[tuple[str, torch.nn.Parameter]] = []
        self._hooked: set[torch.nn.Parameter] = set()
        self._new: set[torch.Tensor] = set()  # with a gradient that has not been exchanged
        self._set_aside: dict[torch.Tensor, torch.Tensor] = {}  # what was exchanged before, without the new part
        self._changed: set[torch.Tensor] = set()  # by this update, perhaps
        self._shares: list[int] = []
        self._missed: set[int] = set()  # processes that are not up to date
        self._last_active: list[int] = []
        self._updating = False
        self._suspended = False
        self._backward_pass = -1  # the one at whose end an exchange is due
        group.agree()  # that there is a module everywhere
        if next(module.parameters()).is_cuda:
            group.use_nccl()
        group.broadcast([*self._trainable_tensors(), *module.buffers()], source=0)

    def forward(self, *args: Any, **kwargs: Any) -> list[Outputs]:
        self._watch_trainable()  # an updater may freeze and thaw parameters
        return super().forward(*args, **kwargs)

    @contextmanager
    def update(self, shares: Sequence[int], updater: BaseUpdater | None) -> Iterator[None]:
        """Around one update: backward passes exchange gradients, and in the end processes are equal.

        Args:
            shares: samples per LLM process.

        Raises:
            PeerFailedError: another process failed.
        """
        self._begin(shares)
        try:
            yield
            while self._exchange(active=False):
                pass
            if self._missed:
                self._synchronise(updater)
                self._flags(active=False)  # that all have managed
        except GROUP_ERRORS:
            raise
        except BaseException:
            self._tell_failure()
            raise
        finally:
            self._updating = False
            self._new.clear()
            self._set_aside.clear()
            self.module.weights_changed()

    @contextmanager
    def one_exchange(self) -> Iterator[None]:
        """Any number of backward passes, and one exchange at the end."""
        self._suspended = True
        try:
            yield
        finally:
            self._suspended = False
        if self._updating:
            self._exchange(active=True)

    def mean_over_batch(self, means: torch.Tensor) -> torch.Tensor:
        """Means over the whole batch of an update, the same in every process.

        Every process with a share calls it at the same place, between the same backward passes.

        Args:
            means: (n,) over the share of this process, n at least 1.

        Returns:
            (n,) on the CPU, fp64.
        """
        sums = means.detach().cpu().double() * self._shares[self._group.index]
        self._add_sums(self._flags(active=True, averaged=len(sums)), sums)
        return sums / sum(self._shares)

    def spoil_gradients(self) -> None:
        """Those that are not exchanged yet: the exchange makes them NaN in every process."""
        for parameter in self._new:
            if parameter.grad is not None:
                parameter.grad.fill_(float("nan"))

    def _begin(self, shares: Sequence[int]) -> None:
        self._shares = list(shares)
        self._missed = {i for i, share in enumerate(shares) if share == 0}
        self._last_active = [0]  # LLM process 0 has a share always
        self._named_parameters = list(self.module.named_parameters())
        self._new.clear()
        self._set_aside.clear()
        self._changed = {parameter for _, parameter in self._named_parameters if parameter.requires_grad}
        self._backward_pass = -1
        self._updating = True
        self._watch_trainable()

    def _watch_trainable(self) -> None:
        if not self._updating:
            return
        for _, parameter in self._named_parameters:
            if parameter.requires_grad and parameter not in self._hooked:
                parameter.register_hook(partial(self._before_gradient, parameter))
                parameter.register_post_accumulate_grad_hook(self._on_gradient)
                self._hooked.add(parameter)

    def _before_gradient(self, parameter: torch.nn.Parameter, _: torch.Tensor) -> None:
        """Sets aside what is there already."""
        if self._updating and parameter not in self._new and parameter.grad is not None:
            self._set_aside[parameter] = parameter.grad
            parameter.grad = None

    def _on_gradient(self, parameter: torch.Tensor) -> None:
        """Asks for an exchange at the end of this backward pass, once."""
        if self._updating:
            self._new.add(parameter)
        backward_pass = torch._C._current_graph_task_id()
        if self._updating and not self._suspended and backward_pass != self._backward_pass:
            self._backward_pass = backward_pass
            torch.autograd.Variable._execution_engine.queue_callback(self._on_backward_end)

    def _on_backward_end(self) -> None:
        self._exchange(active=True)

    def _exchange(self, *, active: bool) -> bool:
        """Weighted sums of the gradients, where any process still takes part; or of what others average.

        Args:
            active: whether this one takes part, with gradients.

        Returns:
            Whether any did.
        """
        flags = self._flags(active=active)
        if any(flags.averaged):
            self._add_sums(flags, torch.zeros(max(flags.averaged), dtype=torch.float64))
            return True
        taking_part = flags.taking_part
        if not taking_part:
            return False
        self._missed |= set(range(self._group.size)) - set(taking_part)
        self._last_active = taking_part
        weight = self._shares[self._group.index] / self._weight_of_all(taking_part) if active else 0.0
        self._refuse_unused(flags.without)
        parameters = [p for (_, p), n in zip(self._named_parameters, flags.with_gradient, strict=True) if n]
        self._changed.update(parameters)
        for some in buckets(parameters):
            self._add_gradients(some, weight)
        self._new.clear()
        self._set_aside.clear()
        return True

    def _add_sums(self, flags: _Round, sums: torch.Tensor) -> None:
        """The sum over processes, in place; all of them come here."""
        expected = [len(sums) if share else 0 for share in self._shares]
        if flags.averaged != expected:
            raise RuntimeError(
                "mean_over_batch: every LLM process with a share of the update must call it at the same place, with as "
                f"many numbers as the others; they brought {flags.averaged} for shares of {self._shares} samples"
            )
        self._group.add_flags(sums)

    def _weight_of_all(self, taking_part: list[int]) -> int:
        """What shares are divided by: those that take part, or all where these add to a gradient of all."""
        total = sum(self._shares[i] for i in taking_part)
        if total == sum(self._shares):
            return total
        before = (self._exchanged_before(parameter) for _, parameter in self._named_parameters)
        return sum(self._shares) if any(gradient is not None and gradient.any() for gradient in before) else total

    def _exchanged_before(self, parameter: torch.Tensor) -> torch.Tensor | None:
        """The gradient without what is new in it; equal on all processes that take part."""
        return self._set_aside.get(parameter) if parameter in self._new else parameter.grad

    def _flags(self, *, active: bool, failed: bool = False, averaged: int = 0) -> _Round:
        """Begins an exchange with those of all processes.

        Args:
            averaged: the numbers that this one brings to `mean_over_batch`; 0 where it brings gradients.
        """
        size, count = self._group.size, len(self._named_parameters)
        flags = torch.zeros(3 * size + 2 * count, dtype=torch.int64)
        who_takes_part, who_failed, who_averages, new, without = flags.split([size, size, size, count, count])
        who_takes_part[self._group.index] = active
        who_failed[self._group.index] = failed
        who_averages[self._group.index] = averaged
        if active and not averaged:
            parameters = [parameter for _, parameter in self._named_parameters]
            new.copy_(torch.tensor([parameter in self._new for parameter in parameters]))
            without.copy_(torch.tensor([p.requires_grad and p.grad is None for p in parameters]))
        self._group.add_flags(flags)
        if not failed:
            self._group.refuse_failed(who_failed)
        taking_part = who_takes_part.nonzero().flatten().tolist()
        return _Round(taking_part, who_averages.tolist(), new.tolist(), without.tolist())

    def _tell_failure(self) -> None:
        """Ends the others' update too, in place of their wait."""
        try:
            self._flags(active=False, failed=True)
        except GROUP_ERRORS:
            return  # the failure that is on its way already is the one to report

    def _refuse_unused(self, without: list[int]) -> None:
        if self._unused_allowed:
            return
        for (name, _), count in zip(self._named_parameters, without, strict=True):
            if count:
                raise RuntimeError(
                    f"parameter {name} has no gradient after a backward pass: freeze it, or set "
                    f"lamorel_args.allow_subgraph_use_whith_gradient to true"
                )

    def _add_gradients(self, parameters: list[torch.Tensor], weight: float) -> None:
        """Adds the weighted sum of the new parts over processes to `.grad`, in fp32 at least."""
        dtype = torch.promote_types(parameters[0].dtype, torch.float32)
        sizes = [parameter.numel() for parameter in parameters]
        flat = torch.zeros(sum(sizes), dtype=dtype, device=parameters[0].device)
        pieces = flat.split(sizes)
        if weight > 0:
            for parameter, piece in zip(parameters, pieces, strict=True):
                if parameter in self._new and parameter.grad is not None:
                    piece.copy_(parameter.grad.reshape(-1)).mul_(weight)
        self._group.add(flat)
        if weight > 0:
            for parameter, piece in zip(parameters, pieces, strict=True):
                self._put_gradient(parameter, piece.view_as(parameter))

    def _put_gradient(self, parameter: torch.Tensor, new: torch.Tensor) -> None:
        before = self._exchanged_before(parameter)
        if before is not None:
            parameter.grad = before.add_(new.to(before.dtype))
        else:
            if parameter.grad is None:
                parameter.grad = torch.empty_like(parameter)
            parameter.grad.copy_(new)

    def _synchronise(self, updater: BaseUpdater | None) -> None:
        """Makes processes equal to one that took part in every exchange."""
        source = min(set(self._last_active) - self._missed)
        is_source = self._group.index == source
        behind = self._group.index in self._missed
        parameters = [parameter for _, parameter in self._named_parameters]
        own = [(p.requires_grad, p.requires_grad or p in self._changed, p.grad is not None) for p in parameters]
        facts = self._group.broadcast_object(own, source)
        changed = [p for p, (_, has_changed, _) in zip(parameters, facts, strict=True) if has_changed]
        self._group.broadcast([*changed, *self.module.buffers()], source)
        for parameter, (trainable, _, has_gradient) in zip(parameters, facts, strict=True):
            if parameter.requires_grad != trainable:
                parameter.requires_grad_(trainable)
            if not has_gradient:
                parameter.grad = None
            elif parameter.grad is None:
                parameter.grad = torch.empty_like(parameter)
        self._group.broadcast([p.grad for p in parameters if p.grad is not None], source)
        state = updater_state(updater) if is_source else None
        hides = is_source and state is None and _has_optimizer(updater)
        state, hides = self._group.broadcast_object((state, hides), source)
        if hides:
            raise RuntimeError(
                f"{type(updater).__name__} has an optimizer that another LLM process, which had no share of this "
                f"update, cannot follow: keep it in the attribute `optimizer`, or define state_dict and load_state_dict"
            )
        if behind and state is not None and updater is not None:
            restore_updater(updater, state)

    def _trainable_tensors(self) -> list[torch.Tensor]:
        return [parameter for parameter in self.module.parameters() if parameter.requires_grad]


def _has_optimizer(updater: BaseUpdater | None) -> bool:
    return any(isinstance(value, torch.optim.Optimizer) for value in vars(updater).values())
