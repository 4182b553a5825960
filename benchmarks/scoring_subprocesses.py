"""The parts of the scoring benchmark that need processes of their own: peak memory, and LLM processes."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from omegaconf import OmegaConf
from report import ROOT
from scoring_workload import lamorel_args

MEMORY_CONTEXTS = 64
_HERE = Path(__file__).parent


def memory_contexts(args: argparse.Namespace) -> int:
    """Prompts whose peak memory is taken: 64, fewer in trials of the script."""
    return min(MEMORY_CONTEXTS, 2 * args.contexts)


def peak_memory(folder: Path, work: str, args: argparse.Namespace) -> dict[str, int]:
    """Bytes in use when the model is `loaded`, and at the `peak` of scoring or of an update (`work`)."""
    command = [sys.executable, str(_HERE / "scoring_memory.py"), str(folder), work]
    command += ["--contexts", str(memory_contexts(args)), "--device", args.device, "--dtype", args.dtype]
    command += ["--threads", str(args.threads), "--llm-args", json.dumps(args.llm_args)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def launched_ratio(folder: Path, model: str, n_llm: int, args: argparse.Namespace) -> float:
    """Throughput with `n_llm` LLM processes, which share the threads, relative to in process; CPU."""
    config = folder / "launched"
    config.mkdir(exist_ok=True)
    output = config / f"{n_llm}.json"
    tree = {
        "defaults": ["_self_", {"override hydra/job_logging": "none"}, {"override hydra/hydra_logging": "none"}],
        "hydra": {"run": {"dir": "."}, "output_subdir": None},
        "lamorel_args": {
            **lamorel_args(folder, causal=model != "t5", dtype=args.dtype, gpu=False, **args.llm_args),
            "distributed_setup_args": {"n_rl_processes": 1, "n_llm_processes": n_llm},
        },
        "rl_script_args": {
            "path": str(_HERE / "scoring_processes.py"),
            "contexts": args.contexts,
            "repeats": args.repeats,
            "threads": args.threads,
            "output": str(output),
        },
    }
    OmegaConf.save(tree, config / "config.yaml")
    command = [sys.executable, "-m", "lamorel_launcher.launch", "--config-path", str(config), "--config-name", "config"]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    threads = str(max(1, args.threads // n_llm))
    subprocess.run(command, env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": threads}, check=True)
    seconds = json.loads(output.read_text(encoding="utf-8"))
    return seconds["in_process"] / seconds["launched"]


def parts(folder: Path, model: str, args: argparse.Namespace) -> dict[str, str]:
    """The rows of the table that these measures fill; `--skip memory,processes` leaves them out."""
    rows: dict[str, str] = {}
    judged = args.sizes == "small" and args.device == "cpu"
    if "memory" not in args.skip:
        torch.cuda.empty_cache()
        for work in ("scoring", "update"):
            found = peak_memory(folder, work, args)
            more = (found["peak"] - found["loaded"]) / 1e9
            limit = ", ≤ 3" if judged and model == "t5" and work == "update" else ""
            rows[f"{work}: peak memory, GB"] = f"{found['peak'] / 1e9:.2f} ({more:.2f} above loaded{limit})"
    if "processes" not in args.skip and args.device == "cpu":
        asked = " (≥ 0.95)" if judged else ""
        rows["scoring: 1 LLM process / in process"] = f"{launched_ratio(folder, model, 1, args):.2f}{asked}"
        rows["scoring: 2 LLM processes / in process"] = f"{launched_ratio(folder, model, 2, args):.2f}"
    return rows
