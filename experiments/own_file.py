"""A configuration file of the user's own, read over configs/base.yaml: `--config-path FOLDER --config-name NAME`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from experiments.errors import UserError

CONFIG_DIR = Path(__file__).resolve().parents[1] / "configs"
BASE = CONFIG_DIR / "base.yaml"

_STORED = "base_and_own_file"  # in hydra's store


def primary_configuration(arguments: Sequence[str]) -> tuple[str, str, list[str]]:
    """What hydra composes for a command line: configs/base.yaml, and over it the file that the command line names.

    Keys that the file lacks have the values of base.yaml. Overlays go over both. The default one, machine=cpu, is left
    out, as it would undo the file's choice of a device; a `defaults` list of the file's own takes the place of ours.

    Args:
        arguments: a relative `--config-path` is relative to the working folder, as for the launcher.

    Returns:
        Folder and name of the primary configuration, as hydra takes them, and the rest of the command line.

    Raises:
        UserError: the file does not exist, or is not a YAML mapping.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-path", "-cp", default=str(CONFIG_DIR))
    parser.add_argument("--config-name", "-cn", default=BASE.stem)
    given, rest = parser.parse_known_args(arguments)
    folder = Path(given.config_path).expanduser().absolute()
    name = given.config_name.removesuffix(".yaml").removesuffix(".yml")
    file = folder / f"{name}.yaml"
    if file.resolve() == BASE:
        return str(CONFIG_DIR), BASE.stem, rest
    base, own = _read(BASE), _read(file)
    defaults = base.pop("defaults")
    for entry in defaults:
        if "machine" in entry:
            entry.machine = None
    tree = OmegaConf.merge({"defaults": defaults}, base, own)
    searched = OmegaConf.select(tree, "hydra.searchpath") or []
    OmegaConf.update(tree, "hydra.searchpath", [*searched, f"file://{CONFIG_DIR}"], force_add=True)
    ConfigStore.instance().store(_STORED, tree)
    return str(file.parent if Path(name).is_absolute() else folder), _STORED, rest


def _read(file: Path) -> DictConfig:
    if not file.is_file():
        raise UserError(f"--config-path, --config-name: {file} does not exist (working folder: {Path.cwd()})")
    try:
        tree = OmegaConf.load(file)
    except (OSError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{file}: {' '.join(str(error).split())}") from error
    if not isinstance(tree, DictConfig):
        raise UserError(f"{file} is not a YAML mapping")
    return tree
