"""Behavioural cloning where numbers are not finite: steps are skipped, too many in a row end the run."""

import functools
import logging
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from experiments.checkpoint import CheckpointStore, read_trainer
from experiments.clm_behavioral_cloning import main
from experiments.cloning.learner import Learner
from experiments.errors import UserError
from tests.experiments.cloning_runs import (
    arguments,
    assert_same_run,
    assert_same_weights,
    assert_similar_rows,
    export_bot,
    rows,
    run,
)
from tests.experiments.conftest import script_environment
from tests.experiments.spoiling import spoil
from tests.experiments.test_cloning import STEP, kill

NAN, INF = math.nan, math.inf


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trajectories")
    export_bot(folder, 150, 1)
    return folder


def learned(learner):
    """All that a step changes, flat."""
    state = learner.optimizer.state_dict()["state"]
    moments = [value.flatten() for entries in state.values() for value in entries.values()]
    return torch.cat([p.detach().flatten() for p in learner.loss.parameters()] + moments), learner.lr


def test_skipped_steps_change_nothing_and_count(data, tiny_models, tmp_path, monkeypatch, caplog):
    """Steps 4 and 9 of 12; rows of log.csv end with steps 5, 6, 10, 12. The second has a finite gradient."""
    spoil({4: NAN, 9: INF}, patch=monkeypatch.setattr)
    step, seen = Learner.step, []

    def spy(self, *batch):
        before, lr = learned(self)
        loss, norm, tokens = step(self, *batch)
        after, next_lr = learned(self)
        seen.append((loss, norm, len(before) == len(after) and torch.equal(before, after), lr == next_lr, tokens))
        return loss, norm, tokens

    monkeypatch.setattr(Learner, "step", spy)
    with caplog.at_level(logging.INFO):
        run(data, tiny_models / "t5", tmp_path / "out")
    skipped = {number: entry for number, entry in enumerate(seen, start=1) if not math.isfinite(entry[0])}
    assert list(skipped) == [4, 9]
    assert math.isnan(skipped[4][1])
    assert math.isfinite(skipped[9][1])
    assert all(entry[2:4] == (True, True) for entry in skipped.values())
    assert not any(entry[2] for number, entry in enumerate(seen, start=1) if number not in skipped and number > 1)
    [first, second, *_] = rows(tmp_path / "out")
    taken = [seen[i] for i in (0, 1, 2, 4)]
    assert first["train_loss"] == pytest.approx(sum(e[0] * e[4] for e in taken) / sum(e[4] for e in taken))
    assert (first["step"], first["examples"], second["step"]) == (5, 60, 6)
    assert "gradient step 4 is skipped, the loss is nan (1 in a row)" in caplog.messages
    lines = {message.split("/")[0]: message for message in caplog.messages if message.startswith("step ")}
    assert lines["step 5"].endswith("| 1 skipped")
    assert "skipped" not in lines["step 6"]


def test_a_resumed_run_with_skipped_steps(data, tiny_models, tmp_path, monkeypatch):
    """The checkpoint of step 6 waits for step 8, the first that is taken; rows 6 and 7 have no loss to tell."""
    spoil({6: NAN, 7: NAN}, patch=monkeypatch.setattr)
    call = functools.partial(run, data, tiny_models / "t5", log_every=1)
    call(tmp_path / "straight")
    assert [row["step"] for row in rows(tmp_path / "straight") if math.isnan(row["train_loss"])] == [6, 7]
    store = CheckpointStore(tmp_path / "out" / "checkpoints")
    for step, saved in ((8, 3), (6, 8)):  # in step 8; begun again with step 4, in step 9
        kill(monkeypatch, STEP, step, data, tiny_models / "t5", tmp_path / "out", log_every=1)
        assert read_trainer(store.newest())["update"] == saved
    call(tmp_path / "out")
    assert_same_run(tmp_path / "out", tmp_path / "straight")


def test_too_many_skipped_steps(data, tiny_models, tmp_path, monkeypatch, capsys):
    options = arguments(data, tiny_models / "t5", tmp_path / "out", max_skipped_steps=3)
    with monkeypatch.context() as patch:
        spoil(dict.fromkeys(range(5, 13), NAN), patch=patch.setattr)
        patch.setattr(sys, "argv", ["clm_behavioral-cloning.py", *options])
        with pytest.raises(SystemExit) as end:
            main()
    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: 3 gradient steps in a row were skipped, from gradient step 5 on: the loss is nan; the same command "
        "goes on from the checkpoint of step 3, which is intact; if it ends here again, give a lower --lr and another "
        "--output_dir, or a larger --max_skipped_steps"
    )
    run(data, tiny_models / "t5", tmp_path / "out", max_skipped_steps=4)  # no setting that decides the result
    run(data, tiny_models / "t5", tmp_path / "straight")
    assert_same_run(tmp_path / "out", tmp_path / "straight")


def test_an_evaluation_that_is_no_number(data, tiny_models, tmp_path, monkeypatch):
    monkeypatch.setattr(Learner, "evaluate", lambda *_: NAN)
    with pytest.raises(UserError, match=r"^the evaluation loss after gradient step 6 is nan; .* checkpoint of step 3,"):
        run(data, tiny_models / "t5", tmp_path / "out")


@pytest.mark.slow
def test_of_two_processes_one_is_not_finite(data, tiny_models, tmp_path, monkeypatch):
    """Both skip what only the second has seen: NaN in step 2, in step 5 an infinite loss whose gradient is finite."""
    with monkeypatch.context() as patch:
        spoil({2: NAN, 5: INF}, patch=patch.setattr)
        run(data, tiny_models / "t5", tmp_path / "one", train_transitions=133)
    options = {"per_device_batch_size": 2, "train_transitions": 133}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, str(Path(__file__).with_name("spoiling.py")),
         *arguments(data, tiny_models / "t5", tmp_path / "two", **options)],
        env={**script_environment(), "SPOILT_STEPS": "2,5"}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("gradient step 2 is skipped, the loss is nan") == 1  # one process speaks
    assert done.stderr.count("gradient step 5 is skipped, the loss is inf") == 1
    assert_same_weights(tmp_path / "two", tmp_path / "one", atol=2e-5)
    assert_similar_rows(tmp_path / "two", tmp_path / "one")
