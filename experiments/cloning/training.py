"""The loop of behavioural cloning: step, record, evaluate, checkpoint."""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast_object_list
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from experiments.cloning.data import Transitions, batches, split
from experiments.cloning.learner import Learner
from experiments.cloning.options import CloningOptions
from experiments.cloning.run import RunFolder
from experiments.errors import UserError

logger = logging.getLogger(__name__)


def train(options: CloningOptions, data: Transitions) -> None:
    """Clone until `options.epochs` are over; resumes where a checkpoint stands.

    Raises:
        UserError: data, model, folder or launch do not fit the options; or the loss is no number any more.
    """
    accelerator = make_accelerator(options)
    is_main, world = accelerator.is_main_process, accelerator.num_processes
    learnt, evaluated = split(
        data,
        train_transitions=options.train_transitions,
        eval_share=options.eval_share,
        eval_transitions=options.eval_transitions,
    )
    settings = options.settings(world) | {"data": {"transitions": len(data), "sha256": data.sha256()}}
    total_batch = settings["total_batch"]
    steps = options.epochs * math.ceil(len(learnt) / total_batch)
    run = RunFolder(options.output_dir, settings)
    with run.claimed() if is_main else nullcontext():
        # what the main process found holds for all
        found: list[Any] = [None, None, {}]
        if is_main:
            found = [True, None, {}] if run.finished else [False, *run.resume()]
        finished, checkpoint, counters = broadcast_object_list(found)
        if finished:
            logger.info("%s is finished: give another --output_dir for another run", options.output_dir)
            return
        learner = Learner(accelerator, options, checkpoint, steps=steps)
        learner.check(data)
        logger.info(
            "%d gradient steps of %d pairs (%d per process and forward, %d forwards, %d process%s); "
            "%d pairs to learn from, %d to evaluate on",
            steps, total_batch, options.per_device_batch_size, options.gradient_accumulation_steps, world,
            "" if world == 1 else "es", len(learnt), len(evaluated),
        )  # fmt: skip
        loop = Loop(options, run if is_main else None, learner, steps, counters)
        order = batches(len(learnt), total_batch, seed=options.seed, epochs=options.epochs)
        if is_main:
            run.begin(loop.step)
        with loop.progress_bar():
            for batch in islice(order, loop.step, None):
                loop.learn([learnt.prompts[i] for i in batch], [learnt.actions[i] for i in batch])
                loop.record(evaluated)
                loop.checkpoint_if_due()
        if is_main:
            run.finish(loop.last_row, learner.save_model)
            logger.info("done: %s", options.output_dir)
    accelerator.end_training()


def make_accelerator(options: CloningOptions) -> Accelerator:
    """The processes that the launcher started, joined.

    Raises:
        UserError: there are not as many as the launcher was asked for, or they would share one model's weights out.
    """
    launched = os.environ.get("WORLD_SIZE")
    # accelerate's launcher knows several CPU processes with MPI alone, sets these two and starts one process
    if launched is None and "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_ADDR" in os.environ:
        raise UserError(
            "accelerate launch was asked for several processes and started one: on CPUs use "
            "ACCELERATE_USE_CPU=true torchrun --standalone --nproc_per_node N experiments/clm_behavioral-cloning.py"
        )
    # without cpu=True, accelerate leaves torchrun's CPU processes alone, each in a world of its own
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(), mixed_precision="bf16" if options.dtype == "bf16" else "no"
    )
    if launched is not None and accelerator.num_processes != int(launched):
        raise UserError(
            f"the launcher promised WORLD_SIZE={launched} processes, but accelerate found {accelerator.num_processes}: "
            "start them with torchrun or accelerate launch"
        )
    known = (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)
    if accelerator.distributed_type not in known:
        raise UserError(
            f"accelerate is configured for {accelerator.distributed_type.value}, but every process holds the whole "
            "model here: use torchrun, or accelerate launch --multi_gpu"
        )
    return accelerator


class Loop:
    """The counters of a run, and what becomes of them.

    Attributes:
        step: gradient steps so far.
        last_row: of log.csv.
    """

    def __init__(
        self, options: CloningOptions, run: RunFolder | None, learner: Learner, steps: int, counters: dict[str, Any]
    ) -> None:
        self.options, self.run, self.learner, self.steps = options, run, learner, steps
        self.step: int = counters.get("update", 0)
        self.examples: int = counters.get("examples", 0)
        self.nll: float = counters.get("nll", 0.0)  # since the last row of log.csv, as `tokens`
        self.tokens: int = counters.get("tokens", 0)
        self.last_row: dict[str, Any] = {}
        self._first, self._started = (self.step, time.perf_counter())
        self._bar: Any = None

    @contextmanager
    def progress_bar(self) -> Iterator[None]:
        """A bar in the main process, where there is a terminal; log lines stand above it."""
        disable = None if self.run is not None else True
        redirect = logging_redirect_tqdm() if sys.stderr.isatty() else nullcontext()
        with redirect, tqdm(total=self.steps, initial=self.step, unit="step", disable=disable) as self._bar:
            yield

    def learn(self, prompts: list[str], actions: list[str]) -> None:
        """One gradient step."""
        self._lr = self.learner.lr
        loss, tokens = self.learner.step(prompts, actions)
        if not math.isfinite(loss):
            raise UserError(
                f"the loss of step {self.step + 1} is {loss}: remove {self.options.output_dir} and give a lower --lr, "
                "or --dtype fp32"
            )
        self.step += 1
        self.examples += len(prompts)
        self.nll += loss * tokens
        self.tokens += tokens
        self._bar.update()

    def record(self, evaluated: Transitions) -> None:
        """A row of log.csv and a log line where one is due, with an evaluation where that is due."""
        is_last = self.step == self.steps
        evaluate = len(evaluated) > 0 and (is_last or self.step % self.options.eval_every == 0)
        if not (evaluate or is_last or self.step % self.options.log_every == 0):
            return
        row: dict[str, Any] = dict.fromkeys(("eval_loss", "perplexity"), "")
        row |= {"step": self.step, "examples": self.examples, "train_loss": self.nll / self.tokens, "lr": self._lr}
        if evaluate:
            loss = self.learner.evaluate(evaluated)
            row |= {"eval_loss": loss, "perplexity": math.exp(min(loss, 700.0))}  # the largest float is about e^709
        self.nll, self.tokens = 0.0, 0
        self.last_row = row
        if self.run is not None:
            self.run.log.append([row])
        logger.info("%s", self._log_line(row))

    def _log_line(self, row: dict[str, Any]) -> str:
        seconds = (time.perf_counter() - self._started) / (self.step - self._first)
        line = f"step {self.step}/{self.steps} | loss {row['train_loss']:.4f} | lr {row['lr']:.2e}"
        if row["eval_loss"] != "":
            line += f" | evaluation loss {row['eval_loss']:.4f} | perplexity {row['perplexity']:.3f}"
        return f"{line} | {seconds:.2f} s/step | {(self.steps - self.step) * seconds / 60:.1f} min left"

    def checkpoint_if_due(self) -> None:
        """Every `checkpoint_every` gradient steps; the end needs none."""
        if self.run is None or self.step % self.options.checkpoint_every or self.step == self.steps:
            return
        counters = {"update": self.step, "examples": self.examples, "nll": self.nll, "tokens": self.tokens}
        self.run.checkpoint(counters, self.learner.save)
