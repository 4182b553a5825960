"""Where an experiment of configs/experiment/ has what its clone is made of, and where its tests look for the clone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.configuration import parse_config
from experiments.errors import UserError
from experiments.experiment_paths import ExperimentPaths
from experiments.hydra_script import compose_experiment

# --file_name -> overlays of the export that writes them, and of the test of the clone that is made of them
FILES = {
    "trajectories": ("export_trajectories", "cloned_agent"),
    "bot_trajectories": ("bot,export_trajectories", "cloned_bot"),
}


def experiment_folders(file_name: str, seed: int, overlays: str, *overrides: str) -> dict[str, Any]:
    """`data_dir`, `model_dir` and `output_dir` of a clone.

    Args:
        file_name: of `FILES`.
        seed: of the run that was exported, and of the clone.
        overlays: of the training, e.g. actions_6 or pretraining,npe.
        overrides: what its commands were given beside, e.g. rl_script_args.name_experiment=other.

    Raises:
        UserError: an overlay or a key does not exist, or a value is wrong.
    """
    export, test = FILES[file_name]
    tree = _compose(overlays, export, seed, overrides)
    config = parse_config(tree)
    clone = _compose(overlays, test, seed, overrides)
    return {
        "data_dir": ExperimentPaths.of(config).test_folder(config.rl.name_environment),
        "model_dir": clone.lamorel_args.llm_args.model_path,
        "output_dir": Path(clone.rl_script_args.im_path).expanduser(),
    }


def _compose(overlays: str, over: str, seed: int, overrides: tuple[str, ...]) -> DictConfig:
    try:
        return compose_experiment(f"{overlays.strip('[]')},{over}", [*overrides, f"rl_script_args.seed={seed}"])
    except UserError as error:
        raise UserError(f"--experiment: {error}") from error
