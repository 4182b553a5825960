"""The pure parts of the distributed mode: shares, messages, batches of several RL processes, failures."""

import socket
import threading
import time
from typing import Any

import numpy as np
import pytest
import torch

from lamorel.distributed.channel import Channel, advance, await_each, await_end, flush
from lamorel.distributed.codec import pack, unpack
from lamorel.distributed.collective import join_batches
from lamorel.distributed.doors import knock
from lamorel.distributed.failures import Failure, PeerFailedError, ProcessLostError, WaitTimeoutError, first_failure
from lamorel.distributed.joining import wait_for_keys
from lamorel.distributed.launched import LAUNCHER_VARIABLE, LOST_STATUS
from lamorel.distributed.messages import Reply
from lamorel.distributed.split import split_by_work


@pytest.mark.parametrize(
    ("work", "processes", "shares"),
    [
        ([5, 1, 1, 1, 1, 1], 2, [[0], [1, 2, 3, 4, 5]]),  # by work, not by count
        ([3, 3, 2, 2, 2], 2, [[0, 2, 4], [1, 3]]),  # 3+2+2 and 3+2
        ([1, 1], 3, [[0], [1], []]),
        ([0, 0, 0], 2, [[0, 2], [1]]),
        ([], 2, [[], []]),
        ([4, 9], 1, [[0, 1]]),
    ],
)
def test_shares(work: list[int], processes: int, shares: list[list[int]]) -> None:
    assert split_by_work(work, processes) == shares


def both_ways(message: Any) -> Any:
    """A message over a connection."""
    one, other = (Channel(connection) for connection in _connected())
    one.put(message)
    deadline = time.monotonic() + 10
    while not other.inbox:
        assert advance([one, other], deadline)
    one.close()
    other.close()
    return other.inbox.popleft()


def _connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        return one, server.accept()[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3), (300, 400)])
def test_tensors_arrive_as_they_were(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = (torch.arange(torch.Size(shape).numel()).reshape(shape) % 2).to(dtype)
    [found] = both_ways([tensor])
    assert found.dtype == dtype
    assert torch.equal(found, tensor)
    assert found.is_contiguous()


def test_structures_arrive_as_they_were() -> None:
    shared = torch.randn(3)
    parameter = torch.nn.Parameter(torch.randn(4, 4).t())
    conjugate = torch.tensor([1 + 2j, 3 - 1j]).conj()
    message = {
        "a": [shared, shared, (parameter, None)],
        "c": [conjugate, conjugate.imag],
        "n": np.arange(3),
        "text": "é",
        "reply": Reply(3, 1.5),
    }
    found = both_ways(message)
    assert torch.equal(found["a"][0], shared)
    assert torch.equal(found["a"][2][0], parameter)
    assert not found["a"][2][0].requires_grad
    assert [tensor.tolist() for tensor in found["c"]] == [conjugate.tolist(), conjugate.imag.tolist()]
    assert found["n"].tolist() == [0, 1, 2]
    assert (found["text"], found["reply"]) == ("é", Reply(3, 1.5))
    found["a"][0].add_(1)  # it may be written to


def test_tensors_travel_once_and_apart_from_the_skeleton() -> None:
    small = [{"score": torch.randn(6), "value": torch.randn(1)} for _ in range(32)]
    large = torch.randn(1 << 16)
    packed = pack({"small": small, "large": large, "again": large})
    assert len(packed.skeleton) < 4000
    assert [len(buffer) for buffer in packed.buffers] == [32 * 48 - 12, 4 << 16]
    with pytest.raises(TypeError, match=r"a module \(Linear\) cannot be sent"):
        pack({"model": torch.nn.Linear(1, 1)})
    found = unpack(packed.skeleton, [torch.frombuffer(bytearray(b), dtype=torch.uint8) for b in packed.buffers])
    assert found["large"].data_ptr() == found["again"].data_ptr()


def test_two_that_send_to_each_other_do_not_block() -> None:
    one, other = (Channel(s) for s in _connected())
    large = torch.zeros(20_000_000)
    for channel in (one, other):
        channel.put(large)
    deadline = time.monotonic() + 20
    while not (one.inbox and other.inbox):
        assert advance([one, other], deadline)
    assert torch.equal(one.inbox[0], large)


def test_waits_end() -> None:
    connections = _connected()
    one, other = Channel(connections[0], "rank 7"), Channel(connections[1], "rank 8")
    with pytest.raises(WaitTimeoutError, match=r"0.1 s for rank 7 to answer: .* raise lamorel_args.gloo_timeout"):
        await_each([one], 1, 0.1, "to answer")
    with pytest.raises(WaitTimeoutError, match=r"waited 0.1 s for rank 7 to end"):
        await_end([one], 0.1)
    other.put(Reply(1, "late"))
    other.put(Reply(2, "in time"))
    assert flush([other], 5)
    assert await_each([one], 2, 5, "to answer")[one].value == "in time"  # what answers an interrupted call is dropped
    threading.Timer(0.1, other.close).start()
    with pytest.raises(ProcessLostError, match="rank 7 ended while others waited for it to answer"):
        await_each([one], 3, 5, "to answer")


def test_batches_of_several_rl_processes() -> None:
    def batch(ids: list[int]) -> Any:
        rows = {"tensor": torch.tensor(ids), "array": np.array(ids), "list": ids, "nested": {"rows": torch.tensor(ids)}}
        return [str(i) for i in ids], [[f"c{i}"] for i in ids], {**rows, "lr": 0.1, "name": "x", "pair": [1, 2, 3, 4]}

    contexts, candidates, found = join_batches([batch([0, 1]), batch([]), batch([2, 3, 4])])
    assert contexts == ["0", "1", "2", "3", "4"]
    assert candidates == [[f"c{i}"] for i in range(5)]
    for name in ("tensor", "array", "list"):
        assert list(found[name]) == [0, 1, 2, 3, 4]
    assert found["nested"]["rows"].tolist() == [0, 1, 2, 3, 4]
    assert (found["lr"], found["name"], found["pair"]) == (0.1, "x", [1, 2, 3, 4])
    with pytest.raises(ValueError, match="RL process 1 gave \\['b'\\]"):
        join_batches([(["a"], [["b"]], {"a": 1}), (["a"], [["b"]], {"b": 1})])
    assert join_batches([(["a"], None, {}), (["b"], None, {})]) == (["a", "b"], None, {})
    with pytest.raises(ValueError, match="some RL processes gave candidates, others None"):
        join_batches([(["a"], [["b"]], {}), (["a"], None, {})])


class TwoArgumentsError(Exception):
    """Can be pickled, but not made again from what was pickled."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def test_failures_keep_type_text_and_traceback() -> None:
    def failure(error: BaseException) -> Failure:
        try:
            raise error
        except BaseException as raised:
            return Failure.of(raised, "rank 3 (LLM process 2)")

    found = both_ways(Reply(1, failure=failure(KeyError("k")))).failure.error()
    assert isinstance(found, KeyError)
    assert "rank 3 (LLM process 2)" in str(found.__cause__)
    assert "raise error" in str(found.__cause__)
    for error in (TwoArgumentsError(1, 2), SystemExit(3)):
        other = failure(error).error()
        assert type(other) is RuntimeError
        assert str(error) in str(other)
    timeout = failure(WaitTimeoutError(5, "rank 1", "to answer")).error()
    assert isinstance(timeout, WaitTimeoutError)
    assert "waited 5 s for rank 1 to answer" in str(timeout)
    cause, consequence = failure(ValueError("cause")), failure(PeerFailedError("consequence"))
    assert first_failure([consequence, cause]) is cause
    assert first_failure([]) is None


def test_a_process_that_ended_before_others_could_connect_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LAUNCHER_VARIABLE, raising=False)
    store = torch.distributed.HashStore()
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    store.set("lamorel/door/1", f"127.0.0.1 {port} {'0' * 32}")
    with pytest.raises(ProcessLostError, match="rank 1 ended, or cannot be reached"):
        knock(store, {1: "rank 1"}, rank=0, timeout_s=5)


def test_a_store_that_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under our launcher without a word: it has said, or will say, which process ended first."""

    class Gone:
        def check(self, keys: list[str]) -> bool:
            raise torch.distributed.DistNetworkError("Connection reset by peer")

    monkeypatch.delenv(LAUNCHER_VARIABLE, raising=False)
    with pytest.raises(ProcessLostError, match=r"machine 0 ended .*Connection reset by peer"):
        wait_for_keys(Gone(), {"key": "rank 1"}, 5, "to start")
    monkeypatch.setenv(LAUNCHER_VARIABLE, "1")
    with pytest.raises(SystemExit) as ended:
        wait_for_keys(Gone(), {"key": "rank 1"}, 5, "to start")
    assert ended.value.code == LOST_STATUS
