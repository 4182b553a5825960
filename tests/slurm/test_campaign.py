"""A campaign on a cluster, with the tiny LLM: training is stopped, killed and resumed, its tests wait; the status."""

import json
import re
import time
from pathlib import Path

import pytest

from experiments.checkpoint import CheckpointStore, read_trainer
from experiments.experiment_paths import ExperimentPaths
from tests.experiments.conftest import SMALL, make_config
from tests.experiments.test_training import assert_same_run
from tests.slurm.cluster import NODES, Cluster, wait_until

pytestmark = pytest.mark.slurm
LAST = 16  # updates
START = 240  # seconds in which a run of two nodes begins, and ends, on a busy machine


@pytest.fixture(scope="module")
def overrides(tmp_path_factory) -> list[str]:
    """Of an experiment of the paper, to make it one of seconds."""
    from experiments.tiny_llm.models import save_tiny_model

    model = tmp_path_factory.mktemp("model")
    save_tiny_model(model, "t5", d_model=32, layers=1, heads=2)
    return [
        *SMALL,
        f"rl_script_args.num_steps={32 * LAST}",
        "rl_script_args.checkpoint_every=4",
        "rl_script_args.tests=[no_modification_test]",
        "rl_script_args.tensorboard=false",
        f"lamorel_args.llm_args.model_path={model}",
    ]


class Training:
    """A run of campaign/q1_mixed.sh below a folder of its own."""

    def __init__(self, cluster: Cluster, storage: Path, overrides: list[str], job: str, name: str, seed: int) -> None:
        places = (("saving_path_logs", "logs"), ("saving_path_model", "models"))
        folders = [f"rl_script_args.{key}={storage / place}" for key, place in places]
        config = make_config(["experiment=q1_mixed", *overrides, *folders, f"rl_script_args.seed={seed}"])
        self.cluster, self.paths, self.job = cluster, ExperimentPaths.of(config), f"{job}_{seed}"
        self._log = cluster.checkout / "campaign" / "logs" / f"{name}_{self.job}.log"

    @classmethod
    def start(cls, cluster: Cluster, storage: Path, overrides: list[str], name: str) -> "Training":
        """Seed 2 alone, under another name than the script's."""
        script = ("--array=2", f"--job-name={name}", "campaign/q1_mixed.sh")
        return cls(cluster, storage, overrides, cluster.submit(*script, *overrides, **on_cpus(storage)), name, 2)

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else "no log"

    @property
    def record(self) -> dict:
        """run.json, {} before the first update."""
        path = self.paths.logs / "run.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def wait_for_update(self, update: int) -> None:
        wait_until(lambda: self.record.get("update", 0) >= update, START, lambda: self.log)

    def wait_for_requeue(self, restarts: int) -> None:
        """Until SLURM has begun it again so many times, and it waits."""
        wait_until(lambda: self.cluster.job(self.job)["Restarts"] == str(restarts), START, lambda: self.log)
        self.cluster.wait_for_state(self.job, "PENDING")

    def wait_until_done(self) -> None:
        state = self.cluster.wait_for_state(self.job, "COMPLETED", "FAILED", timeout=START)
        assert state == "COMPLETED", f"{self.cluster.job(self.job)}\n{self.log}\n{self.cluster.controller_log()}"
        assert (self.record["state"], self.record["update"]) == ("done", LAST)


def on_cpus(storage: Path) -> dict[str, str]:
    """The environment of who submits."""
    return {"GLAM_STORAGE": str(storage), "GLAM_MACHINE": "cpu"}


@pytest.fixture(scope="module")
def uninterrupted(cluster, overrides, tmp_path_factory) -> Training:
    """Seed 2 undisturbed; it runs meanwhile."""
    return Training.start(cluster, tmp_path_factory.mktemp("uninterrupted"), overrides, "uninterrupted")


def status(cluster: Cluster, storage: Path) -> dict[tuple[str, int], dict]:
    """What campaign/status.py knows of the paper's scripts, by name and seed."""
    printed = cluster.run("python", "campaign/status.py", "--json", **on_cpus(storage))
    return {(run["name"], run["seed"]): run for run in json.loads(printed)["runs"]}


def test_training_is_requeued_and_its_test_waits(cluster, overrides, tmp_path, uninterrupted):
    """Two seeds on two nodes; seed 2 is stopped in its first updates and begins again; a test of each waits for it."""
    printed = cluster.run("python", "campaign/submit.py", "generalisation:q1_mixed", "--", *overrides,
                          **on_cpus(tmp_path))  # fmt: skip
    job, tests = re.findall(r"^job (\d+): ", printed, re.M)
    first, second = (Training(cluster, tmp_path, overrides, job, "q1_mixed", seed) for seed in (1, 2))
    wait_until(lambda: status(cluster, tmp_path)["q1_mixed", 2]["state"] == "running", START)
    second.wait_for_update(1)
    cluster.run("scancel", "--signal=USR1", second.job)
    second.wait_for_requeue(1)
    stopped = second.record
    assert stopped["state"] == "stopped"
    assert 1 <= stopped["update"] < LAST
    assert cluster.job(first.job)["Restarts"] == "0"
    assert cluster.state(f"{tests}_2") == "PENDING"
    found = status(cluster, tmp_path)
    assert (found["q1_mixed", 2]["state"], found["q1_mixed", 2]["update"]) == ("waiting", stopped["update"])
    assert found["generalisation", 2]["state"] == "waiting"

    cluster.begin_now(second.job)
    for run in (first, second, uninterrupted):
        run.wait_until_done()
    assert f"resumed at update {stopped['update']}" in second.log
    for update in range(1, LAST + 1):
        assert second.log.count(f"update {update} |") == 1
    assert_same_run(second.paths, uninterrupted.paths)
    for seed, run in enumerate((first, second), 1):
        cluster.wait_for_state(f"{tests}_{seed}", "COMPLETED", timeout=START)
        assert list(run.paths.logs.glob("test/*/episodes/no_modification_test.csv"))
    found = status(cluster, tmp_path)
    for name in ("q1_mixed", "generalisation"):
        for seed in (1, 2):
            assert found[name, seed]["state"] == "done"
    assert found["q1_mixed", 2]["restarts"] == 1


def test_a_node_that_dies(cluster, overrides, tmp_path, uninterrupted):
    """The rest of the run ends by itself, SLURM requeues the job, and it goes on from its last checkpoint."""
    uninterrupted.wait_until_done()
    run = Training.start(cluster, tmp_path, overrides, "node")
    run.wait_for_update(5)
    cluster.kill_node("n2")
    wait_until(lambda: not cluster.processes(run.job), 15, lambda: str(cluster.processes(run.job)))
    run.wait_for_requeue(1)
    saved = read_trainer(CheckpointStore(run.paths.models).newest())["update"]
    time.sleep(30)  # what SLURM still wants to tell the dead node would reach it, and end the new run there
    cluster.start_node("n2")
    cluster.begin_now(run.job)
    run.wait_until_done()
    assert saved >= 4  # checkpoint_every=4
    assert run.log.count(f"resumed at update {saved} ") == 1
    assert_same_run(run.paths, uninterrupted.paths)


def test_a_run_that_cannot_begin_is_named(cluster, overrides, tmp_path):
    printed = cluster.run("python", "campaign/submit.py", "french:q1_mixed", "--seeds", "1", "--without-needs", "--",
                          *overrides, **on_cpus(tmp_path))  # fmt: skip
    [job] = re.findall(r"^job (\d+): ", printed, re.M)
    cluster.wait_for_state(f"{job}_1", "FAILED")
    assert cluster.job(f"{job}_1")["ExitCode"] == "2:0"
    found = status(cluster, tmp_path)["french", 1]
    assert found["state"] == "failed"
    assert "holds no checkpoint: train with the same configuration first" in found["reason"]


SCRIPTS = sorted((Path(__file__).resolve().parents[2] / "campaign").glob("*.sh"))


def fewer_nodes(path: Path) -> list[str]:
    """An option for a script of more nodes than the cluster has."""
    [nodes] = re.findall(r"^#SBATCH --nodes=(\d+)", path.read_text(), re.M)
    return [f"--nodes={len(NODES)}"] if int(nodes) > len(NODES) else []


def test_slurm_accepts_every_script(cluster):
    """As they stand, and without a GPU as campaign/submit.py submits those of agents without an LLM."""
    assert len(SCRIPTS) > 40
    for path in SCRIPTS:
        for option in ((), ("--gres=none",)):
            said = cluster.run("sbatch", "--test-only", *option, *fewer_nodes(path), f"campaign/{path.name}")
            assert re.search(r"Job \d+ to start at .* on nodes n", said), said
