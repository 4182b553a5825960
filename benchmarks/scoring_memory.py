"""Peak memory of one scoring call or one update, in a process of its own; started by scoring.py.

    python benchmarks/scoring_memory.py FOLDER scoring|update --contexts 64 --device cpu --dtype fp32 --threads 2

Prints one line of JSON, in bytes: `loaded`, in use once the model is loaded, and `peak`, the most in use from then on.
On a CPU this is the process's resident memory, libraries included; on a GPU, what torch's allocator handed out.
"""

import argparse
import json
from pathlib import Path

import torch
import transformers
from scoring_workload import CANDIDATES, Updater, Value, lamorel_args, make_prompts, ppo_rows

from lamorel import Caller


def begin(device: str) -> int:
    """Bytes in use now; the peak is counted from here."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")  # the kernel's way to reset VmHWM
    return _status("VmRSS")


def peak(device: str) -> int:
    """The most bytes in use since `begin`."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else _status("VmHWM")


def _status(key: str) -> int:
    """Bytes, of this process alone. (ru_maxrss would begin with the peak of the process that started it.)"""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("work", choices=["scoring", "update"])
    parser.add_argument("--contexts", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--llm-args", type=json.loads, default={})
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    causal = not transformers.AutoConfig.from_pretrained(args.folder).is_encoder_decoder
    gpu = args.device == "cuda"
    config = lamorel_args(args.folder, causal=causal, dtype=args.dtype, gpu=gpu, **args.llm_args)
    with Caller(config, Updater(), {"value": Value()}) as caller:
        loaded = begin(args.device)
        prompts, candidates = make_prompts(args.contexts), [CANDIDATES] * args.contexts
        if args.work == "scoring":
            caller.score(prompts, candidates, ["value"])
        else:
            caller.update(prompts, candidates, **ppo_rows(args.contexts))
        print(json.dumps({"loaded": loaded, "peak": peak(args.device)}))


if __name__ == "__main__":
    main()
