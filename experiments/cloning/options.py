"""The options of behavioural cloning."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.cloning.experiment import FILES, experiment_folders


@dataclass(frozen=True)
class CloningOptions:
    """What the command line gave; `parse_arguments` explains each."""

    data_dir: Path
    file_name: str
    file_id: str
    model_dir: str
    output_dir: Path
    per_device_batch_size: int
    gradient_accumulation_steps: int
    seed: int
    lr: float
    warmup_share: float
    epochs: int
    train_transitions: int
    eval_share: float
    eval_transitions: int | None
    eval_every: int
    log_every: int
    checkpoint_every: int
    max_skipped_steps: int
    dtype: str
    add_bos: bool
    candidate_prefix: str

    def total_batch(self, processes: int) -> int:
        """Pairs per gradient step."""
        return self.per_device_batch_size * self.gradient_accumulation_steps * processes

    def settings(self, processes: int) -> dict[str, Any]:
        """What decides the result, for comparison with a stored run: of the batch only its total size."""
        return {
            "model_dir": self.model_dir,
            "seed": self.seed,
            "total_batch": self.total_batch(processes),
            "lr": self.lr,
            "warmup_share": self.warmup_share,
            "epochs": self.epochs,
            "train_transitions": self.train_transitions,
            "eval_share": self.eval_share,
            "eval_transitions": self.eval_transitions,
            "eval_every": self.eval_every,
            "log_every": self.log_every,
            "dtype": self.dtype,
            "add_bos": self.add_bos,
            "candidate_prefix": self.candidate_prefix,
        }


class _HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """The description as it is written, and every default."""


def parse_arguments(arguments: Sequence[str] | None, description: str | None) -> CloningOptions:
    """The options of the command line; exits with status 2 and argparse's message where one is wrong.

    Raises:
        UserError: --experiment names what configs/ does not have.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=_HelpFormatter)

    # fmt: off
    add = parser.add_argument
    folder: dict[str, Any] = {"default": argparse.SUPPRESS}  # no default in the help
    add("--experiment", nargs="+", metavar=("OVERLAYS", "KEY=VALUE"), **folder,
        help="overlays of a training, such as actions_6, and any overrides of its keys: the folders are those "
        "where its export (overlays export_trajectories, or bot,export_trajectories) and the test of its clone "
        "(cloned_agent, cloned_bot) have them; in place of --data_dir, --model_dir and --output_dir, or of those "
        "that are not given")
    add("--data_dir", type=_path, **folder, help="folder of the exported files, logs/ID/test/LEVEL")
    add("--file_name", choices=tuple(FILES), default="trajectories", help="whose: of the trained agent, or of the bot")
    add("--file_id", default="all", help="files to read: one number, a range such as 0-12, or all")
    add("--model_dir", **folder,
        help="model to start from: a Hugging Face folder, a checkpoint models/ID/last, or a hub id")
    add("--output_dir", type=_path, **folder, help="folder of the cloned model: a new one, or of a run to resume")
    add("--per_device_batch_size", type=_count, default=16, help="pairs per forward and process")
    add("--gradient_accumulation_steps", type=_count, default=4, help="forwards per gradient step and process")
    add("--seed", type=_seed, default=1, help="of the order of the pairs")
    add("--lr", type=_positive, default=5e-4, help="AdamW's learning rate at its peak")
    add("--warmup_share", type=_share, default=0.01, help="share of the gradient steps with a rising learning rate")
    add("--epochs", type=_count, default=1, help="passes over the pairs to learn from")
    add("--train_transitions", type=_count, default=400_000,
        help="the first so many pairs are learnt from, all others are for evaluation")
    add("--eval_share", type=_share, default=0.05,
        help="where there are no more than --train_transitions, the last share is for evaluation; 0: none then")
    add("--eval_transitions", type=_count, help="cap on the pairs to evaluate on; None: all that are not learnt from")
    add("--eval_every", type=_count, default=250, help="gradient steps from one evaluation to the next")
    add("--log_every", type=_count, default=25, help="gradient steps from one row of log.csv to the next")
    add("--checkpoint_every", type=_count, default=250, help="gradient steps from one checkpoint to the next")
    add("--max_skipped_steps", type=_count, default=10,
        help="gradient steps whose loss or gradient is not finite are skipped; so many in a row end the run")
    add("--dtype", choices=("fp32", "bf16"), default="fp32",
        help="precision of forward and backward; weights, optimizer and loss are fp32")
    add("--add_bos", action="store_true",
        help="begin every prompt with the tokenizer's BOS, for a model that is to act with llm_args.add_bos=true")
    add("--candidate_prefix", choices=("none", "space", "auto"), default="none",
        help="what stands before every action, the llm_args.candidate_prefix that the model is to act with")
    # fmt: on
    given = vars(parser.parse_args(arguments))
    overlays = given.pop("experiment", None)
    if overlays is not None:
        given = experiment_folders(given["file_name"], given["seed"], *overlays) | given
    absent = [f"--{name}" for name in ("data_dir", "model_dir", "output_dir") if name not in given]
    if absent:
        parser.error(f"the following arguments are required: {', '.join(absent)} (or --experiment)")
    return CloningOptions(**given)


def _number(convert: type, fits: Callable[[Any], bool], expected: str) -> Callable[[str], Any]:
    """A type for argparse: `convert`ed text that `fits`."""

    def parse(text: str) -> Any:
        try:
            value = convert(text)
        except ValueError:
            value = None
        if value is None or not fits(value):
            raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
        return value

    return parse


def _path(text: str) -> Path:
    """A path; of --option=~/folder the shell leaves the ~."""
    return Path(text).expanduser()


_count = _number(int, lambda value: value >= 1, "a whole number of at least 1")
_seed = _number(int, lambda value: value >= 0, "a whole number of at least 0")
_positive = _number(float, lambda value: 0 < value < float("inf"), "a positive number")
_share = _number(float, lambda value: 0 <= value < 1, "a share from 0 to below 1")
