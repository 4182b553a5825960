"""What the launcher makes of its command line and configuration; nothing is started."""

import os
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from lamorel.config import LamorelConfigError, parse_config
from lamorel_launcher.launch import main
from lamorel_launcher.layout import Address, environments, ranks_of_machine
from lamorel_launcher.machines import store_socket
from lamorel_launcher.settings import LaunchError, Settings, read_settings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with `conf/run.yaml` and `script.py`."""
    (tmp_path / "conf").mkdir()
    tree = {
        "lamorel_args": {"llm_args": {"model_path": "google/flan-t5-small", "seed": "${rl_script_args.seed}"}},
        "rl_script_args": {"path": "???", "seed": 3},
    }
    OmegaConf.save(tree, tmp_path / "conf" / "run.yaml")
    (tmp_path / "script.py").touch()
    for name in ("conf", "conf/more"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "broken.yaml").write_text("key: {a")
    monkeypatch.chdir(tmp_path)
    for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def read(*overrides: str, name: str = "run") -> Settings:
    return read_settings(["--config-path", "conf", "--config-name", name, "rl_script_args.path=script.py", *overrides])


def args(**accelerate_args: Any) -> list[str]:
    return [f"+lamorel_args.accelerate_args.{key}={value}" for key, value in accelerate_args.items()]


@pytest.mark.parametrize("name", ["run", "run.yaml"])
def test_paths_may_be_relative_and_overrides_are_handed_on(folder: Path, name: str) -> None:
    settings = read("rl_script_args.seed=7", "+rl_script_args.note='a b'", name=name)
    assert settings.script == folder / "script.py"
    assert settings.lamorel.llm_args.seed == 7
    assert settings.arguments == (
        *("--config-path", str(folder / "conf"), "--config-name", "run"),
        *("rl_script_args.path=script.py", "rl_script_args.seed=7", "+rl_script_args.note='a b'"),
    )
    assert sorted(os.listdir(folder)) == ["conf", "script.py"]  # no folder of hydra's


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rl_script_args.path=nowhere.py"], "rl_script_args.path: .*nowhere.py does not exist"),
        (["rl_script_args.path=null"], "rl_script_args.path is not set"),
        (["rl_script_args.path=5"], "rl_script_args.path: expected the path of a script, got 5"),
        (["rl_script_args.sed=1"], "Could not override 'rl_script_args.sed'"),
        (["+rl_script_args.note=lr=1e-5"], r"""give '\+rl_script_args.note="lr=1e-5"'"""),
        (["=3"], "override =3: it names no key"),
        (["lamorel_args.llm_args.model_path=???"], "model_path is required: give it, or n_llm_processes=0 where none"),
        (["+lamorel_args.llm_args.dtyp=x"], "lamorel_args.llm_args.dtyp is not a key of Lamorel; did you mean dtype"),
        (args(mixed_precison="bf16"), "mixed_precison is not a flag of accelerate launch; did you mean mixed_prec"),
        (args(mixed_precision="bf17"), "lamorel_args.accelerate_args: argument --mixed_precision.* invalid choice"),
        (args(num_machines=2), "num_machines is 2: set main_process_ip and main_process_port"),
        (args(machine_rank=1), "machine_rank is 1, but num_machines is 1"),
        (args(main_process_port=70000), "main_process_port: expected a number of at most 65535, got 70000"),
        (args(config_file="conf/broken.yaml"), "config_file: .*conf/broken.yaml: while parsing a flow mapping"),
        (["+more=broken"], "while parsing a flow mapping .*broken.yaml"),
        (
            args(machine_rank=1, config_file="no.yaml"),
            "num_machines is 1 .*config_file no.yaml does not exist, nor does",
        ),
        (args(num_machines=2, config_file="no.yaml"), r"set main_process_ip.*\(.*config_file no.yaml does not exist"),
        (["+lamorel_args.updater_args=3"], "lamorel_args.updater_args: expected dict or null, got 3"),
        (args(num_machines=3, main_process_ip="h", main_process_port=1), "num_machines is 3, but there are 2 proc"),
    ],
)
def test_one_line_says_what_is_wrong(
    folder: Path, overrides: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises((LaunchError, LamorelConfigError), match=message):
        read(*overrides)
    arguments = ["--config-path", "conf", "--config-name", "run", "rl_script_args.path=script.py", *overrides]
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1


def test_without_llm_processes_no_model_is_needed(folder: Path) -> None:
    processes = "+lamorel_args.distributed_setup_args.n_llm_processes"
    settings = read(f"{processes}=0", "lamorel_args.llm_args.model_path=???")
    assert (settings.lamorel.distributed_setup_args.n_llm_processes, settings.lamorel.llm_args.model_path) == (0, None)
    with pytest.raises(LamorelConfigError, match="model_path"):
        read(f"{processes}=1", "lamorel_args.llm_args.model_path=???")


def test_accelerate_flags_reach_the_script(folder: Path) -> None:
    settings = read(*args(mixed_precision="bf16", num_processes=17, cpu="true", num_cpu_threads_per_process=3))
    assert settings.environment["ACCELERATE_MIXED_PRECISION"] == "bf16"
    assert settings.environment["OMP_NUM_THREADS"] == "3"
    found = environments(settings.lamorel, Address("127.0.0.1", 1), settings.environment)
    assert [env["WORLD_SIZE"] for env in found.values()] == ["2", "2"]
    assert found[0]["ACCELERATE_USE_CPU"] == "true"
    assert "OMP_NUM_THREADS" not in read(*args(mixed_precision="no")).environment


def test_a_file_of_accelerate_fills_in_what_is_left_open(folder: Path) -> None:
    file = {"num_machines": 2, "main_process_port": 1234, "mixed_precision": "bf16", "compute_environment": "X"}
    OmegaConf.save(file, folder / "accelerate.yaml")
    given = args(config_file="accelerate.yaml", main_process_ip="host", main_process_port=99, machine_rank="null")
    settings = read(*given)
    found = settings.lamorel.accelerate_args
    assert (found.num_machines, found.main_process_port, found.main_process_ip) == (2, 99, "host")
    assert settings.environment["ACCELERATE_MIXED_PRECISION"] == "bf16"
    assert read(*args(config_file="missing.yaml")).lamorel.accelerate_args.num_machines == 1


def test_a_file_of_accelerate_beside_the_configuration(folder: Path) -> None:
    """As configurations of Lamorel 0.2 name it; one in the working folder goes before it."""
    (folder / "conf" / "accelerate").mkdir()
    OmegaConf.save({"num_cpu_threads_per_process": 3}, folder / "conf" / "accelerate" / "default.yaml")
    given = args(config_file="accelerate/default.yaml")
    assert read(*given).environment["OMP_NUM_THREADS"] == "3"
    (folder / "accelerate").mkdir()
    OmegaConf.save({"num_cpu_threads_per_process": 4}, folder / "accelerate" / "default.yaml")
    assert read(*given).environment["OMP_NUM_THREADS"] == "4"


@pytest.mark.parametrize("suffix", ["", ".yaml"])
def test_the_name_of_the_configuration_may_be_absolute(folder: Path, suffix: str) -> None:
    settings = read("rl_script_args.seed=7", name=str(folder / "conf" / f"run{suffix}"))
    assert settings.lamorel.llm_args.seed == 7
    assert settings.arguments[:4] == ("--config-path", str(folder / "conf"), "--config-name", "run")


def test_keys_of_old_configurations(folder: Path) -> None:
    """The launcher counts processes itself, and updaters are made by scripts: neither key needs a value."""
    settings = read("+lamorel_args.updater_args=null", *args(num_processes="???"))
    assert settings.lamorel.updater_args is None
    tree = {"llm_args": {"model_path": "x"}, "accelerate_args": {"num_processes": "???"}}
    assert parse_config(OmegaConf.create(tree)).accelerate_args.num_machines == 1
    with pytest.raises(LamorelConfigError, match=r"lamorel_args.accelerate_args.machine_rank is required: give it$"):
        read(*args(machine_rank="???"))


def test_ranks_are_spread_evenly() -> None:
    assert [list(ranks_of_machine(3, 2, m)) for m in range(2)] == [[0, 1], [2]]
    assert [list(ranks_of_machine(8, 3, m)) for m in range(3)] == [[0, 1, 2], [3, 4, 5], [6, 7]]


def test_each_llm_process_has_its_own_gpus(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree: dict[str, Any] = {
        "distributed_setup_args": {"n_rl_processes": 1, "n_llm_processes": 3},
        "llm_args": {"model_path": "x", "parallelism": {"use_gpu": True, "model_parallelism_size": 2}},
    }
    machines = {"num_machines": 2, "main_process_ip": "127.0.0.1", "main_process_port": 1}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,5,3,GPU-1,1")
    visible = []
    for machine in range(2):  # ranks 0, 1 and ranks 2, 3
        config = parse_config({**tree, "accelerate_args": {**machines, "machine_rank": machine}})
        found = environments(config, Address("127.0.0.1", 1), {})
        visible.append({rank: env["CUDA_VISIBLE_DEVICES"] for rank, env in found.items()})
    assert visible == [{0: "7,5,3,GPU-1,1", 1: "7,5"}, {2: "7,5", 3: "3,GPU-1"}]
    with pytest.raises(LamorelConfigError, match=r"3 LLM process.* want 6 GPU.*, but there are 5 here"):
        environments(parse_config(tree), Address("127.0.0.1", 1), {})


def test_a_taken_port_is_no_hindrance_on_one_machine() -> None:
    with store_socket("127.0.0.1", None, any_port=True) as first:
        port = first.getsockname()[1]
        with store_socket("127.0.0.1", port, any_port=True) as second:
            assert second.getsockname()[1] not in (0, port)
        with pytest.raises(LamorelConfigError, match=f"main_process_port {port} cannot be used"):
            store_socket("127.0.0.1", port, any_port=False)


def test_threads_that_wait_leave_their_cores_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse_config({"llm_args": {"model_path": "x"}})
    for given, expected in ((None, "PASSIVE"), ("ACTIVE", "ACTIVE")):
        if given:
            monkeypatch.setenv("OMP_WAIT_POLICY", given)
        else:
            monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
        found = environments(config, Address("127.0.0.1", 1), {})
        assert {env["OMP_WAIT_POLICY"] for env in found.values()} == {expected}
