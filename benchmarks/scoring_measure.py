"""Takes the times of the scoring benchmark: ours and the yardsticks in turn, in one process."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from scoring_workload import CANDIDATES, DTYPES, Updater, Value, lamorel_args, make_prompts, ppo_rows
from scoring_yardsticks import HuggingFace

from lamorel import Caller

Way = Callable[[int], Any]  # takes the number of the repetition, so that each can have fresh prompts


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    device: str
    dtype: str
    repeats: int  # of ours and of the lower bound
    slow_repeats: int  # of the ways (a) and (b)
    contexts: int  # scored at once
    update_contexts: int
    llm_args: dict[str, Any] = field(default_factory=dict)  # further keys of ours


@dataclass
class Times:
    """Medians in seconds by way (`ours`, `a`, `b`, `c`), and what was found beside them."""

    scoring: dict[str, float]
    update: dict[str, float]
    difference: float  # largest |score - score of (a)|, nats
    context_tokens: int  # of one scoring call
    gpu_busy: dict[str, float] = field(default_factory=dict)  # share of the time in which the GPU computes


def measure(folder: Path, plan: Plan) -> Times:
    """All times of the model in `folder`."""
    device = torch.device(plan.device)
    yardstick = HuggingFace(folder, device, DTYPES[plan.dtype])
    args = lamorel_args(folder, causal=yardstick.causal, dtype=plan.dtype, gpu=device.type == "cuda", **plan.llm_args)
    with Caller(args, Updater(), {"value": Value()}) as caller:
        ways = scoring_ways(caller, yardstick, plan)
        updates = update_ways(caller, yardstick, plan)
        for way in (ways["ours"], ways["c"], updates["ours"], updates["c"]):
            way(plan.repeats)  # warms up, on prompts that no repetition sees
        counts = {"ours": plan.repeats, "c": plan.repeats, "a": plan.slow_repeats, "b": plan.slow_repeats}
        scoring, results = interleaved(ways, counts, device)
        # Last: the allocator's memory must not be in the state that large graphs leave it in.
        updating, _ = interleaved(updates, counts, device)
        times = Times(scoring, updating, float("nan"), _tokens(yardstick, plan))
        if plan.slow_repeats > 0:
            ours = torch.cat([output["__score"] for output in results["ours"]])
            times.difference = (ours - results["a"]).abs().max().item()
        if device.type == "cuda":
            times.gpu_busy = {
                "scoring": gpu_seconds(ways["ours"]) / scoring["ours"],
                "update": gpu_seconds(updates["ours"]) / updating["ours"],
            }
    return times


def scoring_ways(caller: Caller, yardstick: HuggingFace, plan: Plan) -> dict[str, Way]:
    """The ways to score `plan.contexts` prompts. Ours includes its tokenisation, the others get token ids."""
    candidates = [CANDIDATES] * plan.contexts
    prompts = [make_prompts(plan.contexts, seed) for seed in range(plan.repeats + 1)]
    ids = [yardstick.ids(texts) for texts in prompts]
    pairs = [yardstick.pairs(texts, CANDIDATES) for texts in prompts]
    return {
        "ours": lambda i: caller.score(prompts[i], candidates, ["value"]),
        "c": lambda i: yardstick.encode_contexts(ids[i]),
        "b": lambda i: yardstick.all_pairs(pairs[i]),
        "a": lambda i: yardstick.one_at_a_time(pairs[i]),
    }


def update_ways(caller: Caller, yardstick: HuggingFace, plan: Plan) -> dict[str, Way]:
    """The ways to run forward and backward of `plan.update_contexts` prompts."""
    count = plan.update_contexts
    candidates, rows = [CANDIDATES] * count, ppo_rows(count)
    prompts = [make_prompts(count, 1000 + seed) for seed in range(plan.repeats + 1)]
    ids = [yardstick.ids(texts) for texts in prompts]
    pairs = [yardstick.pairs(texts, CANDIDATES) for texts in prompts]
    return {
        "ours": lambda i: caller.update(prompts[i], candidates, **rows),
        "c": lambda i: yardstick.encode_contexts(ids[i], gradients=True),
        "b": lambda i: yardstick.update_all_pairs(pairs[i]),
    }


def interleaved(
    ways: dict[str, Way], counts: dict[str, int], device: torch.device
) -> tuple[dict[str, float], dict[str, Any]]:
    """Runs the ways in turn, so that a busy machine slows all of them down alike.

    Returns:
        Median seconds of each way, and what it returned in repetition 0.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    results: dict[str, Any] = {}
    for repetition in range(max(counts.values())):
        for name, way in ways.items():
            if repetition < counts[name]:
                _synchronise(device)
                start = time.perf_counter()
                result = way(repetition)
                _synchronise(device)
                seconds[name].append(time.perf_counter() - start)
                results.setdefault(name, result)
    return {name: _median(some) for name, some in seconds.items()}, results


def gpu_seconds(way: Way) -> float:
    """Seconds of GPU kernels in one run. Set against a time taken without the profiler, which slows the CPU down."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as record:
        way(0)
        torch.cuda.synchronize()
    return sum(event.self_device_time_total for event in record.key_averages()) / 1e6


def _tokens(yardstick: HuggingFace, plan: Plan) -> int:
    return sum(map(len, yardstick.ids(make_prompts(plan.contexts))))


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else float("nan")
