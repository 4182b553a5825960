"""Names of agents and runs, and what tells two of them apart."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

# Keys that older files do not have, and what those runs did.
ADDED = {"method": "glam", "calibration": "none"}
# What a configuration says of names, machines, records and tests: no part of how an agent is trained.
NOT_TRAINING = {
    "path", "seed", "torch_threads", "saving_path_logs", "saving_path_model", "name_experiment", "name_model",
    "env_packages", "vector_backend", "num_steps", "template_test", "tensorboard", "wandb", "checkpoint_every",
    "tests", "number_episodes", "stop_rule", "zero_shot", "modified_action_space", "new_action_space", "im_learning",
    "im_path", "random_agent", "bot", "get_example_trajectories", "shown_episodes", "spm_path", "tiny_llm",
    "return_discount",
}  # fmt: skip
# What decides a test's outcome beside its level, language, test and action names, which make its row.
OF_A_TEST = (
    "stop_rule", "walls", "task_kind", "num_dists", "max_episode_steps", "score_rule", "temperature",
    "calibration", "prompter", "im_path", "environment_options",
)  # fmt: skip
OF_THE_LLM = ("model_type", "model_path", "pretrained", "lora", "load_in_4bit", "load_in_8bit", "dtype", "add_bos",
              "candidate_prefix")  # fmt: skip
# The order in which differences are looked for when two runs need names of their own.
TELLING = ("name_environment", "trained in", "action_space", "num_dists", "nbr_obs", "name_model", "name_experiment")


def agent_kind(config: Mapping[str, Any]) -> str:
    """Who a configuration selects: bot, random, symbolic, drrn or llm."""
    rl = config["rl_script_args"]
    for key, name in (("bot", "bot"), ("random_agent", "random"), ("symbolic_ppo", "symbolic")):
        if rl.get(key):
            return name
    return "llm" if config["lamorel_args"]["distributed_setup_args"]["n_llm_processes"] else "drrn"


def agent_label(agent: str, config: Mapping[str, Any]) -> str:
    """How tables and figures name an agent, as the paper does where it has a name.

    Args:
        agent: of a test's facts (random, bot, drrn, symbolic, zero-shot, cloned, trained), or `agent_kind`.
    """
    if agent in ("random", "bot"):
        return agent
    if agent == "drrn":
        return "DRRN"
    if agent == "symbolic":
        encoder = config["rl_script_args"]["symbolic"].get("encoder", "film")  # older files have no other
        return {"film": "Symbolic-PPO", "mlp": "Vector-PPO"}[encoder]
    # a trained agent's kind is in its configuration
    kind = agent_kind(config)
    if kind != "llm" and agent == "trained":
        return agent_label(kind, config)
    suffix = "" if agent in ("trained", "llm") else f" {agent}"
    return variant(config) + suffix


def variant(config: Mapping[str, Any]) -> str:
    """The LLM agent's variant: LLM (GFlan-T5 in the paper), AFlan, NPAE, NPA, NPE or NP; TWOSOME by that method.

    A: action heads instead of scoring; NP: not pretrained; E: with the pretrained token embeddings.
    """
    rl, llm = config["rl_script_args"], config["lamorel_args"]["llm_args"]
    if rl.get("method") == "twosome":
        return "TWOSOME"
    if llm["pretrained"]:
        return "AFlan" if rl["use_action_heads"] else "LLM"
    return "NP" + ("A" if rl["use_action_heads"] else "") + ("E" if rl["load_embedding"] else "")


def training_settings(config: Mapping[str, Any], seed: int) -> dict[str, str]:
    """What a training run was made with, but for its seed: runs that differ only in seed have the same."""
    rl = {**ADDED, **config["rl_script_args"]}
    keys = rl.keys() - NOT_TRAINING - ({"twosome"} if rl.get("method") != "twosome" else set())
    return {key: _text(rl[key], seed) for key in sorted(keys)} | llm_settings(config, seed)


def test_settings(config: Mapping[str, Any], seed: int) -> dict[str, str]:
    """What a test's outcome depends on, but for its seed and what makes its row."""
    rl = {**ADDED, **config["rl_script_args"]}
    given = {key: _text(rl[key], seed) for key in OF_A_TEST if rl.get(key, {}) != {}}  # older files have no options
    return given | llm_settings(config, seed)


def llm_settings(config: Mapping[str, Any], seed: int) -> dict[str, str]:
    """What of an agent's LLM matters; empty where there is none."""
    if agent_kind(config) != "llm":
        return {}
    llm = config["lamorel_args"]["llm_args"]
    return {key: _text(llm[key], seed) for key in OF_THE_LLM if key in llm}


def _text(value: Any, seed: int) -> str:
    # a warm-started model of each seed is the same setting
    return re.sub(rf"seed_{seed}\b", "seed_*", str(value))


def level_name(level: str) -> str:
    """A level without BabyAI- and its version."""
    return re.sub(r"-v\d+$", "", level.removeprefix("BabyAI-"))


def distractors(level: str, num_dists: int) -> int:
    """How many distractors a level has: its own number (GoToLocalS8N4: 4), else num_dists (8)."""
    own = re.search(r"N(\d+)$", level_name(level))
    return int(own[1]) if own else num_dists


def distinguish(entries: Sequence[tuple[Hashable, Mapping[str, str]]]) -> list[str]:
    """What to add to names so that all of them differ; "" where a name stands alone.

    Args:
        entries: a name and what its owner was made with, each.

    Returns:
        a text for every entry, such as " (GoToLocalS8N4, nbr_obs=1)".
    """
    texts: list[list[str]] = [[] for _ in entries]
    for name in dict.fromkeys(name for name, _ in entries):
        _tell_apart([(made, text) for (other, made), text in zip(entries, texts, strict=True) if other == name])
    return [f" ({', '.join(text)})" if text else "" for text in texts]


def _tell_apart(members: Sequence[tuple[Mapping[str, str], list[str]]]) -> None:
    """Split by the first thing in which the members differ, add it to their texts, and so on within the parts."""
    keys = sorted({key for made, _ in members for key in made}, key=_rank)
    for key in keys:
        values = dict.fromkeys(made.get(key, "") for made, _ in members)
        if len(values) == 1:
            continue
        for value in values:
            part = [member for member in members if member[0].get(key, "") == value]
            for _, text in part:
                text.append(_shown(key, value))
            _tell_apart(part)
        return


def _rank(key: str) -> tuple[int, str]:
    return TELLING.index(key) if key in TELLING else len(TELLING), key


def _shown(key: str, value: str) -> str:
    if key in ("name_environment", "name_model", "name_experiment"):
        return level_name(value)
    if key == "action_space":
        return f"{value.count(',') + 1} actions"
    return f"{key} {value}" if key == "trained in" else f"{key}={value}"
