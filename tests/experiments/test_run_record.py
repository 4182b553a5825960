"""run.json, how a run stands, and run.log, what it has said."""

import json

import pytest

from experiments.errors import UserError
from experiments.log_file import logged_to
from experiments.run_record import RECORD, RunRecord
from experiments.stopping import Stopped
from lamorel.checkpoint import CheckpointError


def test_a_new_start_shows_what_the_last_one_measured_until_it_has_measured_itself(tmp_path):
    first = RunRecord(tmp_path, 100)
    first.write("running", update=0, frames=0)
    assert "success_rate" not in json.loads((tmp_path / RECORD).read_text())
    first.write("running", update=2, frames=40, success_rate=0.5, frames_per_second=8.0)
    first.write("stopped", reason="by a signal")
    second = RunRecord(tmp_path, 100)
    second.write("running", update=1, frames=20)
    record = json.loads((tmp_path / RECORD).read_text())
    assert (record["state"], record["reason"], record["frames"]) == ("running", "", 20)
    assert (record["success_rate"], record["frames_per_second"]) == (0.5, 8.0)
    second.write("running", update=2, frames=40, success_rate=0.25, frames_per_second=9.0)
    record = json.loads((tmp_path / RECORD).read_text())
    assert (record["success_rate"], record["frames_per_second"]) == (0.25, 9.0)


@pytest.mark.parametrize("left", ["", "{", "[]", "3"])
def test_a_record_that_cannot_be_read_is_replaced(tmp_path, left):
    (tmp_path / RECORD).write_text(left)
    RunRecord(tmp_path, 100).write("running")
    assert json.loads((tmp_path / RECORD).read_text())["num_steps"] == 100


@pytest.mark.parametrize(
    ("error", "has_traceback"),
    [
        (UserError("mend it"), False),
        (CheckpointError("mend it"), False),
        (Stopped("mend it"), False),
        (ValueError("mend it"), True),
    ],
)
def test_run_log_has_tracebacks_of_defects_only(tmp_path, error, has_traceback):
    with pytest.raises(type(error)), logged_to(tmp_path / "run.log"):
        raise error
    text = (tmp_path / "run.log").read_text()
    assert text.rstrip().endswith("mend it")
    assert ("=== ended by an error\nTraceback" in text) == has_traceback
    assert ("=== ended: mend it" in text) != has_traceback
