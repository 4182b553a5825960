"""What `lamorel_args` may hold, and what is said when it does not."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from lamorel.config import LamorelConfigError, parse_config

GOOD: dict[str, Any] = {"llm_args": {"model_path": "google/flan-t5-small"}}


def test_defaults() -> None:
    config = parse_config(OmegaConf.create(GOOD))
    assert config == parse_config(GOOD) == parse_config(config)
    assert (config.log_level, config.gloo_timeout, config.distributed_setup_args.n_llm_processes) == ("info", 1800, 1)
    assert (config.llm_args.minibatch_size, config.llm_args.model_type, config.llm_args.lora) == (16, "seq2seq", None)
    assert (config.accelerate_args.machine_rank, config.accelerate_args.main_process_port) == (0, None)
    assert config.llm_args.parallelism.use_gpu is False


def test_every_accelerate_flag_is_kept() -> None:
    config = parse_config({**GOOD, "accelerate_args": {"num_machines": 2, "dynamo_backend": "no", "num_processes": 4}})
    assert config.accelerate_args.num_machines == 2
    assert config.accelerate_args.flags == {"dynamo_backend": "no", "num_processes": 4}


def test_lora_targets_as_list_or_pattern() -> None:
    for given, parsed in ((["q", "v"], ("q", "v")), ("all-linear", "all-linear"), (None, None)):
        tree = OmegaConf.create({"llm_args": {**GOOD["llm_args"], "lora": {"r": 2, "target_modules": given}}})
        assert parse_config(tree).llm_args.lora.target_modules == parsed


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"llm_arg": {}}, "lamorel_args.llm_arg is not a key of Lamorel; did you mean llm_args"),
        ({"llm_args": {"minibatchsize": 3}}, "llm_args.minibatchsize is not a key.*did you mean minibatch_size"),
        ({"llm_args": {"parallelism": {"gpu": True}}}, "lamorel_args.llm_args.parallelism.gpu .*use_gpu"),
        ({"lamorel_args": {}}, "pass config.lamorel_args"),
        ({"llm_args": {"minibatch_size": 0}}, "lamorel_args.llm_args.minibatch_size: .* at least 1, got 0"),
        ({"llm_args": {"minibatch_size": "16"}}, "minibatch_size: expected int, got '16' \\(str\\)"),
        ({"llm_args": {"minibatch_size": True}}, "minibatch_size: expected int, got True"),
        ({"llm_args": {"pretrained": 1}}, "pretrained: expected bool, got 1"),
        ({"llm_args": {"model_type": "encoder"}}, "model_type: expected one of seq2seq, causal, got 'encoder'"),
        ({"llm_args": {"lora": {"rank": 2}}}, "lamorel_args.llm_args.lora.rank is not a key"),
        ({"llm_args": {"lora": {"dropout": 1.5}}}, "lamorel_args.llm_args.lora.dropout: .* at most 1, got 1.5"),
        ({"llm_args": {"lora": True}}, "lamorel_args.llm_args.lora: expected a mapping"),
        ({"llm_args": {"lora": {"target_modules": [1]}}}, "target_modules: expected str or list of str or null"),
        ({"llm_args": None}, "lamorel_args.llm_args: expected a mapping of keys, got None"),
        ({"distributed_setup_args": {"n_rl_processes": 0}}, "n_rl_processes: .* at least 1"),
        ({"log_level": "loud"}, "log_level: expected one of"),
        ({"llm_args": {"model_path": None}}, "model_path is required"),
        ({"llm_args": {"model_path": "./models/none"}}, "model folder models/none does not exist"),
        ({"llm_args": {"model_path": "/no/such/folder"}}, "model folder /no/such/folder does not exist"),
        ({"llm_args": {"model_path": "~no-such-user/model"}}, "model folder ~no-such-user/model does not exist"),
        ({"llm_args": {"model_path": "a/b/c"}}, "model folder a/b/c does not exist"),
        ({"llm_args": {"model_path": "???"}}, "lamorel_args.*model_path"),
    ],
)
def test_mistakes_are_named(tree: dict[str, Any], message: str) -> None:
    with pytest.raises(LamorelConfigError, match=message):
        parse_config(OmegaConf.create(tree))


def test_model_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    for path, message in (("models", "holds no config.json"), ("models/tiny", "model folder models/tiny does not")):
        with pytest.raises(LamorelConfigError, match=message):
            parse_config({"llm_args": {"model_path": path}})
    (tmp_path / "models" / "config.json").write_text("{}")
    (tmp_path / "models" / "tiny.GGUF").touch()
    for path in ("models", "models/tiny.GGUF"):
        assert parse_config({"llm_args": {"model_path": path}}).llm_args.model_path == path
    with pytest.raises(LamorelConfigError, match=r"models/config.json is a file, but no GGUF file"):
        parse_config({"llm_args": {"model_path": "models/config.json"}})
    # Nothing is loaded where no LLM is wanted.
    parse_config({"distributed_setup_args": {"n_llm_processes": 0}})


def test_a_hub_that_cannot_be_reached_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    from lamorel import Caller

    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to host\nmore lines")

    monkeypatch.setattr(huggingface_hub, "model_info", unreachable)
    with pytest.raises(
        LamorelConfigError,
        match=r"^lamorel_args.llm_args.model_path nobody/nothing cannot be loaded: .*\(no route to host\)$",
    ):
        Caller({"llm_args": {"model_path": "nobody/nothing"}})


def test_checking_a_configuration_needs_no_torch() -> None:
    code = (
        "import sys, lamorel; from lamorel.config import parse_config; "
        "parse_config({'llm_args': {'model_path': 'gpt2'}}); assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
