"""launch_accelerate.py on a cluster: behavioural cloning by a process on each of two nodes."""

import pytest

from tests.experiments.cloning_runs import assert_same_weights, assert_similar_rows, export_bot, run

pytestmark = pytest.mark.slurm


def test_cloning_on_two_nodes_is_that_of_one_process(cluster, tmp_path):
    from experiments.tiny_llm.models import save_tiny_model

    model, data, output = (tmp_path / name for name in ("t5", "data", "cloned"))
    save_tiny_model(model, "t5", d_model=32, layers=1, heads=2)
    data.mkdir()
    export_bot(data, 64, 1)
    options = {"train_transitions": 60, "lr": 1e-2, "per_device_batch_size": 6, "log_every": 2, "eval_every": 5}
    folders = {"data_dir": data, "model_dir": model, "output_dir": output}
    words = [word for name, value in (options | folders).items() for word in (f"--{name}", str(value))]
    job = cluster.submit(
        "--array=1", "--nodes=2", "--ntasks-per-node=1", "--gres=none", "campaign/clone_bot.sh", "actions_6", *words,
        GLAM_STORAGE=str(tmp_path),
    )  # fmt: skip
    log = cluster.checkout / "campaign" / "logs" / f"clone_bot_{job}_1.log"
    assert cluster.wait_for_state(f"{job}_1", "COMPLETED", "FAILED", timeout=180) == "COMPLETED", log.read_text()
    assert "on n[1-2]: 2 process(es) on CPUs, they meet at 127.0.0.1:" in log.read_text()
    assert "5 gradient steps of 12 pairs (6 per process and forward, 1 forwards, 2 processes)" in log.read_text()

    unlisted = {"gradient_accumulation_steps": 2, "checkpoint_every": 100, "seed": 1}
    run(data, model, tmp_path / "alone", **(options | unlisted))
    assert_similar_rows(output, tmp_path / "alone")
    assert_same_weights(output, tmp_path / "alone", atol=1e-4)
