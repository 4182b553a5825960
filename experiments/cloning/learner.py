"""The model that clones, with its optimizer and schedule, in one process or several."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from tqdm import tqdm
from transformers import get_cosine_schedule_with_warmup

from experiments.cloning.data import Transitions
from experiments.cloning.loss import CloningLoss
from experiments.cloning.options import CloningOptions
from experiments.errors import UserError
from experiments.nonfinite import can_be_taken
from lamorel.adapters import has_adapter, merged
from lamorel.config import LLMArgs, parse_config
from lamorel.loading import load_model, load_tokenizer, model_type_of, quiet, read_any_config
from lamorel.placement import place
from lamorel.tokenization import TextEncoder
from lamorel.vocabulary import rows

OPTIMIZER_FILE = "optimizer.pt"


class Learner:
    """Gradient steps on batches of (prompt, action) pairs, and evaluation.

    Every process holds the whole model and calls the same methods with the same arguments; each takes its share.

    Args:
        folder: checkpoint to go on from; None starts from `model_dir`.
        steps: gradient steps of the whole run, which the learning rate's schedule is made for.

    Raises:
        UserError, LamorelConfigError: the model cannot be loaded.
    """

    def __init__(self, accelerator: Accelerator, options: CloningOptions, folder: Path | None, *, steps: int) -> None:
        self.accelerator = accelerator
        self.per_device_batch_size = options.per_device_batch_size
        source = options.model_dir if folder is None else str(folder)
        model, encoder, args = load(
            source, accelerator.device, add_bos=options.add_bos, candidate_prefix=options.candidate_prefix
        )
        self.loss = CloningLoss(model, encoder, args)
        self.parallel = accelerator.prepare(self.loss)  # DistributedDataParallel with several processes
        self.optimizer = torch.optim.AdamW(self.loss.parameters(), lr=options.lr, weight_decay=0.0)
        # the first step of a warm-up has a learning rate of 0, so that the only step of a run must not be one
        warmup = min(math.ceil(options.warmup_share * steps), steps - 1)
        self.schedule = get_cosine_schedule_with_warmup(self.optimizer, warmup, steps)
        if folder is not None:
            state = torch.load(folder / OPTIMIZER_FILE, map_location="cpu", weights_only=True)
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])

    @property
    def lr(self) -> float:
        """The learning rate of the next gradient step."""
        return float(self.schedule.get_last_lr()[0])

    def check(self, data: Transitions) -> None:
        """Raises UserError, naming the file, for pairs that this model cannot take."""
        first = {action: index for index, action in reversed(list(enumerate(data.actions)))}
        for action, ids in zip(first, self.loss.tokens(list(first)), strict=True):
            if not ids:
                raise UserError(f"{data.where(first[action])}: the action {action!r} has no tokens in this tokenizer")
        if self.loss.forwards.learned_positions is None:
            return  # positions are computed and have no end
        for index in tqdm(range(len(data)), desc="lengths", unit="pair", disable=self._no_bar):
            prompt, action = data.prompts[index], data.actions[index]
            try:
                self.loss.forwards.check_lengths(self.loss.encoder.contexts([prompt]), [self.loss.tokens([action])])
            except ValueError as error:
                raise UserError(f"{data.where(index)}: {error}") from error

    def step(self, prompts: Sequence[str], actions: Sequence[str]) -> tuple[float, float, int]:
        """One gradient step of AdamW; the loss is the mean over all action tokens of the batch, of every process.

        Neither weights nor optimizer nor schedule change unless the step `can_be_taken`.

        Returns:
            that loss before the step (nats per token), the norm of its gradient, both the same in every process, and
            the number of tokens.
        """
        world = self.accelerator.num_processes
        tokens = sum(map(len, self.loss.tokens(actions)))
        # Every process must run as many forwards as the one with the largest share: empty ones, of no weight.
        forwards = math.ceil(math.ceil(len(prompts) / world) / self.per_device_batch_size)
        parts = self._share(prompts)
        parts += [[]] * (forwards - len(parts))
        total = torch.zeros((), dtype=torch.float64, device=self.accelerator.device)
        for number, part in enumerate(parts, start=1):
            last = number == forwards
            with nullcontext() if last else self.accelerator.no_sync(self.parallel):  # gradients are exchanged once
                loss = self.parallel([prompts[i] for i in part or [0]], [actions[i] for i in part or [0]])
                # DistributedDataParallel divides by the number of processes.
                loss = loss * (world / tokens if part else 0.0)
                self.accelerator.backward(loss)
            total += loss.detach()
        mean = float(self.accelerator.reduce(total)) / world
        grad_norm = float(torch.nn.utils.clip_grad_norm_(self.loss.parameters(), math.inf))  # infinity clips nothing
        if can_be_taken(mean, grad_norm):
            self.optimizer.step()
            self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        return mean, grad_norm, tokens

    @torch.no_grad()
    def evaluate(self, data: Transitions, stopping: Callable[[], bool] = lambda: False) -> float | None:
        """The mean negative log-likelihood of the action tokens, nats per token.

        Args:
            stopping: asked between two forwards; where it is true in any process, the evaluation ends without a result.
        """
        total = torch.zeros((), dtype=torch.float64, device=self.accelerator.device)
        parts = self._share(data.prompts)
        forwards = math.ceil(math.ceil(len(data) / self.accelerator.num_processes) / self.per_device_batch_size)
        parts += [[]] * (forwards - len(parts))  # every process must ask equally often
        for part in tqdm(parts, desc="evaluation", unit="batch", leave=False, disable=self._no_bar):
            if self.in_any_process(stopping()):
                return None
            if part:
                total += self.loss([data.prompts[i] for i in part], [data.actions[i] for i in part])
        tokens = sum(map(len, self.loss.tokens(data.actions)))
        return float(self.accelerator.reduce(total)) / tokens

    def in_any_process(self, holds: bool) -> bool:
        """Whether `holds` is true in one process at least; all must ask together."""
        if self.accelerator.num_processes == 1:
            return holds
        return bool(self.accelerator.reduce(torch.tensor(float(holds), device=self.accelerator.device)) > 0)

    @property
    def _no_bar(self) -> bool | None:
        """tqdm's `disable`: a bar in the main process alone, and there only with a terminal."""
        return None if self.accelerator.is_main_process else True

    def _share(self, prompts: Sequence[str]) -> list[list[int]]:
        """The pairs of this process, one list per forward; similar lengths run together, so that padding is small."""
        mine = range(self.accelerator.process_index, len(prompts), self.accelerator.num_processes)
        ordered = sorted(mine, key=lambda i: len(prompts[i]))
        size = self.per_device_batch_size
        return [ordered[start : start + size] for start in range(0, len(ordered), size)]

    def save_model(self, folder: Path) -> None:
        """Write model and tokenizer in Hugging Face format."""
        with quiet():
            self.loss.model.save_pretrained(folder)
            self.loss.encoder.tokenizer.save_pretrained(folder)

    def save(self, folder: Path) -> None:
        """Write what `folder` of the constructor takes."""
        self.save_model(folder)
        state = {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}
        torch.save(state, folder / OPTIMIZER_FILE)


def load(
    source: str, device: torch.device, *, add_bos: bool = False, candidate_prefix: str = "none"
) -> tuple[Any, TextEncoder, LLMArgs]:
    """The model of a folder or hub id in fp32, adapters merged into its weights, its tokenizer, and lamorel's settings.

    Args:
        add_bos, candidate_prefix: lamorel's keys of these names (`TextEncoder`).

    Raises:
        UserError, LamorelConfigError: it cannot be loaded.
    """
    texts = {"add_bos": add_bos, "candidate_prefix": candidate_prefix}
    args = parse_config({"llm_args": {"model_path": source, **texts}}).llm_args
    config = read_any_config(args)
    args = replace(args, model_type=model_type_of(config))
    encoder = TextEncoder(load_tokenizer(args), add_bos=args.add_bos, candidate_prefix=args.candidate_prefix)
    model = load_model(args, config, device)
    if has_adapter(model):
        try:
            model = place(merged(model), args, device).eval()
        except ValueError as error:
            raise UserError(f"--model_dir {source} is an adapter: {error}") from error
    encoder.fit_to(rows(model))
    return model.requires_grad_(True), encoder, args
