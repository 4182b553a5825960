"""The launchers of slurm/ with the variables that SLURM sets, without SLURM."""

import os
import socket
import subprocess
import sys
from dataclasses import replace

import pytest

import allocation
import launch_accelerate
import launch_lamorel
from allocation import LaunchError, Step
from lamorel_launcher.layout import ranks_of_machine
from tests.slurm.cluster import REPOSITORY

ALLOCATED = {  # what a task of SLURM 22.05 finds: element 2 of array 40, node 1 of 2, four GPUs each
    "SLURM_JOB_ID": "41",
    "SLURM_ARRAY_JOB_ID": "40",
    "SLURM_ARRAY_TASK_ID": "2",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_GPUS_ON_NODE": "4",
}
STEP = Step(
    job=41, name="40_2 (41)", rank=1, local_rank=0, node=1, tasks_per_node=(1, 1), node_list="n[1-2]", gpus_on_node=4
)
GPUS = launch_lamorel.Wanted(n_llm_processes=1, given=False, use_gpu=True, model_parallelism_size=1)
CPUS = replace(GPUS, use_gpu=False)


def test_a_task_finds_its_place():
    assert allocation.read_step(ALLOCATED) == STEP
    assert STEP.port == 15041
    alone = allocation.read_step({k: v for k, v in ALLOCATED.items() if "ARRAY" not in k and "GPUS" not in k})
    assert (alone.name, alone.gpus_on_node) == ("41", 0)


def test_successive_jobs_have_ports_of_their_own_that_linux_does_not_give_out():
    ports = [replace(STEP, job=job).port for job in range(29_990, 44_990)]
    assert len(set(ports)) == 15_000
    assert min(ports) == 15_000  # job 30,000
    assert max(ports) == 29_999  # below 32,768, the first of net.ipv4.ip_local_port_range


@pytest.mark.parametrize(
    ("counts", "expected"), [("1", (1,)), ("1(x3)", (1, 1, 1)), ("4(x2),3,2(x2)", (4, 4, 3, 2, 2))]
)
def test_counts_per_node(counts, expected):
    assert allocation.expand_counts(counts) == expected


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"SLURM_JOB_ID": None}, "not in a SLURM job"),
        ({"SLURM_STEP_ID": None}, "put srun in front"),
        ({"SLURM_GPUS": "a100:6"}, "6 GPUs on 2 nodes, 4 of them on node 1"),
    ],
)
def test_wrong_places_are_named(variables, message):
    environment = {k: v for k, v in (ALLOCATED | variables).items() if v is not None}
    with pytest.raises(LaunchError, match=message):
        allocation.read_step(environment)


def test_gpus_asked_for_in_total_may_be_even():
    assert allocation.read_step({**ALLOCATED, "SLURM_GPUS": "a100:8"}) == STEP


@pytest.mark.parametrize(
    ("step", "wanted", "expected"),
    [
        (STEP, GPUS, 8),  # 2 nodes x 4 GPUs
        (STEP, replace(GPUS, model_parallelism_size=2), 4),
        (STEP, replace(GPUS, n_llm_processes=3, given=True), 3),
        (STEP, CPUS, 2),  # GLAM_MACHINE=cpu: one per node
        (replace(STEP, tasks_per_node=(1,), gpus_on_node=0), CPUS, 1),
        (replace(STEP, tasks_per_node=(1,), gpus_on_node=0), replace(CPUS, n_llm_processes=5, given=True), 5),
        (replace(STEP, tasks_per_node=(1,)), replace(GPUS, n_llm_processes=0), 0),  # DRRN, the bot
    ],
)
def test_llm_processes(step, wanted, expected):
    assert launch_lamorel.count_llm_processes(step, wanted) == expected


@pytest.mark.parametrize(
    ("step", "wanted", "message"),
    [
        (replace(STEP, tasks_per_node=(4, 4)), GPUS, "4 tasks on a node.*--ntasks-per-node=1"),
        (STEP, replace(GPUS, n_llm_processes=0), "2 nodes, but .*n_llm_processes=0 .*--nodes=1"),
        (replace(STEP, gpus_on_node=0), GPUS, "the job has none.*GLAM_MACHINE=cpu"),
        (replace(STEP, gpus_on_node=3), replace(GPUS, model_parallelism_size=2), "3 GPUs per node .* of 2 GPUs"),
        (STEP, replace(GPUS, model_parallelism_size=8), "4 GPUs per node .* of 8 GPUs"),
    ],
)
def test_impossible_steps_are_refused(step, wanted, message):
    with pytest.raises(LaunchError, match=message):
        launch_lamorel.count_llm_processes(step, wanted)


def test_every_node_gets_the_llm_processes_that_its_gpus_carry():
    """The launcher spreads ranks by itself, the RL process first: node by node that must be GPUs / size again."""
    for nodes in range(1, 6):
        for gpus, size in ((1, 1), (4, 1), (8, 2), (6, 3), (8, 8)):
            step = replace(STEP, tasks_per_node=(1,) * nodes, gpus_on_node=gpus)
            total = launch_lamorel.count_llm_processes(step, replace(GPUS, model_parallelism_size=size)) + 1
            for node in range(nodes):
                llm = len([rank for rank in ranks_of_machine(total, nodes, node) if rank > 0])
                assert llm == gpus // size, (nodes, gpus, size, node)


@pytest.mark.parametrize(
    ("gpus", "given", "variable", "expected"),
    [
        (4, [], None, ["machine=slurm"]),
        (0, [], None, ["machine=cpu"]),
        (4, [], "cpu", ["machine=cpu"]),
        (4, ["machine=gpu", "rl_script_args.seed=2"], "cpu", []),
    ],
)
def test_machine(gpus, given, variable, expected):
    environment = {} if variable is None else {"GLAM_MACHINE": variable}
    assert launch_lamorel.machine_overrides(replace(STEP, gpus_on_node=gpus), given, environment) == expected


def test_the_command_of_a_node():
    meeting = "10.0.0.1", 15041
    overrides = ["machine=slurm", "rl_script_args.seed=2"]
    command = launch_lamorel.launch_command(STEP, "experiments/x.py", overrides, n_llm_processes=8, meeting=meeting)
    assert command[:3] == [sys.executable, "-m", "lamorel_launcher.launch"]
    assert command[3:] == [
        *("--config-path", str(REPOSITORY / "configs"), "--config-name", "base"),
        "rl_script_args.path=experiments/x.py",
        "lamorel_args.distributed_setup_args.n_llm_processes=8",
        "lamorel_args.accelerate_args.num_machines=2",
        "lamorel_args.accelerate_args.machine_rank=1",
        "lamorel_args.accelerate_args.main_process_ip=10.0.0.1",
        "lamorel_args.accelerate_args.main_process_port=15041",
        "machine=slurm",
        "rl_script_args.seed=2",  # what is given comes last
    ]
    alone = launch_lamorel.launch_command(STEP, "x.py", [], n_llm_processes=1, meeting=None)
    assert not [word for word in alone if "accelerate_args" in word]


def test_what_the_configuration_wants():
    read = launch_lamorel.read_wanted
    training = "experiments/train_language_agent.py"
    assert read(training, ["machine=slurm", "experiment=q1_mixed"]) == GPUS
    given = [
        "lamorel_args.distributed_setup_args.n_llm_processes=3",
        "lamorel_args.accelerate_args.main_process_port=7",
    ]
    parallel = "lamorel_args.llm_args.parallelism.model_parallelism_size=2"
    assert read(training, ["machine=cpu", "experiment=q1_mixed", parallel, *given]) == launch_lamorel.Wanted(
        n_llm_processes=3, given=True, use_gpu=False, model_parallelism_size=2, port=7
    )
    assert read(training, ["experiment=q1_drrn"]).n_llm_processes == 0


def test_a_taken_port_is_named():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LaunchError, match=f"port {port} .*: choose another") as raised:
            allocation.check_port(port, "choose another")
    assert not raised.value.everywhere
    allocation.check_port(port, "")


FOUR = replace(STEP, rank=6, local_rank=2, tasks_per_node=(4, 4))


def test_accelerate_gets_what_torchrun_would_give():
    found = launch_accelerate.process_environment(FOUR, {"SLURM_CPUS_PER_TASK": "8"}, "10.0.0.1")
    assert found == {
        "RANK": "6",
        "LOCAL_RANK": "2",
        "WORLD_SIZE": "8",
        "LOCAL_WORLD_SIZE": "4",
        "GROUP_RANK": "1",
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": "15041",
        "OMP_NUM_THREADS": "8",
    }
    on_cpus = launch_accelerate.process_environment(FOUR, {"GLAM_MACHINE": "cpu", "OMP_NUM_THREADS": "1"}, "n1")
    assert on_cpus["ACCELERATE_USE_CPU"] == "true"
    assert "OMP_NUM_THREADS" not in on_cpus


def test_accelerate_has_a_gpu_per_process():
    launch_accelerate.check_gpus(FOUR, visible=4)
    with pytest.raises(LaunchError, match=r"2 task\(s\) and 4 GPU.*--ntasks-per-node=4"):
        launch_accelerate.check_gpus(replace(FOUR, tasks_per_node=(2, 2)), visible=4)
    with pytest.raises(LaunchError, match=r"task 6 sees 1 of the 4 GPUs.*gpus-per-task"):
        launch_accelerate.check_gpus(FOUR, visible=1)


def run(script, *arguments, **variables):
    """A launcher as srun starts it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "GLAM"))}
    return subprocess.run(
        [sys.executable, f"slurm/{script}.py", *arguments],
        cwd=REPOSITORY,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("script", ["launch_lamorel", "launch_accelerate"])
def test_outside_of_slurm_is_one_line(script):
    done = run(script, "experiments/train_language_agent.py")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: not in a SLURM job")
    assert done.stderr.count("\n") == 1


def test_an_unknown_key_is_said_once_by_node_0():
    arguments = ["experiments/train_language_agent.py", "experiment=q1_mixed", "rl_script_args.learningrate=1"]
    variables = {**ALLOCATED, "GLAM_MACHINE": "cpu"}
    first, second = (run("launch_lamorel", *arguments, **{**variables, "SLURM_NODEID": node}) for node in "01")
    assert (first.returncode, second.returncode) == (2, 2)
    assert first.stderr.startswith("error: rl_script_args.learningrate is not a known key: did you mean")
    assert first.stderr.count("\n") == 1
    assert second.stderr == first.stdout == second.stdout == ""


def test_gpus_that_torch_does_not_see_are_named():
    done = run("launch_lamorel", "experiments/train_language_agent.py", "experiment=q1_mixed",
               **ALLOCATED, CUDA_VISIBLE_DEVICES="")  # fmt: skip
    assert done.returncode == 2
    assert "SLURM gave 4 GPU(s) and torch sees 0" in done.stderr
    assert "GLAM_MACHINE=cpu" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the script is missing"),
        (["experiment=q1_mixed"], "the script is missing"),
        (["experiments/no_script.py", "experiment=q1_mixed"], "no_script.py does not exist"),
    ],
)
def test_a_missing_script_is_named(arguments, message):
    done = run("launch_lamorel", *arguments, **{**ALLOCATED, "SLURM_NODEID": "0"}, GLAM_MACHINE="cpu")
    assert done.returncode == 2
    assert message in done.stderr
