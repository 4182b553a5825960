"""The LLM side: a process that holds a model and answers the RL processes, one request at a time."""

import io
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Mapping
from typing import Any, NoReturn

import torch

from lamorel.config import LamorelConfig
from lamorel.distributed.channel import Channel, Undecodable, await_any, await_end, flush
from lamorel.distributed.children import end_soon
from lamorel.distributed.doors import Door
from lamorel.distributed.failures import Failure, WaitTimeoutError
from lamorel.distributed.gpus import choose_gpus
from lamorel.distributed.gradients import SharedModule
from lamorel.distributed.launched import (
    HELD_OUTPUT_VARIABLE,
    OUTPUT_RELEASED,
    World,
    has_our_launcher,
    wait_to_be_ended,
)
from lamorel.distributed.llm_group import GROUP_ERRORS, LLMGroup
from lamorel.distributed.messages import ALIVE, CLOSE, LOADED, Reply, Request
from lamorel.forwards import base_model
from lamorel.initializer import BaseModelInitializer
from lamorel.llm import LLMModule
from lamorel.module_function import BaseModuleFunction
from lamorel.updater import BaseUpdater
from lamorel.worker import LocalModule, Worker

logger = logging.getLogger(__name__)


def serve(
    config: LamorelConfig,
    world: World,
    store: Any,
    updater: BaseUpdater | None,
    functions: Mapping[str, BaseModuleFunction],
    initializer: BaseModelInitializer | None,
) -> NoReturn:
    """Loads the model and answers until every RL process has closed. Never returns.

    Raises:
        SystemExit: always; 0 unless an RL process was lost or silent for `gloo_timeout`.
    """
    _leave_signals_to_others()
    door = Door(store, world.rank)
    if world.llm_index == 0:
        release_output()
    else:
        logging.getLogger("lamorel").setLevel(logging.WARNING)  # what one LLM process says need not be said by all
    server = Server(config, world, store, updater)
    failure = server.load(functions, initializer)
    release_output()
    if world.llm_index > 0:  # else samples are drawn alike in every process
        torch.manual_seed(torch.initial_seed() + world.llm_index)
    status: int | str = 1
    try:
        channels = door.admit({rank: world.name(rank) for rank in range(world.n_rl)}, float(config.gloo_timeout))
        server.run(channels, failure)
        status = 0
    except WaitTimeoutError as error:
        status = f"error: {world.name()}: {error}"
    finally:
        end_soon(0 if status == 0 else 1)
    raise SystemExit(status)


class Server:
    """An LLM process: its worker, and the group of all LLM processes where there are several."""

    def __init__(self, config: LamorelConfig, world: World, store: Any, updater: BaseUpdater | None) -> None:
        self._config, self._world, self._store = config, world, store
        self._timeout_s = float(config.gloo_timeout)
        self._updater = updater
        self._group: LLMGroup | None = None
        self._module: SharedModule | None = None
        self._worker: Worker

    def load(
        self, functions: Mapping[str, BaseModuleFunction], initializer: BaseModelInitializer | None
    ) -> Failure | None:
        """Loads the model; what went wrong, if anything did."""
        try:
            if self._world.n_llm > 1:
                self._group = LLMGroup(self._world, self._store, self._timeout_s)
            choose_gpus(self._config, self._world)
            wrap = LocalModule if self._group is None else self._share
            self._worker = Worker(self._config, self._updater, functions, initializer, wrap)
            self._save_here()
            if self._group is not None:
                self._group.agree()
        except (Exception, SystemExit) as error:
            if self._group is not None and not isinstance(error, GROUP_ERRORS):
                self._group.agree(failed=True)
            return Failure.of(error, self._world.name())
        return None

    def run(self, channels: list[Channel], failure: Failure | None) -> None:
        """Answers until every RL process has closed; where the model could not be loaded, says so in place of that."""
        for channel in channels:
            channel.put(Reply(LOADED, failure=failure))
        flush(channels, self._timeout_s)
        if failure is not None:
            await_end(channels, self._timeout_s)
            return
        waiting = deque(channels)
        while waiting:
            channel, request = self._next(waiting)
            if isinstance(request, Request) and request.verb == CLOSE:
                waiting.remove(channel)
            elif not (isinstance(request, Request) and request.verb == ALIVE):
                self._answer(channel, request)
        self._end(channels)

    def _share(self, module: LLMModule) -> LocalModule:
        assert self._group is not None
        unused_allowed = self._config.allow_subgraph_use_whith_gradient
        self._module = SharedModule(module, self._group, unused_allowed=unused_allowed)
        return self._module

    def _save_here(self) -> None:
        """Makes LLM process 0 the one that writes: transformers takes rank 0 for that, which has no model here."""
        if self._world.llm_index == 0:
            base_model(self._worker.model).should_save_on_this_rank = _as_asked

    def _next(self, waiting: deque[Channel]) -> tuple[Channel, Any]:
        """The next request, of each RL process in turn."""
        while True:
            for _ in range(len(waiting)):
                channel = waiting[0]
                waiting.rotate(-1)
                if channel.inbox:
                    return channel, channel.inbox.popleft()
                if channel.ended:  # died, as it has not closed
                    wait_to_be_ended()
            await_any(waiting, self._timeout_s, "to send a request")

    def _answer(self, channel: Channel, request: Request | Undecodable) -> None:
        try:
            channel.put(Reply(request.number, self._result(request)))
        except (Exception, SystemExit) as error:
            logger.debug("%s failed", self._world.name(), exc_info=True)
            channel.put(Reply(request.number, failure=Failure.of(error, self._world.name())))
        flush([channel], self._timeout_s)

    def _result(self, request: Request | Undecodable) -> Any:
        if isinstance(request, Undecodable):
            raise request.error
        if request.verb == "update":
            return self._update(**request.arguments)
        if request.verb not in ("outputs", "generate", "save", "load"):
            raise ValueError(f"unknown request {request.verb}")
        return getattr(self._worker, request.verb)(**request.arguments)

    def _update(self, share_sizes: list[int], **arguments: Any) -> list[Any]:
        if self._module is None:
            return self._worker.update(**arguments)
        with self._module.update(share_sizes, self._updater):
            return self._worker.update(**arguments)

    def _end(self, channels: list[Channel]) -> None:
        """Frees what other processes could miss; the connections end with this process."""
        for channel in channels:
            channel.close_at_exit()
        if self._group is not None:
            self._group.close()
        self._worker.close()


def _as_asked(is_main_process: bool) -> bool:
    """In place of `PreTrainedModel.should_save_on_this_rank`."""
    return is_main_process


def release_output() -> None:
    """Lets this process print, where our launcher has held back what scripts print in every process alike."""
    held = os.environ.pop(HELD_OUTPUT_VARIABLE, None)
    if held is None:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(1, OUTPUT_RELEASED)
    for real, descriptor in zip(map(int, held.split(",")), (1, 2), strict=True):
        os.dup2(real, descriptor)
        os.close(real)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)


def _leave_signals_to_others() -> None:
    """A checkpoint asked for by SIGUSR1 or SIGTERM, or Ctrl-C, is the RL process's affair, and needs this one.

    Our launcher ends it otherwise; others do by SIGTERM.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if has_our_launcher() else signal.SIG_DFL)
