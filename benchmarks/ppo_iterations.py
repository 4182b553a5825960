"""Whole PPO iterations of our trainer: rollout, update, records and checkpoint, on a model from config.

On a GPU, Flan-T5-large's shape, GLAM's mixed tasks, 32 environments x 40 steps:
    python benchmarks/ppo_iterations.py --device cuda --model t5 --size large --dtype bf16
LLaMA-7B's shape, an experiment of TWOSOME's, all in half precision as published, and in 4 bits:
    python benchmarks/ppo_iterations.py --device cuda --model llama --size xl --dtype fp16 \\
        --experiment twosome_food_preparation
    python benchmarks/ppo_iterations.py --device cuda --model llama --size xl --dtype bf16 \\
        --experiment twosome_food_preparation lamorel_args.llm_args.load_in_4bit=true
A trial of the script on a CPU:
    python benchmarks/ppo_iterations.py --size tiny --iterations 1 rl_script_args.number_envs=4 \\
        rl_script_args.frames_per_proc=5

Prints steps/s all in, where the time goes, and the hours that the experiment would take at that rate. Weights are
random, so the agent acts at random and episodes are long; prompts are those of the real environment, a token a word.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import report
import torch
from scoring_workload import SHAPES, write_model

from experiments.configuration import Config, parse_config
from experiments.environments import check_environment
from experiments.experiment_paths import ExperimentPaths
from experiments.hydra_script import compose_experiment
from experiments.llm_side import open_llm_agent
from experiments.tiny_llm.vocabulary import word_level_tokenizer, written_texts
from experiments.training_run import TrainingRun

PARTS = ("rollout", "update", "records and checkpoint")


def main() -> int:
    args = _arguments()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        model, config = Path(folder) / "model", compose_config(Path(folder), args)
        check_environment(config.rl)  # registers it
        texts = written_texts(config.rl, 20) if config.rl.prompter == "environment" else None
        write_model(model, args.model, args.size, args.dtype, word_level_tokenizer(texts), args.device)
        seconds, memory = measure(config, args)
    text = _text(seconds, memory, config, args)
    print(text)
    if args.output is not None:
        args.output.write_text(text + "\n", encoding="utf-8")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["t5", "llama"], default="t5")
    parser.add_argument("--size", choices=list(SHAPES), default="small")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["fp32", "bf16", "fp16"], default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=3, help="measured; one more comes first, to warm up")
    parser.add_argument("--experiment", default="q1_mixed", help="overlays of configs/experiment")
    parser.add_argument("--output", type=Path, help="file for the table")
    parser.add_argument("overrides", nargs="*", help="further keys of configs/base.yaml, as key=value")
    return parser.parse_args()


def compose_config(folder: Path, args: argparse.Namespace) -> Config:
    """What `train_language_agent.py` would read."""
    llm, rl = "lamorel_args.llm_args", "rl_script_args"
    overrides = [
        f"machine={'gpu' if args.device == 'cuda' else 'cpu'}",
        f"{llm}.model_type={'seq2seq' if args.model == 't5' else 'causal'}",
        f"{llm}.model_path={folder}/model",
        f"{llm}.dtype={args.dtype}",
        f"{rl}.saving_path_logs={folder}/logs",
        f"{rl}.saving_path_model={folder}/models",
        *args.overrides,
    ]
    return parse_config(compose_experiment(args.experiment, overrides), model_exists=False)


def measure(config: Config, args: argparse.Namespace) -> tuple[dict[str, float], float]:
    """Seconds of each part of one iteration, means over the iterations; GB in use at most, on a GPU."""
    seconds = dict.fromkeys(PARTS, 0.0)
    paths = ExperimentPaths.of(config)
    paths.make_writable()
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()  # of the model that was written
    with TrainingRun(config, paths, open_llm_agent) as run:
        run.resume()
        for iteration in range(args.iterations + 1):
            rollout, first = _timed(run.agent.collect_rollout, args.device)
            stats, second = _timed(lambda rollout=rollout: run.agent.update(rollout), args.device)
            start = time.perf_counter()
            run.record(rollout, stats, seconds=first + second)
            run.checkpoint_if_due()
            third = time.perf_counter() - start
            print(f"iteration {iteration}: {first:.2f} + {second:.2f} + {third:.2f} s", file=sys.stderr, flush=True)
            if iteration > 0:
                for part, took in zip(PARTS, (first, second, third), strict=True):
                    seconds[part] += took / args.iterations
    memory = torch.cuda.max_memory_allocated() / 1e9 if args.device == "cuda" else float("nan")
    return seconds, memory


def _timed(work: Callable[[], Any], device: str) -> tuple[Any, float]:
    start = time.perf_counter()
    result = work()
    if device == "cuda":
        torch.cuda.synchronize()
    return result, time.perf_counter() - start


def _text(seconds: dict[str, float], memory: float, config: Config, args: argparse.Namespace) -> str:
    rl, total = config.rl, sum(seconds.values())
    steps, needed = rl.number_envs * rl.frames_per_proc, rl.num_steps / 86_400
    rows = [[f"{part}, s", f"{took:.2f} ({took / total:.0%})"] for part, took in seconds.items()]
    rows += [
        ["steps/s, all in", f"{steps / total:.3g}"],
        [f"of the {needed:.1f} steps/s that {rl.num_steps:,} steps in 24 h need", f"{steps / total / needed:.2f}"],
        [f"hours for {rl.num_steps:,} steps", f"{rl.num_steps / (steps / total) / 3600:.3g}"],
    ]
    if args.device == "cuda":
        rows.append(["peak GPU memory, GB", f"{memory:.1f}"])
    note = (
        f"{report.machine(args.device, args.threads)}. {args.model}, {args.size} shape, {args.dtype}; "
        f"experiment={args.experiment}, {rl.number_envs} environments x {rl.frames_per_proc} steps; means of "
        f"{args.iterations} iterations{'; ' + ' '.join(args.overrides) if args.overrides else ''}."
    )
    return report.table([f"one iteration of {steps} steps", args.model], rows) + f"\n\n{note}"


if __name__ == "__main__":
    sys.exit(main())
