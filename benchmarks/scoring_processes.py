"""Scoring through LLM processes against scoring in process; started by scoring.py through the launcher.

The RL process holds a model of its own beside the Caller, and the two take turns, so that the ratio does not depend on
how busy the machine is at the moment. Writes JSON: median seconds of a call, `in_process` and `launched`.
"""

import json
import statistics
import time
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from scoring_workload import CANDIDATES, Value, make_prompts

from lamorel import Caller, lamorel_init
from lamorel.config import parse_config
from lamorel.worker import Worker

lamorel_init()


@hydra.main(config_path=None, config_name=None, version_base=None)
def main(config: DictConfig) -> None:
    args = config.rl_script_args
    torch.set_num_threads(args.threads)  # LLM processes never come here: theirs are set by OMP_NUM_THREADS
    with Caller(config.lamorel_args, custom_module_functions={"value": Value()}) as caller:
        tree: Any = OmegaConf.to_container(config.lamorel_args)
        worker = Worker(parse_config(tree), None, {"value": Value()}, None)
        ways = {
            "in_process": lambda prompts, options: worker.outputs(["__score", "value"], prompts, options, {}),
            "launched": lambda prompts, options: caller.score(prompts, options, ["value"]),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for repetition in range(args.repeats + 1):
            prompts = make_prompts(args.contexts, repetition)
            for name, way in ways.items():
                start = time.perf_counter()
                way(prompts, [CANDIDATES] * args.contexts)
                if repetition > 0:  # the first one warms up
                    seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(some) for name, some in seconds.items()}
    Path(args.output).write_text(json.dumps(medians), encoding="utf-8")


if __name__ == "__main__":
    main()
