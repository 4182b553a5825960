"""The rules on a configuration's values, checked before torch or transformers are imported."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.errors import UserError
from experiments.substitutions import TESTS

if TYPE_CHECKING:
    from experiments.configuration import Config, RLScriptArgs

MAX_ENVIRONMENTS = 100  # environment i is seeded with 100 * seed + i: more would share streams with the next seed
CHOICES = {
    "language": ("english", "french"),
    "walls": ("published", "all"),
    "vector_backend": ("sync", "process"),
    "prompter": ("glam", "environment"),
    "method": ("glam", "twosome"),
    "score_rule": ("sum", "token", "word", "logits", "logits_released", "max_scaled"),
    "calibration": ("none", "batch"),
    "stop_rule": ("per_episode", "first_n"),
    "template_test": (1, 2),
}
SECTION_CHOICES = {
    "symbolic.encoder": ("film", "mlp"),
    "twosome.critic_reads": ("last_token", "last_position"),
    "twosome.normalize_advantages": ("batch", "minibatch", "none"),
}
POSITIVE = (
    "torch_threads", "number_envs", "max_episode_steps", "nbr_obs", "temperature", "num_steps", "frames_per_proc", "lr",
    "adam_eps", "max_grad_norm", "clip_eps", "epochs", "batch_size", "value_lr", "target_kl", "checkpoint_every",
    "max_skipped_gradient_steps", "number_episodes",
)  # fmt: skip
NOT_NEGATIVE = ("seed", "num_dists", "entropy_coef", "value_loss_coef", "reward_scale")
MAY_BE_INFINITE = ("max_grad_norm", "target_kl")  # no limit
UNIT_INTERVAL = ("discount", "return_discount", "gae_lambda", "beta1", "beta2")


def validate_values(rl: RLScriptArgs, own: Mapping[str, str]) -> None:
    """Every rule on `rl_script_args` that needs no import beyond the standard library.

    Args:
        own: keys whose value is that of a section, with the key there, such as lr: symbolic.lr.
    """

    def complain(key: str, remedy: str) -> None:
        raise UserError(f"rl_script_args.{own.get(key, key)}={getattr(rl, key)!r}: {remedy}")

    for key, value in _floats(dataclasses.asdict(rl)):
        if math.isnan(value) or (math.isinf(value) and key.rpartition(".")[2] not in MAY_BE_INFINITE):
            raise UserError(f"rl_script_args.{own.get(key, key)}={value}: give a finite number")
    for key, allowed in CHOICES.items():
        if getattr(rl, key) not in allowed:
            complain(key, f"choose one of {', '.join(map(str, allowed))}")
    for key, allowed in SECTION_CHOICES.items():
        if (value := attrgetter(key)(rl)) not in allowed:
            raise UserError(f"rl_script_args.{key}={value!r}: choose one of {', '.join(allowed)}")
    for name, value in dataclasses.asdict(rl.drrn).items():
        if value <= 0 or (name == "discount" and value > 1):
            bound = "a number above 0 and at most 1" if name == "discount" else "a number above 0"
            raise UserError(f"rl_script_args.drrn.{name}={value}: give {bound}")
    if rl.drrn.memory < rl.drrn.batch_size + rl.number_envs and not rl.symbolic_ppo:
        raise UserError(
            f"rl_script_args.drrn.memory={rl.drrn.memory}: give at least drrn.batch_size + number_envs, "
            f"{rl.drrn.batch_size + rl.number_envs}"
        )
    for name, value in dataclasses.asdict(rl.twosome).items():
        may_be_0 = name in ("critic_warmup_steps", "value_loss_coef", "gae_lambda")
        if isinstance(value, int | float) and (value < 0 or (value == 0 and not may_be_0 and value is not False)):
            bound = "of at least 0" if may_be_0 else "above 0"
            raise UserError(f"rl_script_args.twosome.{name}={value}: give a number {bound}")
    for name in dataclasses.asdict(rl.tiny_llm):
        value = getattr(rl.tiny_llm, name)
        if not isinstance(value, str) and (value < 0 or (value == 0 and name != "clone_steps")):
            raise UserError(f"rl_script_args.tiny_llm.{name}={value}: give a number above 0")
    for key in POSITIVE:
        if getattr(rl, key) is not None and getattr(rl, key) <= 0:
            complain(key, "give a number above 0")
    for key in NOT_NEGATIVE:
        if getattr(rl, key) < 0:
            complain(key, "give a number of at least 0")
    for key in UNIT_INTERVAL:
        if not 0 <= getattr(rl, key) <= 1:
            complain(key, "give a number from 0 to 1")
    if rl.number_envs > MAX_ENVIRONMENTS:
        complain("number_envs", f"at most {MAX_ENVIRONMENTS}, as seeds of neighbouring runs would coincide")
    if rl.reward_shaping_beta != 0:
        complain("reward_shaping_beta", "only 0 is accepted: the released reward shaping never ran")
    if rl.calibration != "none" and rl.use_action_heads:
        complain("calibration", "it is for scored actions, set use_action_heads=false, or calibration=none")
    if not rl.action_space or len(set(rl.action_space)) != len(rl.action_space):
        complain("action_space", "give at least one action name, each once, e.g. [turn_left,turn_right,go_forward]")
    chosen = [name for name in ("bot", "random_agent", "symbolic_ppo") if getattr(rl, name)]
    if len(chosen) > 1:
        complain(chosen[0], f"{' and '.join(chosen)} are both true, choose one")
    if rl.symbolic_ppo:
        _validate_symbolic(rl, complain)
    _validate_tests(rl, complain)


def _floats(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Full keys, below `prefix`, and values of all floating-point numbers of nested mappings."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _floats(value, f"{prefix}{key}.")
        elif isinstance(value, float):
            yield f"{prefix}{key}", value


def validate_twosome(config: Config) -> None:
    """What method=twosome asks of the LLM, and the numbers of minibatches of an update."""
    rl, own, llm_args = config.rl, config.rl.twosome, config.lamorel.llm_args
    lora = "lamorel_args.llm_args.lora"
    adapter = Path(str(llm_args.model_path)).expanduser() / "adapter_config.json"
    # without `pretrained` an adapter's folder tells its model's architecture alone
    if llm_args.lora is None and not (llm_args.pretrained and adapter.is_file()):
        targets = "[q, v]" if llm_args.model_type == "seq2seq" else "[q_proj, v_proj]"
        raise UserError(
            f"{lora}=null: with method=twosome low-rank adapters act over a model that stays as it is, set it, e.g. "
            f"'{lora}={{r: 8, alpha: 16, target_modules: {targets}}}', or give the folder of an adapter with "
            "lamorel_args.llm_args.pretrained=true, or use method=glam"
        )
    for key in ("use_action_heads", "detach_value", "critic_broadcast"):
        if getattr(rl, key):
            raise UserError(f"rl_script_args.{key}=true: method=twosome has nothing of the kind, set it to false")
    if own.critic_reads == "last_position" and (
        llm_args.model_type != "causal" or config.lamorel.distributed_setup_args.n_llm_processes > 1
    ):
        raise UserError(
            "rl_script_args.twosome.critic_reads=last_position: a batch is padded as a whole by one LLM process with a "
            "decoder-only model, set lamorel_args.distributed_setup_args.n_llm_processes=1 and "
            "lamorel_args.llm_args.model_type=causal, or use last_token"
        )
    frames = rl.number_envs * rl.frames_per_proc
    for key in ("actor_minibatches", "critic_minibatches"):
        if getattr(own, key) > frames:
            raise UserError(
                f"rl_script_args.twosome.{key}={getattr(own, key)}: an update has {frames} frames (number_envs * "
                "frames_per_proc), give at most as many"
            )
    if own.gradient_accumulation > own.actor_minibatches:
        raise UserError(
            f"rl_script_args.twosome.gradient_accumulation={own.gradient_accumulation}: an epoch has "
            f"{own.actor_minibatches} actor_minibatches, give at most as many"
        )
    samples = {"batch": frames, "minibatch": frames // own.actor_minibatches, "none": 2}[own.normalize_advantages]
    if samples < 2:
        raise UserError(
            f"rl_script_args.twosome.normalize_advantages={own.normalize_advantages}: one sample alone has no "
            f"standard deviation, and {frames} frames make {own.actor_minibatches} actor_minibatches: give fewer of "
            "them, or none"
        )


def _validate_symbolic(rl: RLScriptArgs, complain: Any) -> None:
    if rl.symbolic.encoder == "film" and rl.prompter != "glam":
        complain(
            "prompter",
            "Symbolic-PPO has one output for each of action_space, use prompter=glam, or symbolic.encoder=mlp",
        )
    if rl.symbolic.encoder == "mlp" and rl.symbolic.recurrence != 1:
        raise UserError(
            f"rl_script_args.symbolic.recurrence={rl.symbolic.recurrence}: symbolic.encoder=mlp has no memory, give 1"
        )
    own, steps = rl.symbolic, rl.symbolic.recurrence
    if steps <= 0:
        raise UserError(f"rl_script_args.symbolic.recurrence={steps}: give a number above 0")
    for name in ("frames_per_proc", "batch_size"):  # whole sub-sequences in a rollout, and in a minibatch
        if getattr(own, name) % steps:
            raise UserError(
                f"rl_script_args.symbolic.{name}={getattr(own, name)} is not a multiple of "
                f"symbolic.recurrence={steps}: change one of the two"
            )


def _validate_tests(rl: RLScriptArgs, complain: Any) -> None:
    if not rl.tests or any(test not in TESTS for test in rl.tests) or len(set(rl.tests)) < len(rl.tests):
        complain("tests", f"give a list of {', '.join(TESTS)}, each at most once")
    shown = rl.shown_episodes
    if not shown or min(shown) < 0 or len(set(shown)) < len(shown):
        complain("shown_episodes", "give numbers of test episodes (0, 1, ...), each once")
    if rl.modified_action_space:
        if rl.language == "french":
            complain("language", "modified_action_space renames English actions, use language=english")
        if rl.new_action_space is None or len(rl.new_action_space) != len(rl.action_space):
            complain("new_action_space", f"give one new name for each of the {len(rl.action_space)} actions")
    if rl.im_learning and not Path(rl.im_path).expanduser().exists():
        complain("im_path", "the folder of the cloned model does not exist, give an existing one")
