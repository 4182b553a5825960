"""Run folders with known content, written without training anything."""

import copy
import functools
import json

import numpy as np
from omegaconf import OmegaConf

from experiments.run_log import COLUMNS
from tests.experiments.conftest import make_config

MIXED = "BabyAI-MixedTrainLocal-v0"
ACTIONS = ["turn_left", "turn_right", "go_forward", "pick_up", "drop", "toggle"]
SYNONYMS = ["rotate_left", "rotate_right", "move_ahead", "take", "release", "switch"]
TASKS = ("goto", "pickup", "open", "putnext", "pick up seq go to")


@functools.cache
def _base_config():
    overrides = ["rl_script_args.random_agent=true"]  # so that no model need be there
    paths = [f"rl_script_args.saving_path_{kind}=/nowhere" for kind in ("logs", "model")]
    resolved = make_config([*overrides, *paths, f"rl_script_args.name_environment={MIXED}"]).resolved
    resolved["rl_script_args"]["random_agent"] = False
    resolved["lamorel_args"]["distributed_setup_args"]["n_llm_processes"] = 1
    resolved["lamorel_args"]["llm_args"]["model_path"] = "tiny"
    return resolved


def configuration(seed, *, llm=None, n_llm=1, **rl):
    """A resolved configuration; `rl` and `llm` are changed keys of rl_script_args and llm_args."""
    config = copy.deepcopy(_base_config())
    config["rl_script_args"] |= {"seed": seed, **rl}
    config["lamorel_args"]["llm_args"] |= {"seed": seed, **(llm or {})}
    config["lamorel_args"]["distributed_setup_args"]["n_llm_processes"] = n_llm
    return config


def write_training(folder, config, success_rates, *, frames_per_update=100, probabilities=None, prompts=2):
    """log.csv, status.json and config.yaml.

    Args:
        success_rates: one per update; None for an update in which no episode ended.
        probabilities: (A,) of each of `prompts` probe prompts at every update, for distrib.csv.
    """
    folder.mkdir(parents=True)
    config["rl_script_args"]["num_steps"] = frames_per_update * len(success_rates)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    rows = [",".join(COLUMNS)]
    for update, rate in enumerate(success_rates, 1):
        row = {"update": update, "frames": update * frames_per_update}  # DRRN's policy and value columns are empty, too
        row |= {} if rate is None else {"success_rate": rate, "return_mean": rate * 0.9}
        rows.append(",".join(str(row.get(name, "")) for name in COLUMNS))
    (folder / "log.csv").write_text("\n".join(rows) + "\n")
    (folder / "status.json").write_text(json.dumps({"i": len(success_rates), "num_episodes": 9, "num_frames": 99}))
    if probabilities is not None:
        names = config["rl_script_args"]["action_space"]
        lines = ["update,frames,prompt," + ",".join(names)]
        for update in range(1, len(success_rates) + 1):
            values = ",".join(map(str, probabilities))
            lines += [f"{update},{update * frames_per_update},{prompt},{values}" for prompt in range(prompts)]
        (folder / "distrib.csv").write_text("\n".join(lines) + "\n")


def write_test(
    folder, config, agent, successes, *, test="no_modification_test", level=MIXED, tasks=TASKS, older=False, gave_up=0,
    changed=1,
):  # fmt: skip
    """The files of one test: as many episodes as there are `successes`, their tasks in turn.

    A success has the return 0.9, discounted 0.8, after 10 actions of 2 primitive steps each; a failure 0 after 20.

    Args:
        older: without the columns of discounted return and primitive steps, and what follows them.
        gave_up: the bot did so in this many failures.
        changed: prompts that the test changed in every episode.
    """
    rl = config["rl_script_args"]
    config["rl_script_args"] = rl | {"number_episodes": len(successes), "name_environment": level}
    stem = (
        test + ("_newactions" if rl["modified_action_space"] else "") + ("_zero_shot" if agent == "zero-shot" else "")
    )
    episodes = folder / "test" / level / "episodes"
    episodes.mkdir(parents=True, exist_ok=True)
    lines = [
        "episode,seed,mission,task,episode_return,success,frames"
        + ",discounted_return,primitive_steps,gave_up,changed_prompts" * (not older)
    ]
    left = gave_up
    for k, success in enumerate(np.asarray(successes, dtype=int)):
        task = tasks[k % len(tasks)]
        frames = 20 - 10 * success
        more = "" if older else f",{0.8 * success},{2 * frames},{int(not success and left > 0)},{changed}"
        left -= not success
        lines.append(f'{k},{rl["seed"]},"go to the ball, then stop",{task},{0.9 * success},{success},{frames}{more}')
    (episodes / f"{stem}.csv").write_text("\n".join(lines) + "\n")
    facts = {
        "agent": agent,
        "id": folder.name,
        "name": f"{rl['name_experiment']}/{rl['name_model']}",
        "seed": rl["seed"],
        "test": test,
        "config": config,
    }
    (episodes / f"{stem}.json").write_text(json.dumps(facts))
    return episodes / f"{stem}.csv"


def outcomes(successes, episodes):
    """(episodes,) of which the first `successes` succeeded."""
    return [k < successes for k in range(episodes)]
