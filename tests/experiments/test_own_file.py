"""Configurations of the user's own: a file that lacks keys, such as those of GLAM's release, runs every script."""

import logging
import sys

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from experiments.configuration import parse_config
from experiments.errors import UserError
from experiments.hydra_script import hydra_script
from experiments.own_file import primary_configuration
from tests.experiments.conftest import ROOT, make_config

# Keys and values of the configuration published with GLAM, with a tiny run's sizes.
OLD = """
lamorel_args:
  log_level: info
  allow_subgraph_use_whith_gradient: true
  distributed_setup_args: {n_rl_processes: 1, n_llm_processes: 1}
  accelerate_args: {config_file: accelerate/default_config.yaml, machine_rank: 0, num_processes: "???", num_machines: 1}
  llm_args:
    model_type: seq2seq
    model_path: google/flan-t5-small
    pretrained: true
    minibatch_size: 5
    pre_encode_inputs: true
    parallelism: {use_gpu: true, model_parallelism_size: 1}
  updater_args:
rl_script_args:
  path: ???
  seed: 3
  number_envs: 2
  num_steps: 8
  max_episode_steps: 3
  frames_per_proc: 4
  reward_shaping_beta: 0
  lr: 1e-6
  action_space: ["turn_left","turn_right"]
  saving_path_logs: ???
  saving_path_model: ???
  name_environment: BabyAI-GoToRedBall-v0
  new_action_space:
  spm_path: "YOUR_PATH/unigram_8k.model"
"""
PLACES = ["rl_script_args.saving_path_logs=l", "rl_script_args.saving_path_model=m"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with the file `old/config.yaml`."""
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.yaml").write_text(OLD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def composed(*arguments):
    """The configuration of a script with this command line."""
    folder, name, overrides = primary_configuration([*arguments, *PLACES])
    with initialize_config_dir(folder, version_base="1.3"):
        return parse_config(compose(name, overrides=overrides))


@pytest.mark.parametrize("name", ["config.yaml", "absolute"])
def test_a_file_that_lacks_keys_has_the_defaults(folder, name):
    name = str(folder / "old" / "config") if name == "absolute" else name
    config = composed("--config-path", "old", "--config-name", name, "rl_script_args.nbr_obs=2")
    rl, llm_args = config.rl, config.lamorel.llm_args
    assert (rl.seed, rl.num_steps, rl.max_episode_steps, rl.lr, rl.nbr_obs) == (3, 8, 3, 1e-6, 2)
    assert rl.action_space == ["turn_left", "turn_right"]
    assert (llm_args.minibatch_size, llm_args.parallelism.use_gpu, llm_args.seed) == (5, True, 3)
    base = make_config([*PLACES, "lamorel_args.llm_args.model_path=google/flan-t5-small"])
    assert (rl.reward_scale, rl.symbolic, rl.tests) == (base.rl.reward_scale, base.rl.symbolic, base.rl.tests)
    assert llm_args.dtype == base.lamorel.llm_args.dtype


def test_overlays_go_over_the_file(folder):
    old = ("--config-path=old", "-cn=config")
    assert composed(*old, "machine=gpu").lamorel.llm_args.minibatch_size == 192
    assert not composed(*old, "machine=cpu").lamorel.llm_args.parallelism.use_gpu
    config = composed(*old, "experiment=actions_3", "compat=released_code", "rl_script_args.number_envs=7")
    assert config.rl.action_space == ["turn_left", "turn_right", "go_forward"]
    assert (config.rl.score_rule, config.rl.number_envs, config.rl.seed) == ("logits_released", 7, 3)


def test_a_file_with_overlays_of_its_own(folder):
    (folder / "old" / "size").mkdir()
    OmegaConf.save({"rl_script_args": {"number_envs": 9}}, folder / "old" / "size" / "large.yaml")
    (folder / "old" / "size" / "large.yaml").write_text("# @package _global_\nrl_script_args: {number_envs: 9}\n")
    own = OLD + "defaults: [_self_, {size: large}, {machine: cpu}]\n"
    (folder / "old" / "config.yaml").write_text(own)
    config = composed("--config-path", "old", "--config-name", "config")
    assert (config.rl.number_envs, config.lamorel.llm_args.parallelism.use_gpu) == (9, False)


def test_without_a_file_base_yaml_is_read():
    configs = str(ROOT / "configs")
    assert primary_configuration(["-m", "rl_script_args.seed=1,2"]) == (
        configs,
        "base",
        ["-m", "rl_script_args.seed=1,2"],
    )
    assert primary_configuration(["--config-path", configs, "a=1", "--config-name", "base"]) == (
        configs,
        "base",
        ["a=1"],
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "--config-name: .*/old/other.yaml does not exist"),
        ("- a", "other.yaml is not a YAML mapping"),
        ("a: {", "other.yaml: while parsing a flow node"),
        ("rl_script_args: {nmu_envs: 3}", "rl_script_args.nmu_envs: Key 'nmu_envs' not in 'RLScriptArgs'"),
    ],
)
def test_a_faulty_file_gives_one_line(folder, text, message):
    if text is not None:
        (folder / "old" / "other.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        composed("--config-path", "old", "--config-name", "other")


@pytest.mark.parametrize(("steps", "lines"), [("3", 1), ("4", 0), ("null", 0)])
def test_a_script_reads_the_file_and_names_the_key_that_had_no_effect(folder, monkeypatch, caplog, steps, lines):
    command = ["script.py", "--config-path", "old", "--config-name", "config", *PLACES]
    command.append(f"rl_script_args.max_episode_steps={steps}")
    for name in ("listen_for_stop", "stop_listening"):
        monkeypatch.setattr(f"experiments.hydra_script.{name}", lambda **_: None)
    monkeypatch.setattr(sys, "argv", list(command))
    found = []
    with caplog.at_level(logging.WARNING):
        hydra_script(lambda config: found.append((config.rl.seed, sys.argv)))()
    assert found == [(3, command)]
    said = [line for line in caplog.messages if "max_episode_steps=3: episodes end after 3 steps" in line]
    assert len(said) == lines
