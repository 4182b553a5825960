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
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from lamorel.config import LamorelConfig, LamorelConfigError, parse_config
from lamorel.overrides import explain_unreadable

ARGS_KEY = "lamorel_args.accelerate_args"
PATH_KEY = "rl_script_args.path"
MODEL_KEY = "lamorel_args.llm_args.model_path"
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
    tree = _compose(folder, name, given.overrides)
    lamorel_args = OmegaConf.select(tree, "lamorel_args")
    if not isinstance(lamorel_args, DictConfig):
        raise LaunchError(f"{folder / name}.yaml has no lamorel_args")
    if not OmegaConf.select(lamorel_args, "distributed_setup_args.n_llm_processes", default=1):
        OmegaConf.update(lamorel_args, "llm_args.model_path", None, force_add=True)  # no process reads it; may be ???
    lamorel = parse_config(_with_config_file(lamorel_args))
    _check_machines(lamorel)
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


def _with_config_file(lamorel_args: DictConfig) -> dict[str, Any]:
    """`lamorel_args` in plain containers, where accelerate's own file fills in what accelerate_args leave open."""
    try:
        plain = OmegaConf.to_container(lamorel_args, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        unless = ", or n_llm_processes=0 where none is used" if error.full_key == MODEL_KEY else ""
        raise LamorelConfigError(f"{error.full_key} is required: give it{unless}") from error
    except OmegaConfBaseException as error:
        raise LamorelConfigError(f"lamorel_args: {' '.join(str(error).split())}") from error
    assert isinstance(plain, dict)
    args: dict[str, Any] = {str(key): value for key, value in plain.items()}
    given = args.get("accelerate_args") or {}
    if not isinstance(given, dict):
        return args  # parse_config will say so
    file = given.get("config_file")
    if file and Path(file).expanduser().is_file():
        try:
            found = OmegaConf.to_container(OmegaConf.load(Path(file).expanduser()))
        except (OSError, OmegaConfBaseException, YAMLError) as error:
            raise LamorelConfigError(f"{ARGS_KEY}.config_file: {file}: {' '.join(str(error).split())}") from error
        if not isinstance(found, dict):
            raise LamorelConfigError(f"{ARGS_KEY}.config_file: {file} is not a YAML mapping")
        known = _accelerate_flags()
        args["accelerate_args"] = {
            **{key: value for key, value in found.items() if key in known and value is not None},
            **{key: value for key, value in given.items() if value is not None},
        }
    return args


def _check_machines(config: LamorelConfig) -> None:
    args, setup = config.accelerate_args, config.distributed_setup_args
    total = setup.n_rl_processes + setup.n_llm_processes
    if args.machine_rank >= args.num_machines:
        raise LamorelConfigError(
            f"{ARGS_KEY}.machine_rank is {args.machine_rank}, but num_machines is {args.num_machines}"
        )
    if args.num_machines > total:
        raise LamorelConfigError(f"{ARGS_KEY}.num_machines is {args.num_machines}, but there are {total} processes")
    if args.num_machines > 1 and (args.main_process_ip is None or not args.main_process_port):
        raise LamorelConfigError(
            f"{ARGS_KEY}.num_machines is {args.num_machines}: set main_process_ip and main_process_port, the address "
            f"of machine 0 and a port that is free there"
        )


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
