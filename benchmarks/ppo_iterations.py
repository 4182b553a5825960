"""Whole PPO iterations of our trainer: rollout, update, records and checkpoint, on a model from config.

On a GPU, Flan-T5-large's shape, 32 environments x 40 steps:
    python benchmarks/ppo_iterations.py --device cuda --size large --dtype bf16
A trial of the script on a CPU:
    python benchmarks/ppo_iterations.py --size tiny --envs 4 --steps 5 --iterations 1

Prints steps/s all in, where the time goes, and how that compares with the rate that 1.5 million steps in 24 hours need.
Weights are random, so the agent acts at random and episodes are long; prompts are those of the real environment.
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
from hydra import compose, initialize_config_dir
from scoring_workload import SHAPES, write_model

from experiments.configuration import Config, parse_config
from experiments.experiment_paths import ExperimentPaths
from experiments.hydra_script import CONFIG_DIR
from experiments.llm_side import open_llm_agent
from experiments.tiny_llm.vocabulary import word_level_tokenizer
from experiments.training_run import TrainingRun

STEPS_IN_A_DAY = 1_500_000
NEEDED = STEPS_IN_A_DAY / 86_400  # steps/s
PARTS = ("rollout", "update", "records and checkpoint")


def main() -> int:
    args = _arguments()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        write_model(model, args.model, args.size, args.dtype, tokenizer=word_level_tokenizer())
        seconds, memory = measure(compose_config(model, Path(folder), args), args)
    text = _text(seconds, memory, args)
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
    parser.add_argument("--envs", type=int, default=32)
    parser.add_argument("--steps", type=int, default=40, help="per environment and iteration")
    parser.add_argument("--batch-size", type=int, default=64, help="samples per gradient step")
    parser.add_argument("--iterations", type=int, default=3, help="measured; one more comes first, to warm up")
    parser.add_argument("--environment", default="BabyAI-MixedTrainLocal-v0")
    parser.add_argument("--output", type=Path, help="file for the table")
    parser.add_argument("overrides", nargs="*", help="further keys of configs/base.yaml, as key=value")
    return parser.parse_args()


def compose_config(model: Path, folder: Path, args: argparse.Namespace) -> Config:
    """What `train_language_agent.py` would read."""
    llm, rl = "lamorel_args.llm_args", "rl_script_args"
    overrides = [
        f"{llm}.model_type={'seq2seq' if args.model == 't5' else 'causal'}",
        f"{llm}.model_path={model}",
        f"{llm}.dtype={args.dtype}",
        f"{llm}.minibatch_size=192",
        f"{llm}.parallelism.use_gpu={str(args.device == 'cuda').lower()}",
        f"{rl}.saving_path_logs={folder}/logs",
        f"{rl}.saving_path_model={folder}/models",
        f"{rl}.name_environment={args.environment}",
        f"{rl}.number_envs={args.envs}",
        f"{rl}.frames_per_proc={args.steps}",
        f"{rl}.batch_size={args.batch_size}",
        f"{rl}.num_steps={STEPS_IN_A_DAY}",
        *args.overrides,
    ]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return parse_config(compose("base", overrides=overrides))


def measure(config: Config, args: argparse.Namespace) -> tuple[dict[str, float], float]:
    """Seconds of each part of one iteration, means over the iterations; GB in use at most, on a GPU."""
    seconds = dict.fromkeys(PARTS, 0.0)
    paths = ExperimentPaths.of(config)
    paths.make_writable()
    with TrainingRun(config, paths, open_llm_agent) as run:
        run.resume()
        for iteration in range(args.iterations + 1):
            rollout, first = _timed(run.agent.collect_rollout, args.device)
            stats, second = _timed(lambda rollout=rollout: run.agent.update(rollout), args.device)
            start = time.perf_counter()
            run.record(rollout, stats, seconds=first + second)
            run.checkpoint_if_due()
            third = time.perf_counter() - start
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


def _text(seconds: dict[str, float], memory: float, args: argparse.Namespace) -> str:
    steps, total = args.envs * args.steps, sum(seconds.values())
    rows = [[f"{part}, s", f"{took:.2f} ({took / total:.0%})"] for part, took in seconds.items()]
    rows += [
        ["steps/s, all in", f"{steps / total:.3g}"],
        [f"of the {NEEDED:.1f} steps/s that {STEPS_IN_A_DAY:,} steps in 24 h need", f"{steps / total / NEEDED:.2f}"],
        [f"hours for {STEPS_IN_A_DAY:,} steps", f"{STEPS_IN_A_DAY / (steps / total) / 3600:.3g}"],
    ]
    if args.device == "cuda":
        rows.append(["peak GPU memory, GB", f"{memory:.1f}"])
    note = (
        f"{report.machine(args.device, args.threads)}. {args.model}, {args.size} shape, {args.dtype}; {args.envs} "
        f"environments x {args.steps} steps, 4 epochs unless overridden, {args.batch_size} samples per gradient step; "
        f"means of {args.iterations} iterations{'; ' + ' '.join(args.overrides) if args.overrides else ''}."
    )
    return report.table([f"one iteration of {steps} steps", args.model], rows) + f"\n\n{note}"


if __name__ == "__main__":
    sys.exit(main())
