"""One gradient out of the shares of all LLM processes.

After a user's `loss.backward()`, with a loss that is a mean over the process's share, `.grad` is on every process

    sum over processes i of  share_i / batch * grad_i

which is the gradient of the mean over the whole batch. Not torch's DistributedDataParallel, which takes the plain mean
over processes, and expects of each the same number of backward passes, one forward before each, and a share. Here
several forwards may come before one backward (DDP's second forward resets its buckets); a share may be worked off in
more or fewer backward passes than elsewhere, or be empty; and many chunks may be accumulated before one exchange.

Every exchange begins with a small sum of flags over all LLM processes: who takes part, who has failed, which parameters
have a gradient anywhere. A process that has finished its share, or has none, keeps answering, with weight 0, until all
have finished; the weights of the others are scaled up to 1. What an earlier exchange left in `.grad`, equal on all,
therefore passes through unchanged. Whoever did not take part in every exchange receives the parameters, the updater's
state and the gradients at the end: processes are always equal between updates.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from lamorel.distributed.llm_group import GROUP_ERRORS, LLMGroup, buckets
from lamorel.llm import LLMModule
from lamorel.updater import BaseUpdater, restore_updater, updater_state
from lamorel.worker import LocalModule


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
        self._parameters_of_update: list[tuple[str, torch.nn.Parameter]] = []
        self._hooked: set[torch.nn.Parameter] = set()
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

    def _begin(self, shares: Sequence[int]) -> None:
        self._shares = list(shares)
        self._missed = {i for i, share in enumerate(shares) if share == 0}
        self._last_active = [0]  # LLM process 0 has a share always
        self._parameters_of_update = [(n, p) for n, p in self.module.named_parameters() if p.requires_grad]
        for _, parameter in self._parameters_of_update:
            if parameter not in self._hooked:
                parameter.register_post_accumulate_grad_hook(self._on_gradient)
                self._hooked.add(parameter)
        self._backward_pass = -1
        self._updating = True

    def _on_gradient(self, _: torch.Tensor) -> None:
        """Asks for an exchange at the end of this backward pass, once."""
        backward_pass = torch._C._current_graph_task_id()
        if self._updating and not self._suspended and backward_pass != self._backward_pass:
            self._backward_pass = backward_pass
            torch.autograd.Variable._execution_engine.queue_callback(self._on_backward_end)

    def _on_backward_end(self) -> None:
        self._exchange(active=True)

    def _exchange(self, *, active: bool) -> bool:
        """Weighted sums of the gradients, where any process still takes part.

        Args:
            active: whether this one does.

        Returns:
            Whether any did.
        """
        taking_part, with_gradient = self._flags(active=active)
        if not taking_part:
            return False
        self._missed |= set(range(self._group.size)) - set(taking_part)
        self._last_active = taking_part
        total = sum(self._shares[i] for i in taking_part)
        weight = self._shares[self._group.index] / total if active else 0.0
        self._refuse_unused(with_gradient, len(taking_part))
        parameters = [p for (_, p), n in zip(self._parameters_of_update, with_gradient, strict=True) if n]
        for some in buckets(parameters):
            self._add_gradients(some, weight)
        return True

    def _flags(self, *, active: bool, failed: bool = False) -> tuple[list[int], list[int]]:
        """Which processes take part, and per parameter how many of them have a gradient of it."""
        size = self._group.size
        own = [active and parameter.grad is not None for _, parameter in self._parameters_of_update]
        flags = torch.zeros(2 * size + len(own), dtype=torch.int64)
        flags[self._group.index] = active
        flags[size + self._group.index] = failed
        flags[2 * size :] = torch.tensor(own)
        self._group.add_flags(flags)
        if not failed:
            self._group.refuse_failed(flags[size : 2 * size])
        return flags[:size].nonzero().flatten().tolist(), flags[2 * size :].tolist()

    def _tell_failure(self) -> None:
        """Ends the others' update too, in place of their wait."""
        try:
            self._flags(active=False, failed=True)
        except GROUP_ERRORS:
            return  # the failure that is on its way already is the one to report

    def _refuse_unused(self, with_gradient: list[int], active: int) -> None:
        if self._unused_allowed:
            return
        for (name, _), count in zip(self._parameters_of_update, with_gradient, strict=True):
            if count < active:
                raise RuntimeError(
                    f"parameter {name} has no gradient after a backward pass: freeze it, or set "
                    f"lamorel_args.allow_subgraph_use_whith_gradient to true"
                )

    def _add_gradients(self, parameters: list[torch.Tensor], weight: float) -> None:
        """Puts the weighted sum over processes into `.grad`, in fp32 at least."""
        dtype = torch.promote_types(parameters[0].dtype, torch.float32)
        sizes = [parameter.numel() for parameter in parameters]
        flat = torch.zeros(sum(sizes), dtype=dtype, device=parameters[0].device)
        pieces = flat.split(sizes)
        if weight > 0:
            for parameter, piece in zip(parameters, pieces, strict=True):
                if parameter.grad is not None:
                    piece.copy_(parameter.grad.reshape(-1)).mul_(weight)
        self._group.add(flat)
        if weight > 0:
            for parameter, piece in zip(parameters, pieces, strict=True):
                if parameter.grad is None:
                    parameter.grad = torch.empty_like(parameter)
                parameter.grad.copy_(piece.view_as(parameter))

    def _synchronise(self, updater: BaseUpdater | None) -> None:
        """Makes processes equal to one that took part in every exchange."""
        source = min(set(self._last_active) - self._missed)
        is_source = self._group.index == source
        behind = self._group.index in self._missed
        self._group.broadcast([*self._trainable_tensors(), *self.module.buffers()], source)
        has_gradient = [parameter.grad is not None for _, parameter in self._parameters_of_update]
        has_gradient = self._group.broadcast_object(has_gradient, source)
        for (_, parameter), has in zip(self._parameters_of_update, has_gradient, strict=True):
            if not has:
                parameter.grad = None
            elif parameter.grad is None:
                parameter.grad = torch.empty_like(parameter)
        self._group.broadcast([p.grad for _, p in self._parameters_of_update if p.grad is not None], source)
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
