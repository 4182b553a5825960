"""Scoring and update throughput, peak memory and LLM processes, beside what a user would do with plain Hugging Face.

On two CPU cores, all three models (about 15 minutes, most of it the slow ways):
    python benchmarks/scoring.py
One model, quickly (while working on it; --slow-repeats 0 leaves out the ways (a) and (b)):
    python benchmarks/scoring.py --models t5 --repeats 3 --slow-repeats 0 --skip memory,processes
On a GPU, with Flan-T5-large's and Llama-1B's shapes:
    python benchmarks/scoring.py --device cuda --sizes large --dtype bf16 --slow-repeats 3

32 prompts of 150 to 320 tokens with six actions and a value; ours and the yardsticks take turns in one process, each
repetition has fresh prompts, figures are medians. benchmarks/README.md defines the yardsticks (a), (b) and (c).
"""

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path

import report
import torch
import transformers
from scoring_measure import Plan, Times, measure
from scoring_subprocesses import memory_contexts, parts
from scoring_workload import SHAPES, write_model

RESULTS = report.ROOT / "benchmarks" / "RESULTS.md"
NAMES = {"t5": "T5", "llama": "Llama", "gpt2": "GPT-2"}
# What is demanded of the small shapes on two CPU cores in fp32.
ASKED_SCORING_B = {"t5": 7.5, "llama": 12.0, "gpt2": 12.0}
ASKED_SCORING_C = {"t5": 0.80, "llama": 1.0, "gpt2": 1.0}


def main() -> int:
    args = _arguments()
    torch.set_num_threads(args.threads)
    transformers.utils.logging.disable_progress_bar()
    columns: dict[str, dict[str, str]] = {}
    worst = 0.0
    for model in args.models:
        with tempfile.TemporaryDirectory() as folder:
            write_model(Path(folder), model, args.sizes, args.dtype, device=args.device)
            times = measure(Path(folder), _plan(args))
            more = parts(Path(folder), model, args)
        columns[model] = _figures(model, times, args) | more
        worst = max(worst, 0.0 if math.isnan(times.difference) else times.difference)
        print(f"{model}: " + "; ".join(f"{name} {value}" for name, value in columns[model].items()), file=sys.stderr)
    text = _text(columns, args)
    print(text)
    if args.output is not None:
        args.output.write_text(text + "\n", encoding="utf-8")
    if args.update_results:
        report.replace_between_markers(RESULTS, _marker(args), text)
    exact = args.dtype != "fp32" or worst <= 1e-4
    if not exact:
        print(f"scores differ from one unpadded sequence per forward by {worst:.3g} nats", file=sys.stderr)
    return 0 if exact else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", type=lambda text: text.split(","), help="of t5,llama,gpt2; default: all of the size"
    )
    parser.add_argument("--sizes", choices=list(SHAPES), default="small")
    parser.add_argument("--threads", type=int, default=2, help="torch threads; on shared cores one can beat two")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["fp32", "bf16", "fp16"], default="fp32")
    parser.add_argument("--repeats", type=int, default=5, help="of ours and of the lower bound (c)")
    parser.add_argument("--slow-repeats", type=int, default=1, help="of (a) and (b)")
    parser.add_argument("--contexts", type=int, default=32, help="prompts scored at once")
    parser.add_argument("--update-contexts", type=int, default=16, help="prompts of an update")
    parser.add_argument("--skip", type=lambda text: text.split(","), default=[], help="memory,processes")
    parser.add_argument("--llm-args", type=json.loads, default={}, help='further llm_args of ours: {"compile": true}')
    parser.add_argument("--output", type=Path, help="file for the table")
    parser.add_argument("--update-results", action="store_true", help="put the table into RESULTS.md")
    args = parser.parse_args()
    known = list(SHAPES[args.sizes])
    args.models = args.models or known
    for model in args.models:
        if model not in known:
            parser.error(f"--models: {model} is none of {', '.join(known)}, which --sizes {args.sizes} has")
    if args.repeats < max(1, args.slow_repeats):
        parser.error("--repeats must be at least 1, and at least --slow-repeats")
    if args.update_results and f"<!-- {_marker(args)} -->" not in RESULTS.read_text(encoding="utf-8"):
        parser.error(f"--update-results: {RESULTS.name} has no line <!-- {_marker(args)} -->")
    return args


def _marker(args: argparse.Namespace) -> str:
    return f"scoring benchmark {args.device} {args.sizes}"


def _plan(args: argparse.Namespace) -> Plan:
    return Plan(
        device=args.device,
        dtype=args.dtype,
        repeats=args.repeats,
        slow_repeats=args.slow_repeats,
        contexts=args.contexts,
        update_contexts=args.update_contexts,
        llm_args=args.llm_args,
    )


def _figures(model: str, times: Times, args: argparse.Namespace) -> dict[str, str]:
    """The rows of one model's column."""
    scoring, update = times.scoring, times.update
    judged = args.sizes == "small" and args.device == "cpu"
    asked_b = f" (≥ {ASKED_SCORING_B[model]:g})" if judged else ""
    asked_c = f" (≥ {ASKED_SCORING_C[model]:g})" if judged else ""
    figures = {"scoring: ours, contexts/s": _rate(args.contexts, scoring["ours"])}
    figures |= {f"scoring: ({way}), contexts/s": _rate(args.contexts, scoring[way]) for way in "abc"}
    figures |= {
        "scoring: ours / (b)": _ratio(scoring["b"], scoring["ours"]) + asked_b,
        "scoring: ours / (c)": _ratio(scoring["c"], scoring["ours"]) + asked_c,
        "scoring: ours, context tokens/s": f"{times.context_tokens / scoring['ours']:.0f}",
        "largest difference from (a), nats": f"{times.difference:.1e}",
        "update: ours, s": f"{update['ours']:.3g}",
        "update: (b), s": f"{update['b']:.3g}",
        "update: bound (c), s": f"{update['c']:.3g}",
        "update: ours / bound": _ratio(update["c"], update["ours"]) + (" (≥ 0.85)" if judged else ""),
    }
    figures |= {f"{work}: GPU computes, share": f"{share:.2f}" for work, share in times.gpu_busy.items()}
    return figures


def _text(columns: dict[str, dict[str, str]], args: argparse.Namespace) -> str:
    names = list(dict.fromkeys(name for figures in columns.values() for name in figures))
    rows = [[name, *(figures.get(name, "") for figures in columns.values())] for name in names]
    extra = f"; ours with {json.dumps(args.llm_args)}" if args.llm_args else ""
    memory = "" if "memory" in args.skip else f", memory with {memory_contexts(args)}"
    note = (
        f"{report.machine(args.device, args.threads)}. {args.sizes} shapes, {args.dtype}; scoring {args.contexts} "
        f"contexts, updates with {args.update_contexts}{memory}; medians of {args.repeats} repetitions, "
        f"{args.slow_repeats} for (a) and (b){extra}."
    )
    return report.table(["", *(NAMES[model] for model in columns)], rows) + f"\n\n{note}"


def _rate(count: int, seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{count / seconds:.3g}"


def _ratio(theirs: float, ours: float) -> str:
    return "-" if math.isnan(theirs) else f"{theirs / ours:.2f}"


if __name__ == "__main__":
    sys.exit(main())
