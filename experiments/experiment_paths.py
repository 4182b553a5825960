"""The experiment's name and its paths, made in this one place for training and tests alike."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from experiments.configuration import Config
from experiments.errors import UserError

PAPER_NBR_OBS = 3


def experiment_id(config: Config) -> str:
    """The id of a run, in the released code's format (it does not name the level or the score rule).

    PAPER-DIFF(13): there training and tests name AFlan and NPE differently, so that their checkpoints are not found.
    """
    rl = config.rl
    pretrained = config.lamorel.llm_args.pretrained
    parts = [f"{rl.name_experiment}_nbr_env_{rl.number_envs}_{rl.name_model}_pretrained_{pretrained}_"]
    if not pretrained:
        parts.append(f"load_embedding_{rl.load_embedding}_")
    if rl.use_action_heads:
        parts.append("use_action_heads_True_")
    if rl.nbr_obs != PAPER_NBR_OBS:
        parts.append(f"nbr_obs_{rl.nbr_obs}_")
    actions = "_".join(rl.action_space)
    parts.append(f"nbr_actions_{len(rl.action_space)}_{actions}_")
    beta = rl.reward_shaping_beta
    parts.append(f"shape_reward_beta_{int(beta) if beta == int(beta) else beta}_seed_{rl.seed}")
    return "".join(parts)


@dataclass(frozen=True)
class ExperimentPaths:
    """Where one experiment writes.

    Attributes:
        id: the experiment id.
        logs: `saving_path_logs/ID`: log.csv, distrib.csv, status.json, config.yaml, TensorBoard events, test/.
        models: `saving_path_model/ID`: the checkpoints last/ and backup/.
    """

    id: str
    logs: Path
    models: Path

    @classmethod
    def of(cls, config: Config) -> ExperimentPaths:
        name = experiment_id(config)
        logs, models = (Path(p).expanduser() for p in (config.rl.saving_path_logs, config.rl.saving_path_model))
        return cls(name, logs / name, models / name)

    def test_folder(self, level: str) -> Path:
        """The folder of a level's results; ":" of "module:id" and "/" of "namespace/id" become "_"."""
        return self.logs / "test" / re.sub(r"[^\w.-]", "_", level)

    def make_writable(self, *, models: bool = True) -> None:
        """Create the folders and try them, so that a run does not find out after hours.

        Raises:
            UserError: naming the folder that cannot be written and its key.
        """
        folders = [("saving_path_logs", self.logs)] + ([("saving_path_model", self.models)] if models else [])
        for key, folder in folders:
            make_writable_folder(folder, f"rl_script_args.{key}")


def make_writable_folder(folder: Path, key: str) -> None:
    """Create a folder and try it. Raises UserError, naming folder and key, where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"{key}: cannot write to {folder} ({error.strerror}), give a folder you may write to"
        ) from error


def test_file_stem(config: Config, test: str) -> str:
    """`TEST[_newactions][_zero_shot][_im]`, the name of a test's files."""
    rl = config.rl
    return (
        test
        + _renamed(config)
        + ("_zero_shot" if rl.zero_shot and config.agent == "llm" and not rl.im_learning else "")
        + ("_im" if rl.im_learning else "")
    )


def page_stem(config: Config, agent: str, test: str) -> str:
    """`AGENT_TEST[_newactions][_LANGUAGE]`, the name of a page of episodes; no language is English."""
    language = "" if config.rl.language == "english" else f"_{config.rl.language}"
    return f"{agent}_{test}{_renamed(config)}{language}"


def _renamed(config: Config) -> str:
    return "_newactions" if config.rl.modified_action_space else ""
