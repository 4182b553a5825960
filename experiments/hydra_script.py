"""The entry of every hydra script: compose the configuration, check it, and say in one line what a user can mend."""

from __future__ import annotations

import difflib
import functools
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.configuration import Config, parse_config, replaced_keys
from experiments.errors import UserError
from experiments.own_file import BASE, CONFIG_DIR, primary_configuration
from experiments.stopping import listen_for_stop, stop_behind, stop_listening
from lamorel.config import LamorelConfigError
from lamorel.overrides import explain_unreadable

logger = logging.getLogger("glam")

UNWIND_S = 10.0  # in which a script that is stopped lets go of what it holds

# agent -> what selects it, for a script that is of one agent only
SELECTED_BY = {
    "symbolic": ("rl_script_args.symbolic_ppo", True),
    "drrn": ("lamorel_args.distributed_setup_args.n_llm_processes", 0),
}


class SweepJobFailed(Exception):  # noqa: N818
    """What a user can mend, on its way from a job of submitit to the process that submitted the sweep."""


def hydra_script(
    job: Callable[[Config], None], *, model_exists: bool = True, agent: str | None = None
) -> Callable[[], None]:
    """Make `main()` of a script out of `job(config)`.

    The script reads `configs/base.yaml`, and over it the file of `--config-path`/`--config-name`. A `UserError`, or
    lamorel's own about its configuration, ends the script with its text and exit status 2; SIGTERM or SIGUSR1 with 75,
    Ctrl-C with 130 (`experiments.stopping`). Each of these ends a sweep (`-m`), too, and the same command goes on.

    Args:
        model_exists: False where the job makes the model that `model_path` names.
        agent: of `SELECTED_BY`, the one that the script is of, whatever is given.
    """

    command: list[str] = []

    @functools.wraps(job)
    def task(tree: DictConfig) -> None:
        sys.argv = command  # which a run records
        set_up_logging()  # here, as hydra has just reset it
        try:
            if agent is not None:
                OmegaConf.update(tree, *SELECTED_BY[agent])
            config = parse_config(tree, model_exists=model_exists)
            warn_of_replaced_keys(config.section, HydraConfig.get().overrides.task)
            warn_of_shipped_value(config.rl.max_episode_steps)
            job(config)
        except user_errors() as error:
            end(str(error))
        except OmegaConfBaseException as error:  # an interpolation that leads nowhere
            end(explain_override(error))

    def main() -> None:
        os.environ["HYDRA_FULL_ERROR"] = "1"  # hydra then raises its own errors instead of printing them
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # no fork warnings from worker processes
        ignore_empty_storage()
        try:
            listen_for_stop(leave_after_s=UNWIND_S)
            command[:] = sys.argv
            folder, name, sys.argv[1:] = primary_configuration(command[1:])
            hydra.main(version_base="1.3", config_path=folder, config_name=name)(task)()
        except UserError as error:
            sys.exit(fail(str(error)))
        except (HydraException, OmegaConfBaseException) as error:
            sys.exit(fail(explain_override(error)))
        except SweepJobFailed as error:
            sys.exit(fail(str(error)))
        except BaseException as error:
            stopped = stop_behind(error)
            if stopped is not None:
                logger.warning("%s", stopped)
                sys.exit(stopped.status)
            if unreadable := explain_unreadable(error, sys.argv[1:]):  # some are hydra's ValueErrors
                sys.exit(fail(unreadable))
            raise
        finally:
            stop_listening()

    return main


def compose_experiment(overlays: str, overrides: Sequence[str]) -> DictConfig:
    """The configuration with these overlays of configs/experiment, such as pretraining,npe.

    Raises:
        UserError: an overlay or a key does not exist.
    """
    ignore_empty_storage()
    try:
        with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            return hydra.compose("base", overrides=[f"experiment=[{overlays.strip('[]')}]", *overrides])
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UserError(explain_override(error, overrides)) from error


def ignore_empty_storage() -> None:
    """An empty GLAM_STORAGE is none, as in the batch scripts: the overlays would make /logs of it."""
    if not os.environ.get("GLAM_STORAGE"):
        os.environ.pop("GLAM_STORAGE", None)


def end(message: str) -> NoReturn:
    """End a job for a reason that a user can mend."""
    if "SUBMITIT_EXECUTOR" in os.environ:  # it hands exceptions on, and no exit statuses
        raise SweepJobFailed(message)
    sys.exit(fail(message))  # SystemExit passes through hydra untouched, so that nothing is printed around the message


def user_errors() -> tuple[type[Exception], ...]:
    """The error types whose text is meant for the user."""
    checkpoint = sys.modules.get("lamorel.checkpoint")  # imported once a model is in use; it imports torch
    return (UserError, LamorelConfigError) + (() if checkpoint is None else (checkpoint.CheckpointError,))


def set_up_logging() -> None:
    """Our own messages from INFO on, those of libraries from WARNING on, as plain lines on stderr."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for name in ("glam", "experiments", "lamorel"):
        logging.getLogger(name).setLevel(logging.INFO)


def warn_of_replaced_keys(section: str, overrides: Sequence[str]) -> None:
    """Say of every key on the command line that the agent does not read which one it reads in its place.

    Args:
        section: of the agent, `Config.section`.
    """
    values = dict(override.lstrip("+").split("=", 1) for override in overrides if "=" in override)
    for key, own in replaced_keys(section, values).items():
        if values.get(own) != values[key]:
            logger.warning("%s=%s has no effect on the agent %s, which reads %s", key, values[key], section, own)


def warn_of_shipped_value(max_episode_steps: int | None) -> None:
    """Say what a key does that old configurations carry along without effect."""
    if max_episode_steps == 3:
        logger.warning(
            "rl_script_args.max_episode_steps=3: episodes end after 3 steps. In the configurations of GLAM's release "
            "this value has no effect: set it to null for the level's own limit"
        )


def fail(message: str) -> int:
    """Print `message` as an error and return the exit status for bad input."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    return 2


def explain_override(error: Exception, arguments: Sequence[str] | None = None) -> str:
    """One line for an override that hydra cannot read, and for an override or group that it does not know.

    Args:
        arguments: the overrides; None for those of the command line.
    """
    unreadable = explain_unreadable(error, sys.argv[1:] if arguments is None else arguments)
    if unreadable is not None:
        return unreadable
    text = str(error)
    if re.search("'hydra/launcher/submitit_(slurm|local)'", text):
        return "hydra/launcher: submitit is not installed, pip install -e '.[cluster]'"
    group = re.search(r"Could not (?:find|load) '([\w/]+)/([^'/]+)'", text)
    if group and (CONFIG_DIR / group[1]).is_dir():
        known = [path.stem for path in sorted((CONFIG_DIR / group[1]).glob("*.yaml"))]
        near = difflib.get_close_matches(group[2], known, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(known)}"
        return f"{group[1]}={group[2]} is not a file of configs/{group[1]}: {hint}"
    key = re.search(r"Could not override '([^']+)'", text)
    if key and key[1].startswith("rl_script_args.environment_options"):
        return f"{key[1]}: an option of a level is added by +rl_script_args.environment_options.NAME=VALUE"
    if key:
        known = known_keys()
        near = difflib.get_close_matches(key[1], known, n=3, cutoff=0.6)
        if not near:  # a name without its section, or in the wrong one
            last = {name.rsplit(".", 1)[-1]: name for name in known}
            near = [last[n] for n in difflib.get_close_matches(key[1].rsplit(".", 1)[-1], last, n=2, cutoff=0.6)]
        hint = f"did you mean {' or '.join(near)}?" if near else "configs/base.yaml lists every key"
        return f"{key[1]} is not a known key: {hint}"
    return " ".join(text.split())


def known_keys() -> list[str]:
    """The full names of all keys of configs/base.yaml."""

    def walk(node: object, prefix: str) -> list[str]:
        if not isinstance(node, dict):
            return [prefix]
        return [name for key, child in node.items() for name in walk(child, f"{prefix}.{key}" if prefix else str(key))]

    tree = OmegaConf.to_container(OmegaConf.load(BASE))
    assert isinstance(tree, dict)
    return walk({k: tree[k] for k in ("lamorel_args", "rl_script_args")}, "")
