"""hydra's submitit launcher on a cluster: a sweep is a job for each combination."""

import sys

import pytest

from tests.experiments.conftest import SMALL

pytestmark = pytest.mark.slurm


def test_a_sweep_over_two_seeds(cluster, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install -e '.[cluster]'")
    cluster.run(
        sys.executable, "experiments/post-training_tests.py", "-m", "hydra/launcher=slurm", *SMALL,
        "rl_script_args.random_agent=true", "rl_script_args.seed=1,2",
        f"rl_script_args.saving_path_logs={tmp_path / 'logs'}", "rl_script_args.saving_path_model=unused",
        timeout=180, GLAM_STORAGE=str(tmp_path),
    )  # fmt: skip
    assert len(list((tmp_path / "logs").glob("*_seed_[12]/test/*/return_per_episode/*.npy"))) == 2
    [array] = {path.name.split("_")[0] for path in tmp_path.rglob("*_submitted.pkl")}
    for task in (0, 1):
        assert cluster.wait_for_state(f"{array}_{task}", "COMPLETED", "FAILED") == "COMPLETED"
        assert cluster.job(f"{array}_{task}")["Requeue"] == "1"
