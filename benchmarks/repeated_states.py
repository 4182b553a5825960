"""One iteration of TWOSOME with SmolLM2 in food preparation, beside the same without what repeated states save.

    make train-llm                                       # once: it prepares the model
    python benchmarks/repeated_states.py [--model storage/smollm2-135m-instruct] [--rounds 2] [--threads 2]

Measures, in turns and in one process, acting and learning of an update:

    ours          a state that comes again in a rollout or a gradient step runs once, and the critic learns from the
                  features of acting
    every state   each state of a call runs, and the critic runs the frozen model again
    bound         Hugging Face's model without its LM head over every prompt once, by length, in padded batches of 8:
                  forward for acting, forward and backward for learning
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from experiments.agents.ppo.llm_policy import LLMPolicy
from experiments.agents.ppo.rollout import Rollout
from experiments.configuration import Config, parse_config
from experiments.environments import check_environment
from experiments.hydra_script import compose_experiment
from experiments.llm_side import open_llm_agent
from lamorel.llm import LLMModule

BATCH = 8


@contextmanager
def every_state() -> Iterator[None]:
    """What the trainer would do without merging equal states."""
    with (
        mock.patch.object(LLMModule, "_run_once", return_value=False),
        mock.patch.object(LLMPolicy, "keeps_features", False),
        mock.patch.object(LLMPolicy, "independent_states", False),
    ):
        yield


def bound(agent: Any, rollout: Rollout, *, backward: bool) -> None:
    """One pass over every prompt of a rollout."""
    module = agent.caller._worker._llm.module
    prompts = [state.prompt for row in rollout.observations for state in row]
    contexts = sorted(module.encoder.contexts(prompts), key=len)
    model = module._LLM_model.get_base_model().model
    with torch.set_grad_enabled(backward):
        for start in range(0, len(contexts), BATCH):
            rows = contexts[start : start + BATCH]
            width = max(map(len, rows))
            ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
            states = model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            if backward:
                states.float().sum().backward()
    module.zero_grad()


def seconds(action: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="storage/smollm2-135m-instruct")
    parser.add_argument("--experiment", default="smollm2_food_preparation")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found: dict[str, dict[str, list[float]]] = {
        name: {"acting": [], "learning": []} for name in ("ours", "every state", "bound")
    }
    with tempfile.TemporaryDirectory() as folder:
        config = _config(args, folder)
        check_environment(config.rl)
        with open_llm_agent(config) as agent:
            agent.collect_rollout()  # chooses how the model is scored
            for _ in range(args.rounds):
                time_acting, rollout = seconds(agent.collect_rollout)
                found["ours"]["acting"].append(time_acting)
                found["ours"]["learning"].append(seconds(lambda: agent.update(rollout))[0])  # noqa: B023 (called here)
                for part, backward in (("acting", False), ("learning", True)):
                    found["bound"][part].append(seconds(lambda: bound(agent, rollout, backward=backward))[0])  # noqa: B023
                with every_state():
                    time_acting, rollout = seconds(agent.collect_rollout)
                    found["every state"]["acting"].append(time_acting)
                    found["every state"]["learning"].append(seconds(lambda: agent.update(rollout))[0])  # noqa: B023
            decisions = rollout.frames
    medians = {
        name: {part: statistics.median(values) for part, values in parts.items()} for name, parts in found.items()
    }
    print(f"{decisions} decisions an update, {args.threads} threads; decisions per second:")
    for name, parts in medians.items():
        print(f"{name:12}" + "".join(f"  {part} {decisions / value:6.1f}" for part, value in parts.items()))
    for other in ("every state", "bound"):
        ratios = {part: medians[other][part] / medians["ours"][part] for part in ("acting", "learning")}
        print(f"ours / {other}: acting {ratios['acting']:.2f}, learning {ratios['learning']:.2f}")
    return 0


def _config(args: argparse.Namespace, folder: str) -> Config:
    keys = {"saving_path_logs": Path(folder) / "logs", "saving_path_model": Path(folder) / "models"}
    overrides = [f"rl_script_args.{key}={value}" for key, value in keys.items()]
    return parse_config(
        compose_experiment(args.experiment, [*overrides, f"lamorel_args.llm_args.model_path={args.model}"])
    )


if __name__ == "__main__":
    sys.exit(main())
