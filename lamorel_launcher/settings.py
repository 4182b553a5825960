"""What to launch, from the command line and the configuration. Needs no torch."""

import argparse
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from lamorel.config import LamorelConfig, LamorelConfigError, parse_config, plain_args
from lamorel.overrides import explain_unreadable

ARGS_KEY = "lamorel_args.accelerate_args"
PATH_KEY = "rl_script_args.path"
_USAGE = "python -m lamorel_launcher.launch --config-path DIR --config-name NAME rl_script_args.path=SCRIPT [overrides]"

# The flags that mean something where neither the processes nor the devices are accelerate's to choose.
_VARIABLES = {
    "mixed_precision": "ACCELERATE_MIXED_PRECISION",
    "gradient_accumulation_steps": "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
    "debug": "ACCELERATE_DEBUG_MODE",
    "dynamo_backend": "ACCELERATE_DYNAMO_BACKEND",
    "dynamo_mode": "ACCELERATE_DYNAMO_MODE",
    "num_cpu_threads_per_process": "OMP_NUM_THREADS",
    "gpu_ids": "CUDA_VISIBLE_DEVICES",
}


class LaunchError(ValueError):
    """The command line, or the configuration, cannot be launched."""


@dataclass(frozen=True)
class Settings:
    """One launch.

    Attributes:
        script: absolute path.
        arguments: what every process is started with.
        environment: further variables of every process, from accelerate's flags.
    """

    script: Path
    arguments: tuple[str, ...]
    lamorel: LamorelConfig
    environment: Mapping[str, str]


def read_settings(argv: Sequence[str]) -> Settings:
    """Reads and checks everything, before anything is started.

    Raises:
        LaunchError, LamorelConfigError: in one line, what to change.
    """
    given = _parse(argv)
    folder = Path(given.config_path).expanduser().absolute()
    name = given.config_name.removesuffix(".yaml").removesuffix(".yml")
    if Path(name).is_absolute():
        folder, name = Path(name).parent, Path(name).name
    tree = _compose(folder, name, given.overrides)
    lamorel_args = OmegaConf.select(tree, "lamorel_args")
    if not isinstance(lamorel_args, DictConfig):
        raise LaunchError(f"{folder / name}.yaml has no lamorel_args")
    if not OmegaConf.select(lamorel_args, "distributed_setup_args.n_llm_processes", default=1):
        OmegaConf.update(lamorel_args, "llm_args.model_path", None, force_add=True)  # no process reads it; may be ???
    args = plain_args(lamorel_args)
    file = _config_file(args, (folder / name).parent)
    if file is not None and file.is_file():
        args["accelerate_args"] = _with_config_file(args["accelerate_args"], file)
    lamorel = parse_config(args)
    _check_machines(lamorel, file)
    return Settings(
        script=_script(tree),
        arguments=("--config-path", str(folder), "--config-name", name, *given.overrides),
        lamorel=lamorel,
        environment=accelerate_environment(lamorel.accelerate_args.flags),
    )


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="lamorel_launcher.launch", usage=_USAGE, allow_abbrev=False)
    parser.add_argument("--config-path", "-cp", required=True, help="folder of the configuration")
    parser.add_argument("--config-name", "-cn", required=True, help="its file, with or without .yaml")
    parser.add_argument("overrides", nargs="*", help="key=value, handed on to the script")
    return parser.parse_intermixed_args(argv)


def _compose(folder: Path, name: str, overrides: Sequence[str]) -> DictConfig:
    """The configuration as the script will see it; hydra makes no folder here."""
    if not folder.is_dir():
        raise LaunchError(f"--config-path: {folder} is not a folder")
    try:
        with initialize_config_dir(config_dir=str(folder), version_base="1.3", job_name="lamorel_launcher"):
            return compose(config_name=name, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise LaunchError(explain_unreadable(error, overrides) or " ".join(str(error).split())) from error


def _script(tree: DictConfig) -> Path:
    try:
        path = OmegaConf.select(tree, PATH_KEY, throw_on_missing=True)
    except OmegaConfBaseException:
        path = None
    if not path:
        raise LaunchError(f"{PATH_KEY} is not set: give the script to launch")
    if not isinstance(path, str):
        raise LaunchError(f"{PATH_KEY}: expected the path of a script, got {path!r}")
    script = Path(path).expanduser().absolute()
    if not script.is_file():
        raise LaunchError(f"{PATH_KEY}: {script} does not exist (working folder: {Path.cwd()})")
    return script


def _config_file(lamorel_args: dict[str, Any], folder: Path) -> Path | None:
    """Accelerate's own file, absolute: relative to the working folder, else to `folder`. It may be missing."""
    given = lamorel_args.get("accelerate_args")
    file = given.get("config_file") if isinstance(given, dict) else None
    if not file:
        return None
    here = Path(file).expanduser().absolute()
    return here if here.is_file() else folder / Path(file).expanduser()


def _with_config_file(given: dict[str, Any], file: Path) -> dict[str, Any]:
    """`accelerate_args`, where accelerate's own file fills in what they leave open."""
    try:
        found = OmegaConf.to_container(OmegaConf.load(file))
    except (OSError, OmegaConfBaseException, YAMLError) as error:
        raise LamorelConfigError(f"{ARGS_KEY}.config_file: {file}: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise LamorelConfigError(f"{ARGS_KEY}.config_file: {file} is not a YAML mapping")
    known = _accelerate_flags()
    return {
        **{str(key): value for key, value in found.items() if key in known and value is not None},
        **{key: value for key, value in given.items() if value is not None},
    }


def _check_machines(config: LamorelConfig, file: Path | None) -> None:
    """Checks what is said of several machines.

    Args:
        file: accelerate's own, which would say more of them where it is missing.
    """
    args, setup = config.accelerate_args, config.distributed_setup_args
    total = setup.n_rl_processes + setup.n_llm_processes
    wrong = None
    if args.machine_rank >= args.num_machines:
        wrong = f"machine_rank is {args.machine_rank}, but num_machines is {args.num_machines}"
    elif args.num_machines > total:
        wrong = f"num_machines is {args.num_machines}, but there are {total} processes"
    elif args.num_machines > 1 and (args.main_process_ip is None or not args.main_process_port):
        wrong = (
            f"num_machines is {args.num_machines}: set main_process_ip and main_process_port, the address of machine 0 "
            f"and a port that is free there"
        )
    if wrong is not None:
        missing = file is not None and not file.is_file()
        hint = f" ({ARGS_KEY}.config_file {args.config_file} does not exist, nor does {file})" if missing else ""
        raise LamorelConfigError(f"{ARGS_KEY}.{wrong}{hint}")


def accelerate_environment(flags: Mapping[str, Any]) -> dict[str, str]:
    """Checks flags of `accelerate launch`, and gives the variables by which they reach a script's Accelerator().

    Raises:
        LamorelConfigError: accelerate knows no such flag, or does not take the value.
    """
    flags = {key: value for key, value in flags.items() if value is not None and key != "num_processes"}
    if not flags:
        return {}
    from accelerate.commands.launch import launch_command_parser

    known = _accelerate_flags()
    line: list[str] = []
    for key, value in flags.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "see accelerate launch --help"
            raise LamorelConfigError(f"{ARGS_KEY}.{key} is not a flag of accelerate launch; {hint}")
        if known[key].nargs == 0:
            line += [known[key].option_strings[0]] if value else []
        else:
            line += [known[key].option_strings[0], str(value)]
    parser = launch_command_parser()
    parser.error = _refuse
    parsed = vars(parser.parse_args([*line, "script"]))
    return {variable: str(parsed[flag]) for flag, variable in _VARIABLES.items() if flag in flags and flag in parsed}


def _accelerate_flags() -> dict[str, argparse.Action]:
    from accelerate.commands.launch import launch_command_parser

    return {action.dest: action for action in launch_command_parser()._actions if action.option_strings}


def _refuse(message: str) -> None:
    raise LamorelConfigError(f"{ARGS_KEY}: {message}")
