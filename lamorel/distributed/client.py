"""The RL side: the verbs of `Worker`, answered by LLM processes."""

import os
import time
from collections.abc import Mapping, Sequence
from itertools import islice, repeat
from pathlib import Path
from typing import Any, ClassVar

from lamorel.config import LamorelConfig
from lamorel.distributed.channel import Channel, Undecodable, await_each, await_end, flush, frame
from lamorel.distributed.collective import Collective
from lamorel.distributed.doors import knock
from lamorel.distributed.failures import ProcessLostError, ProcessLostExit, WaitTimeoutError, first_failure
from lamorel.distributed.launched import World
from lamorel.distributed.llm_group import late_processes
from lamorel.distributed.messages import ALIVE, CLOSE, LOADED, Request
from lamorel.distributed.split import split_by_work
from lamorel.loading import load_tokenizer
from lamorel.tokenization import TextEncoder, read_inputs

_FLUSH_S = 1.0


class Client:
    """Connections of one RL process to all LLM processes.

    Raises:
        Exception: what went wrong in an LLM process while it loaded the model, or while it answered; of the same type
            where it can be pickled, with the remote traceback as `__cause__`.
        WaitTimeoutError: an LLM process did not answer within `gloo_timeout`; the client is then broken.
        ProcessLostError: an LLM process has ended; the client is then broken.
    """

    _was_made: ClassVar[bool] = False

    def __init__(self, config: LamorelConfig, world: World, store: Any) -> None:
        if Client._was_made:
            raise RuntimeError(
                "this launch has had its Caller, and its LLM processes end with it: make one, and keep it"
            )
        Client._was_made = True
        self._world = world
        self._store = store
        self._timeout_s = float(config.gloo_timeout)
        self._number = LOADED
        self._alive_at = time.monotonic()
        self._answers_outstanding = False
        self._broken: str | None = None
        self._process = os.getpid()
        self._encoder = _encoder(config) if world.n_llm > 1 else None
        self._together = Collective(world, store, self._timeout_s)
        names = {rank: world.name(rank) for rank in world.llm_ranks}
        self._servers = knock(store, names, world.rank, self._timeout_s)
        try:
            self._answers(self._servers, LOADED, "to load the model")
        except BaseException:
            self.close(wait=False)
            raise

    def outputs(
        self,
        keys: Sequence[str],
        contexts: Sequence[str],
        candidates: Sequence[Sequence[str]] | None,
        kwargs: Mapping[str, Any],
    ) -> list[Any]:
        """As `Worker.outputs`."""
        if isinstance(keys, str):
            raise TypeError(f"module function keys: expected a list of str, got {keys!r}")
        return self._on_shares("outputs", contexts, candidates, {"keys": list(keys), "kwargs": dict(kwargs)})

    def generate(
        self, contexts: Sequence[str], return_logprobs: bool, kwargs: Mapping[str, Any]
    ) -> list[list[dict[str, Any]]]:
        """As `Worker.generate`."""
        common = {"return_logprobs": return_logprobs, "kwargs": dict(kwargs)}
        return self._on_shares("generate", contexts, None, common)

    def update(
        self, contexts: Sequence[str], candidates: Sequence[list[str]] | None, kwargs: Mapping[str, Any]
    ) -> list[Any]:
        """As `Worker.update`, of the batches of all RL processes together, in the order of their ranks."""
        batch = (contexts, candidates, dict(kwargs))
        try:
            return self._together.update(batch, self._update)
        except Exception as error:
            if self._world.rank > 0 and self._world.n_llm > 1:
                self._break(_after_failed_update(error))
            raise

    def save(self, folder: str | Path, merge_adapters: bool = False) -> None:
        """As `Worker.save`, by LLM process 0; together with the other RL processes."""
        arguments = {"folder": str(Path(folder).absolute()), "merge_adapters": merge_adapters}
        self._together.do(lambda: self._call("save", {self._servers[0]: arguments}), verb="save")

    def load(self, folder: str | Path) -> None:
        """As `Worker.load`, by every LLM process; together with the other RL processes."""
        arguments = {"folder": str(Path(folder).absolute())}
        self._together.do(lambda: self._call("load", dict.fromkeys(self._servers, arguments)), verb="load")

    def close(self, wait: bool = True) -> None:
        """Lets the LLM processes end, once every RL process has asked for it.

        Args:
            wait: return when they have ended.
        """
        if self._process != os.getpid():  # a fork: the connections are its parent's
            return
        try:
            self._say_goodbye()
            self._together.close(well=wait)
            # After an interrupted call they will not listen for a while.
            if wait and not self._answers_outstanding:
                self._await_end()
        finally:
            for server in self._servers:
                server.close()

    def _await_end(self) -> None:
        try:
            await_end(self._servers, self._timeout_s)
        except WaitTimeoutError:
            others = self._together.still_open()
            if not others:
                raise
            raise WaitTimeoutError(self._timeout_s, ", ".join(others), "to close as well") from None

    def _on_shares(
        self, verb: str, contexts: Sequence[str], candidates: Sequence[Sequence[str]] | None, common: dict[str, Any]
    ) -> list[Any]:
        """One result per context: each LLM process answers for its share."""
        contexts, candidates = read_inputs(contexts, candidates)
        requests: dict[Channel, dict[str, Any]] = {}
        shares = dict(zip(self._servers, self._split(contexts, candidates), strict=True))
        for server, share in shares.items():
            if share or server is self._servers[0]:  # an empty call is checked, too
                requests[server] = {**common, "contexts": [contexts[i] for i in share]}
                if verb == "outputs":
                    requests[server]["candidates"] = None if candidates is None else [candidates[i] for i in share]
        results: list[Any] = [None] * len(contexts)
        for server, values in self._call(verb, requests).items():
            for i, value in zip(shares[server], values, strict=True):
                results[i] = value
        return results

    def _update(self, contexts: list[str], candidates: list[list[str]] | None, kwargs: dict[str, Any]) -> list[Any]:
        """Every LLM process takes part, with a share or without."""
        if not contexts:
            return []
        shares = self._split(contexts, candidates)
        sizes = [len(share) for share in shares]
        requests = {
            server: {
                "contexts": [contexts[i] for i in share],
                "candidates": None if candidates is None else [candidates[i] for i in share],
                "kwargs": kwargs,
                "batch_ids": share,
                "share_sizes": sizes,
            }
            for server, share in zip(self._servers, shares, strict=True)
        }
        try:
            results = self._call("update", requests)
        except Exception as error:
            if self._world.n_llm > 1 and self._broken is None:
                self._break(_after_failed_update(error))
            raise
        return [result for server in self._servers for result in results[server]]

    def _split(self, contexts: Sequence[str], candidates: Sequence[Sequence[str]] | None) -> list[list[int]]:
        """Positions per LLM process, by tokens."""
        if self._encoder is None:
            return [list(range(len(contexts)))]
        groups = repeat(()) if candidates is None else candidates
        texts = [[context, *group] for context, group in zip(contexts, groups, strict=False)]
        lengths = iter(self._encoder.lengths([text for some in texts for text in some]))
        return split_by_work([sum(islice(lengths, len(some))) for some in texts], self._world.n_llm)

    def _call(self, verb: str, requests: Mapping[Channel, dict[str, Any]]) -> dict[Channel, Any]:
        """What each of these LLM processes answers."""
        if self._broken is not None:
            raise RuntimeError(f"this Caller is broken: {self._broken}")
        self._number += 1
        frames = [frame(Request(self._number, verb, arguments)) for arguments in requests.values()]
        for server, parts in zip(requests, frames, strict=True):
            server.put_frame(parts)
        self._keep_alive()
        return self._answers(list(requests), self._number, "to answer")

    def _answers(self, servers: list[Channel], number: int, purpose: str) -> dict[Channel, Any]:
        self._answers_outstanding = True
        try:
            replies = await_each(servers, number, self._timeout_s, purpose, self._blame)
        except (WaitTimeoutError, ProcessLostError, ProcessLostExit) as error:
            self._break(str(error))
            raise
        self._answers_outstanding = False
        for reply in replies.values():
            if isinstance(reply, Undecodable):
                raise reply.error
        failure = first_failure(reply.failure for reply in replies.values() if reply.failure is not None)
        if failure is not None:
            raise failure.error()
        return {server: reply.value for server, reply in replies.items()}

    def _blame(self, missing: list[Channel]) -> list[Channel]:
        """In an update LLM processes wait for each other: those that make the others wait."""
        late = {self._world.llm_name(index) for index in late_processes(self._store, self._world.n_llm)}
        return [server for server in missing if server.peer in late] or missing

    def _keep_alive(self) -> None:
        """An LLM process that gets no share for long would otherwise take this one for gone."""
        if time.monotonic() > self._alive_at + self._timeout_s / 10:
            self._alive_at = time.monotonic()
            for server in self._servers:
                server.put(Request(self._number, ALIVE))
            flush(self._servers, _FLUSH_S)

    def _break(self, reason: str) -> None:
        """No further calls: the LLM processes are told to end."""
        self._say_goodbye()
        self._broken = reason

    def _say_goodbye(self) -> None:
        if self._broken is None:
            self._number += 1
            for server in self._servers:
                server.put(Request(self._number, CLOSE))
            flush(self._servers, _FLUSH_S)


def _encoder(config: LamorelConfig) -> TextEncoder:
    args = config.llm_args
    return TextEncoder(load_tokenizer(args), add_bos=args.add_bos, candidate_prefix=args.candidate_prefix)


def _after_failed_update(error: Exception) -> str:
    return f"an update failed, and LLM processes may differ now ({type(error).__name__}: {error})"
