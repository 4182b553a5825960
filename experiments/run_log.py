"""What a training run records: log.csv, distrib.csv, status.json, config.yaml, provenance.json and the trackers.

Every file can be cut back to an update, so that a resumed run leaves the files of an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from experiments.atomic_files import write_atomically
from experiments.configuration import Config
from experiments.csv_log import CsvLog
from experiments.episodes import Episode
from experiments.errors import UserError
from experiments.provenance import provenance

logger = logging.getLogger(__name__)

STATISTICS = ("mean", "std", "min", "max")
LOSS_COLUMNS = ("entropy", "policy_loss", "value_loss", "loss", "grad_norm")
# beside log.csv's columns, in TensorBoard and wandb
TRACKED = ("approx_kl", "clip_fraction", "gradient_steps", "skipped_gradient_steps", "critic_grad_norm",
           "actor_stopped", "discounted_return_mean", "primitive_steps_mean")  # fmt: skip
STATUS = "status.json"
COLUMNS = (
    "update", "episodes", "frames", "FPS", "duration",
    *(f"return_{s}" for s in STATISTICS), "success_rate",
    *(f"reshaped_return_{s}" for s in STATISTICS), *(f"reshaped_return_bonus_{s}" for s in STATISTICS),
    *(f"num_frames_{s}" for s in STATISTICS), *LOSS_COLUMNS,
)  # fmt: skip


@dataclass
class Progress:
    """How far a run is."""

    update: int = 0
    episodes: int = 0
    frames: int = 0
    duration: float = 0.0  # seconds of training, over all starts of the run


def log_row(
    progress: Progress, episodes: Sequence[Episode], stats: dict[str, float], *, fps: float, reward_scale: float
) -> dict[str, Any]:
    """One row of log.csv. Episode columns describe the episodes that ended during the update; empty when none did, as
    are losses that an agent does not have."""
    row: dict[str, Any] = {
        **asdict(progress),
        "FPS": fps,
        **{name: stats[name] for name in LOSS_COLUMNS if name in stats},
    }
    if episodes:
        returns = np.array([e.episode_return for e in episodes])
        row |= _statistics("return", returns)
        # no shaping bonus exists (reward_shaping_beta is 0), so both scaled returns are the same
        row |= _statistics("reshaped_return", returns * reward_scale)
        row |= _statistics("reshaped_return_bonus", returns * reward_scale)
        row |= _statistics("num_frames", np.array([e.frames for e in episodes]))
        row["success_rate"] = float(np.mean([e.success for e in episodes]))
    return {name: row.get(name, "") for name in COLUMNS}


def tracked_of_episodes(episodes: Sequence[Episode]) -> dict[str, float]:
    """What `TRACKED` shows of the episodes that ended during an update; empty when none did."""
    if not episodes:
        return {}
    return {
        "discounted_return_mean": float(np.mean([e.discounted_return for e in episodes])),
        "primitive_steps_mean": float(np.mean([e.primitive_steps for e in episodes])),
    }


def _statistics(name: str, values: np.ndarray) -> dict[str, float]:
    return {f"{name}_{s}": float(getattr(values, s)()) for s in STATISTICS}


def saved_update(folder: Path) -> int:
    """The update of the newest checkpoint, by status.json of logs/ID; 0 where it tells of none."""
    try:
        return int(json.loads((folder / STATUS).read_text(encoding="utf-8"))["i"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


class RunLog:
    """All that a training run records in `logs/ID`.

    Args:
        config: the run's configuration, written to config.yaml.
        folder: logs/ID.
        probe_actions: the action names of the columns of distrib.csv; empty leaves that file out.
    """

    def __init__(self, config: Config, folder: Path, probe_actions: Sequence[str]) -> None:
        self.config = config
        self.folder = folder
        self.log = CsvLog(folder / "log.csv", COLUMNS)
        self.probe_actions = list(probe_actions)
        columns = ["update", "frames", "prompt", *self.probe_actions]
        self.distrib = CsvLog(folder / "distrib.csv", columns, key=("update", "prompt"))
        self.events: Any = None
        self.wandb: Any = None

    def open(self, progress: Progress) -> None:
        """Cut every file back to `progress` and open the trackers."""
        if (missing := progress.update - self.log.cut_back(progress.update)) > 0:
            logger.warning("%s lacks the rows of %d updates that are over", self.log.path, missing)
        if self.probe_actions:
            self.distrib.cut_back(progress.update)
        self.write_status(progress)
        write_atomically(self.folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(self.config.resolved)))
        write_atomically(self.folder / "provenance.json", json.dumps(provenance(), indent=1))
        if self.config.rl.tensorboard:
            from experiments.event_file import EventFile

            self.events = EventFile(self.folder, first_step=progress.update + 1)
        if self.config.rl.wandb:
            import wandb

            rl = self.config.rl
            # of the folder, so that a resumed run is the same run there, and one elsewhere is another
            run_id = hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:16]
            self.wandb = wandb.init(
                project="glam",
                name=f"{rl.name_experiment}/{rl.name_model}/seed {rl.seed}",  # the experiment id is too long a name
                notes=self.folder.name,
                id=run_id,
                resume="allow",
                config=self.config.resolved,
                dir=self.folder,
            )

    def write(self, row: dict[str, Any], stats: dict[str, float], probabilities: Any) -> None:
        """Record one update.

        Args:
            row: of `COLUMNS`.
            stats: what the update reported; of it the trackers show `TRACKED` beside the row.
            probabilities: (P, A) of the probe prompts, or None.
        """
        self.log.append([row])
        if probabilities is not None:
            self.distrib.append(
                [
                    {"update": row["update"], "frames": row["frames"], "prompt": prompt}
                    | dict(zip(self.probe_actions, probs, strict=True))
                    for prompt, probs in enumerate(probabilities.tolist())
                ]
            )
        scalars = {name: value for name, value in row.items() if name != "update" and value != ""}
        scalars |= {name: stats[name] for name in TRACKED if name in stats}
        if self.events is not None:
            self.events.write(scalars, row["update"])
        if self.wandb is not None:
            self.wandb.log(scalars, step=row["update"])

    def write_status(self, progress: Progress) -> None:
        status = {"i": progress.update, "num_episodes": progress.episodes, "num_frames": progress.frames}
        write_atomically(self.folder / STATUS, json.dumps(status))

    def close(self) -> None:
        if self.wandb is not None:
            self.wandb.finish()


def check_trackers(config: Config) -> None:
    """Raises UserError where a tracker that is asked for is not installed."""
    from importlib.util import find_spec

    if config.rl.tensorboard and find_spec("tensorboard") is None:
        raise UserError("rl_script_args.tensorboard=true: tensorboard is not installed, install it or set it to false")
    if config.rl.wandb and find_spec("wandb") is None:
        raise UserError(
            "rl_script_args.wandb=true: wandb is not installed, pip install -e .[tracking] or set it to false"
        )
