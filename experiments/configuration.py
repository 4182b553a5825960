"""The configuration as plain frozen dataclasses, checked before torch or transformers are imported.

`configs/base.yaml` holds every key with its default, unit and source; this module holds their types (no second copy of
a default). The rules between them are in `validation`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.errors import UserError
from experiments.validation import validate_twosome, validate_values
from lamorel.config import LamorelConfig
from lamorel.config import parse_config as parse_lamorel_args


@dataclass(frozen=True)
class TinyLLMArgs:
    """`rl_script_args.tiny_llm`."""

    architecture: str
    d_model: int
    layers: int
    heads: int
    init_scale: float
    vocabulary_episodes: int
    clone_episodes: int
    clone_steps: int
    clone_batch_size: int
    clone_lr: float


@dataclass(frozen=True)
class DRRNArgs:
    """`rl_script_args.drrn`."""

    vocabulary: int
    embedding: int
    hidden: int
    discount: float
    lr: float
    batch_size: int
    max_grad_norm: float
    memory: int
    update_every: int


@dataclass(frozen=True)
class SymbolicArgs:
    """`rl_script_args.symbolic`."""

    number_envs: int
    frames_per_proc: int
    recurrence: int
    batch_size: int
    epochs: int
    lr: float
    discount: float
    gae_lambda: float
    encoder: str


@dataclass(frozen=True)
class TwosomeArgs:
    """`rl_script_args.twosome`."""

    actor_lr: float
    critic_lr: float
    actor_minibatches: int
    critic_minibatches: int
    gradient_accumulation: int
    critic_warmup_steps: int
    target_kl: float
    gae_lambda: float
    epochs: int
    clip_eps: float
    value_loss_coef: float
    adam_eps: float
    linear_lr_decay: bool
    critic_reads: str
    normalize_advantages: str


@dataclass(frozen=True)
class RLScriptArgs:
    """`rl_script_args`; see configs/base.yaml for meaning, unit and source of every key."""

    path: str
    seed: int
    torch_threads: int | None
    saving_path_logs: str
    saving_path_model: str
    name_experiment: str
    name_model: str
    name_environment: str
    environment_options: dict[str, Any]
    env_packages: list[str]
    number_envs: int
    max_episode_steps: int | None
    language: str
    walls: str
    task_kind: str
    num_dists: int
    vector_backend: str
    action_space: list[str]
    prompter: str
    nbr_obs: int
    use_action_heads: bool
    load_embedding: bool
    score_rule: str
    temperature: float
    calibration: str
    reward_scale: float
    reward_shaping_beta: float
    method: str
    num_steps: int
    frames_per_proc: int
    discount: float
    gae_lambda: float
    lr: float
    beta1: float
    beta2: float
    adam_eps: float
    entropy_coef: float
    value_loss_coef: float
    max_grad_norm: float
    clip_eps: float
    epochs: int
    batch_size: int
    bootstrap_timeouts: bool
    critic_broadcast: bool
    value_lr: float | None
    detach_value: bool
    normalize_advantages: bool
    target_kl: float | None
    max_skipped_gradient_steps: int
    template_test: int
    tensorboard: bool
    wandb: bool
    checkpoint_every: int
    tests: list[str]
    number_episodes: int
    return_discount: float
    stop_rule: str
    zero_shot: bool
    modified_action_space: bool
    new_action_space: list[str] | None
    im_learning: bool
    im_path: str
    random_agent: bool
    bot: bool
    symbolic_ppo: bool
    get_example_trajectories: bool
    shown_episodes: list[int]
    spm_path: str
    drrn: DRRNArgs
    symbolic: SymbolicArgs
    twosome: TwosomeArgs
    tiny_llm: TinyLLMArgs


@dataclass(frozen=True)
class Config:
    """A validated configuration.

    Attributes:
        rl: `rl_script_args`, typed.
        lamorel: `lamorel_args`, typed and checked by lamorel.
        lamorel_tree: the same as the tree that `Caller` takes.
        resolved: both trees as plain dictionaries, every default and interpolation filled in (what a run records).
    """

    rl: RLScriptArgs
    lamorel: LamorelConfig
    lamorel_tree: DictConfig
    resolved: dict[str, Any]

    @property
    def agent(self) -> str:
        """The agent that it selects: bot, random, symbolic, drrn (no LLM process) or llm."""
        for key, name in (("bot", "bot"), ("random_agent", "random"), ("symbolic_ppo", "symbolic")):
            if getattr(self.rl, key):
                return name
        return "llm" if self.lamorel.distributed_setup_args.n_llm_processes else "drrn"

    @property
    def section(self) -> str:
        """Where the agent's own keys stand in `rl_script_args`, if it has any: drrn, symbolic, twosome, else llm."""
        return "twosome" if self.agent == "llm" and self.rl.method == "twosome" else self.agent

    @property
    def training_frames(self) -> int:
        """Frames until training is complete."""
        return training_frames(self.resolved)

    @property
    def rates_end_at_num_steps(self) -> bool:
        """Whether learning rates depend on `num_steps`, so that a run cannot go on with another one."""
        return self.section == "twosome" and self.rl.twosome.linear_lr_decay


def training_frames(resolved: Mapping[str, Any]) -> int:
    """Frames until training is complete, of a configuration as a run records it.

    Those are `num_steps`, after whole updates in which TWOSOME's critic learns alone.
    """
    rl, frames = resolved["rl_script_args"], resolved["rl_script_args"]["num_steps"]
    if rl.get("method") != "twosome" or not resolved["lamorel_args"]["distributed_setup_args"]["n_llm_processes"]:
        return frames
    of_update = rl["number_envs"] * rl["frames_per_proc"]
    return frames + math.ceil(rl["twosome"]["critic_warmup_steps"] / of_update) * of_update


# Keys of `symbolic` that take the place of those of the same name in `rl_script_args` with symbolic_ppo=true.
SYMBOLIC_REPLACES = ("number_envs", "frames_per_proc", "epochs", "batch_size", "lr", "discount", "gae_lambda")
# Likewise of `twosome` with method=twosome, and what takes the place of keys of other names.
TWOSOME_REPLACES = ("gae_lambda", "epochs", "clip_eps", "value_loss_coef", "adam_eps", "target_kl")
TWOSOME_RENAMES = {"lr": "actor_lr", "value_lr": "critic_lr", "batch_size": "actor_minibatches"}
SECTIONS = {"drrn": DRRNArgs, "symbolic": SymbolicArgs, "twosome": TwosomeArgs, "tiny_llm": TinyLLMArgs}


def parse_config(tree: DictConfig, *, model_exists: bool = True) -> Config:
    """Turn hydra's tree into a validated `Config`.

    Args:
        model_exists: False for the script that makes the model of `model_path`.

    Raises:
        UserError: a missing or mistyped value, or a rule between keys is broken; the text names key and remedy.
        LamorelConfigError: the same for `lamorel_args` (a ValueError).
    """
    for name in ("lamorel_args", "rl_script_args"):
        if not isinstance(tree.get(name), DictConfig):
            raise UserError(f"{name}={tree.get(name)}: it is a section, give its keys, as {name}.KEY=VALUE")
    rl_tree = tree.rl_script_args
    for key in rl_tree:
        if OmegaConf.is_missing(rl_tree, key) and key != "path":
            raise UserError(f"rl_script_args.{key} is required: add rl_script_args.{key}=... to the command line")
    if OmegaConf.is_missing(rl_tree, "path"):
        rl_tree.path = ""  # read by the launcher only
    rl = _typed(rl_tree)
    own: dict[str, str] = {}
    if rl.symbolic_ppo:  # in this one place, so that training and tests have one experiment id
        own = {name: f"symbolic.{name}" for name in SYMBOLIC_REPLACES}
        if rl.symbolic.encoder == "mlp":  # no prompter's key is read: the actions are the environment's
            rl = dataclasses.replace(rl, prompter="environment")
    elif rl.method == "twosome":
        own = {name: f"twosome.{name}" for name in TWOSOME_REPLACES}
        rl = dataclasses.replace(rl, normalize_advantages=False)  # its agent does it itself
    rl = dataclasses.replace(rl, **{name: attrgetter(key)(rl) for name, key in own.items()})
    validate_values(rl, own)
    llm_args = tree.lamorel_args.llm_args
    if rl.bot or rl.random_agent or rl.symbolic_ppo:
        tree.lamorel_args.distributed_setup_args.n_llm_processes = 0
    no_llm = not tree.lamorel_args.distributed_setup_args.n_llm_processes
    if OmegaConf.is_missing(llm_args, "model_path"):
        if not no_llm:
            key = "lamorel_args.llm_args.model_path"
            raise UserError(f"{key} is required: add {key}=<hub id or folder of the model> to the command line")
        llm_args.model_path = None
    no_check = {} if model_exists else {"distributed_setup_args": {"n_llm_processes": 0}}
    lamorel = parse_lamorel_args(OmegaConf.merge(tree.lamorel_args, no_check))
    if lamorel.distributed_setup_args.n_rl_processes != 1:
        raise UserError(
            f"lamorel_args.distributed_setup_args.n_rl_processes={lamorel.distributed_setup_args.n_rl_processes}: "
            "these scripts run one RL process, set it to 1 (Lamorel itself serves several)"
        )
    resolved = {
        "lamorel_args": OmegaConf.to_container(tree.lamorel_args, resolve=True),
        "rl_script_args": dataclasses.asdict(rl),
    }
    config = Config(rl=rl, lamorel=lamorel, lamorel_tree=tree.lamorel_args, resolved=resolved)
    if config.section == "twosome":
        validate_twosome(config)
    return config


def replaced_keys(section: str, keys: Iterable[str]) -> dict[str, str]:
    """Of the given full keys those that an agent does not read, and which it reads in their place.

    Args:
        section: of the agent, `Config.section`.
    """
    if section not in ("drrn", "symbolic", "twosome"):
        return {}
    shared = {field.name for field in dataclasses.fields(SECTIONS[section])}
    shared &= {field.name for field in dataclasses.fields(RLScriptArgs)}
    own = {name: name for name in shared} | (TWOSOME_RENAMES if section == "twosome" else {})
    full = {f"rl_script_args.{name}": f"rl_script_args.{section}.{of_section}" for name, of_section in own.items()}
    return {key: full[key] for key in keys if key in full}


def _typed(rl_tree: DictConfig) -> RLScriptArgs:
    """`rl_script_args` with every value checked against, and converted to, its type."""
    schema = OmegaConf.structured(RLScriptArgs)
    OmegaConf.set_readonly(schema, False)  # frozen dataclasses give read-only nodes
    for name, section in SECTIONS.items():
        schema[name] = OmegaConf.structured(section)
        OmegaConf.set_readonly(schema[name], False)
    try:
        # resolved first: merged, its interpolations would have lost the tree that they refer to
        typed = OmegaConf.to_object(OmegaConf.merge(schema, OmegaConf.to_container(rl_tree, resolve=True)))
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"rl_script_args.{getattr(error, 'full_key', '')}: {reason}; see configs/base.yaml") from error
    assert isinstance(typed, RLScriptArgs)
    return typed
