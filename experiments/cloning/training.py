"""The loop of behavioural cloning: step, record, evaluate, checkpoint."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from experiments.cloning.data import Transitions, batches, split
from experiments.cloning.learner import Learner
from experiments.cloning.options import CloningOptions
from experiments.cloning.processes import make_accelerator
from experiments.cloning.run import RunFolder
from experiments.errors import UserError
from experiments.nonfinite import DivergedError, SkippedSteps
from experiments.stopping import Stopped, finishing_steps, stop_signal
from experiments.storage import StorageError

logger = logging.getLogger(__name__)


def train(options: CloningOptions, data: Transitions) -> None:
    """Clone until `options.epochs` are over; resumes where a checkpoint stands.

    Raises:
        UserError: data, model, folder or launch do not fit the options; or numbers are not finite.
        Stopped: a signal came to any process; all have finished the same gradient step, and it is saved.
    """
    accelerator = make_accelerator(options)
    settings = options.settings(accelerator.num_processes)
    settings |= {"data": {"transitions": len(data), "sha256": data.sha256()}}
    run = RunFolder(options.output_dir, settings) if accelerator.is_main_process else None
    with ExitStack() as opened:
        finished, checkpoint, counters = _look_into(run, opened)
        if finished:
            logger.info("%s is finished: give another --output_dir for another run", options.output_dir)
        else:
            try:
                _learn(accelerator, options, data, run, checkpoint, counters)
            except StorageError as error:
                raise (error if run is None else error.add(run.store.safe("step"))) from error.__cause__
    accelerator.end_training()


def _look_into(run: RunFolder | None, opened: ExitStack) -> tuple[bool, Path | None, dict[str, Any]]:
    """Whether the run is finished, its newest checkpoint and its counters: what the main process finds holds for all.

    Args:
        run: the run's folder in the main process, None in the others.
        opened: keeps the folder claimed.
    """
    found: list[Any] = [None, False, None, {}]
    if run is not None:
        try:
            opened.enter_context(run.claimed())
            found = [None, True, None, {}] if run.finished else [None, False, *run.resume()]
        except UserError as error:  # the others must not wait for what will not come
            found = [str(error), False, None, {}]
    problem, *outcome = broadcast_object_list(found)
    if problem is not None:
        raise UserError(problem)
    return tuple(outcome)


def _learn(
    accelerator: Accelerator,
    options: CloningOptions,
    data: Transitions,
    run: RunFolder | None,
    checkpoint: Path | None,
    counters: dict[str, Any],
) -> None:
    """From a checkpoint, or the start, to the end."""
    learnt, evaluated = split(
        data,
        train_transitions=options.train_transitions,
        eval_share=options.eval_share,
        eval_transitions=options.eval_transitions,
    )
    world = accelerator.num_processes
    total_batch = options.total_batch(world)
    steps = options.epochs * math.ceil(len(learnt) / total_batch)
    learner = Learner(accelerator, options, checkpoint, steps=steps)
    learner.check(data)
    logger.info(
        "%d gradient steps of %d pairs (%d per process and forward, %d forwards, %d process%s); "
        "%d pairs to learn from, %d to evaluate on",
        steps, total_batch, options.per_device_batch_size, options.gradient_accumulation_steps, world,
        "" if world == 1 else "es", len(learnt), len(evaluated),
    )  # fmt: skip
    loop = Loop(options, run, learner, steps, counters)
    order = batches(len(learnt), total_batch, seed=options.seed, epochs=options.epochs)
    if run is not None:
        run.begin(loop.step - loop.unrecorded)
    with loop.progress_bar(), finishing_steps():
        if loop.unrecorded:
            loop.record(evaluated)
        for batch in islice(order, loop.step, None):
            if loop.unrecorded or loop.stopping():
                break
            loop.learn([learnt.prompts[i] for i in batch], [learnt.actions[i] for i in batch])
            loop.record(evaluated)
            loop.checkpoint_if_due()
        if loop.step < steps or loop.unrecorded:
            by = stop_signal() or "a signal to another process"
            resumed_at = loop.checkpoint_to_stop()
            accelerator.wait_for_everyone()  # a launcher kills the others when the first is gone
            raise Stopped(f"stopped by {by} after step {loop.step}: the same command goes on from {resumed_at}")
        if run is not None:
            run.finish(loop.last_row, learner.save_model)
            logger.info("done: %s", options.output_dir)


class Loop:
    """The counters of a run, and what becomes of them.

    Attributes:
        step: gradient steps so far.
        unrecorded: the last step is over, but what is to be recorded of it is not, as a signal came meanwhile.
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
        self.skipped: int = counters.get("skipped", 0)  # likewise, gradient steps
        self.skipping = SkippedSteps(options.max_skipped_steps, speaks=run is not None)
        self._overdue = False  # a checkpoint that was due has been put off
        self._lr: float = counters.get("lr", 0.0)  # of the last step
        self.unrecorded: bool = counters.get("unrecorded", False)
        self.last_row: dict[str, Any] = {}
        self._first, self._started = (self.step, time.perf_counter())
        self._saved, self._saved_recorded = self.step, not self.unrecorded  # the newest checkpoint
        self._bar: Any = None

    @contextmanager
    def progress_bar(self) -> Iterator[None]:
        """A bar in the main process, where there is a terminal; log lines stand above it."""
        disable = None if self.run is not None else True
        redirect = logging_redirect_tqdm() if sys.stderr.isatty() else nullcontext()
        with redirect, tqdm(total=self.steps, initial=self.step, unit="step", disable=disable) as self._bar:
            yield

    def learn(self, prompts: list[str], actions: list[str]) -> None:
        """One gradient step.

        Raises:
            UserError: too many in a row were skipped, as loss or gradient is not finite.
        """
        self._lr = self.learner.lr
        loss, grad_norm, tokens = self.learner.step(prompts, actions)
        self.step += 1
        self.examples += len(prompts)
        try:
            if self.skipping.taken(loss, grad_norm, self.step):
                self.nll += loss * tokens
                self.tokens += tokens
            else:
                self.skipped += 1
        except DivergedError as error:
            raise UserError(self._explain(str(error))) from error
        self.unrecorded = True
        self._bar.update()

    def stopping(self) -> bool:
        """Whether a signal has come to any process; every process gets the same answer."""
        return self.learner.in_any_process(stop_signal() is not None)

    def _explain(self, problem: str) -> str:
        """What is to be said where numbers that are not finite end the run."""
        other = "" if self.options.dtype == "fp32" else f" or --dtype fp32 (was {self.options.dtype})"
        start = f"the checkpoint of step {self._saved}, which is intact" if self._saved else "its start"
        return (
            f"{problem}; the same command goes on from {start}; if it ends here again, give a lower --lr{other} and "
            "another --output_dir, or a larger --max_skipped_steps"
        )

    def record(self, evaluated: Transitions) -> None:
        """A row of log.csv and a log line where one is due, with an evaluation where that is due.

        A signal ends the evaluation; the row is then left to the next start.
        """
        is_last = self.step == self.steps
        evaluate = len(evaluated) > 0 and (is_last or self.step % self.options.eval_every == 0)
        if not (evaluate or is_last or self.step % self.options.log_every == 0):
            self.unrecorded = False
            return
        row: dict[str, Any] = dict.fromkeys(("eval_loss", "perplexity"), "")
        row |= {"step": self.step, "examples": self.examples, "lr": self._lr}
        row["train_loss"] = self.nll / self.tokens if self.tokens else ""  # where all steps were skipped
        if evaluate:
            loss = self.learner.evaluate(evaluated, lambda: stop_signal() is not None)
            if loss is None:
                return
            if not math.isfinite(loss):  # the model of a checkpoint, or of the end, would be broken
                raise UserError(self._explain(f"the evaluation loss after gradient step {self.step} is {loss}"))
            row |= {"eval_loss": loss, "perplexity": math.exp(min(loss, 700.0))}  # the largest float is about e^709
        skipped = f" | {self.skipped} skipped" if self.skipped else ""
        self.nll, self.tokens, self.skipped = 0.0, 0, 0
        self.last_row, self.unrecorded = row, False
        if self.run is not None:
            self.run.log.append([row])
        logger.info("%s%s", self._log_line(row), skipped)

    def _log_line(self, row: dict[str, Any]) -> str:
        seconds = (time.perf_counter() - self._started) / max(self.step - self._first, 1)
        loss = "-" if row["train_loss"] == "" else f"{row['train_loss']:.4f}"
        line = f"step {self.step}/{self.steps} | loss {loss} | lr {row['lr']:.2e}"
        if row["eval_loss"] != "":
            line += f" | evaluation loss {row['eval_loss']:.4f} | perplexity {row['perplexity']:.3f}"
        return f"{line} | {seconds:.2f} s/step | {(self.steps - self.step) * seconds / 60:.1f} min left"

    def checkpoint_if_due(self) -> None:
        """Every `checkpoint_every` gradient steps; the end needs none.

        It is put off while the latest steps were skipped: the weights may be what is broken.
        """
        due = self._overdue or self.step % self.options.checkpoint_every == 0
        self._overdue = due and self.skipping.in_a_row > 0
        if due and not (self._overdue or self.unrecorded or self.step == self.steps):
            self._checkpoint()

    def checkpoint_to_stop(self) -> str:
        """A checkpoint of this step, unless the latest steps were skipped; returns from where the run goes on."""
        if self.skipping.in_a_row > 0:
            return f"step {self._saved}"
        if (self._saved, self._saved_recorded) != (self.step, not self.unrecorded):
            self._checkpoint()
        return "there"

    def _checkpoint(self) -> None:
        self._saved, self._saved_recorded = self.step, not self.unrecorded
        if self.run is not None:
            counters = {"update": self.step, "examples": self.examples, "nll": self.nll, "tokens": self.tokens}
            counters |= {"skipped": self.skipped, "lr": self._lr, "unrecorded": self.unrecorded}
            self.run.checkpoint(counters, self.learner.save)
