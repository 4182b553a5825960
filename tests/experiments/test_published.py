"""Files of results, and the tables of README and docs that are made of them."""

import json
import re

import pandas as pd
import pytest

from experiments.errors import UserError
from experiments.post_training_tests import run_tests
from experiments.results import published
from experiments.results.intervals import wilson
from experiments.results.loading import PlayedTest
from experiments.test_results import main as report
from experiments.train_language_agent import train
from tests.experiments.conftest import ROOT, make_config
from tests.experiments.test_training import paths_of

ROW = {
    "experiment": "e", "agent": "trained", "model": "m", "level": "L", "test": "no_modification_test", "seed": 1,
    "episodes": 100, "successes": 90, "return_mean": 0.5, "return_std": 0.1, "steps_mean": 8.0, "steps_std": 3.0,
    "success": None, "sample_efficiency": None, "frames": 4096, "hours": 0.2, "commit": "0123456789abcdef",
    "machine": "2 cores of X", "command": "python x",
}  # fmt: skip
LEARNT = {
    **ROW, "test": "training", "episodes": None, "successes": None, "return_mean": None, "return_std": None,
    "steps_mean": None, "steps_std": None, "success": 0.8, "sample_efficiency": 0.4,
}  # fmt: skip


def test_tables_agree_with_the_files_of_results():
    """`python -m experiments.results.published` makes them."""
    assert published.update_documents(check=True) == []


def test_no_file_of_results_is_shown_nowhere():
    documents = "".join(path.read_text() for name in published.DOCUMENTS for path in ROOT.glob(name))
    for path in (ROOT / "results").glob("*.csv"):
        assert f"<!-- results/{path.name}" in documents


def test_a_table_by_hand():
    rows = pd.DataFrame(
        [ROW, {**ROW, "seed": 2, "successes": 100}, {**ROW, "agent": "random", "successes": 1, "frames": 0}]
    )
    text = re.sub(" +", " ", published.table(rows))
    assert "| trained | 1, 2 | 0.950 [0.910, 0.973] | 0.90, 1.00 | 200 | 4,096 | 0.20 |" in text
    assert f"| random | 1 | {wilson(1, 100)}" in text
    assert text.endswith("level L; test no modification; commit `0123456789ab`; 2 cores of X.")


def test_a_table_of_training_by_hand():
    rows = pd.DataFrame([LEARNT, {**LEARNT, "seed": 2, "success": 0.9, "sample_efficiency": 0.5}])
    text = re.sub(" +", " ", published.table(rows))
    assert "| trained | 1, 2 | 0.850 (0.800, 0.900) | 0.450 (0.400, 0.500) | 4,096 | 0.20 |" in text


def test_numbers_in_a_line_by_hand(tmp_path):
    """Returns of 100 episodes each: means 0.5 and 0.7, deviations 0.1: the variance is 0.01 within, 0.01 between."""
    (tmp_path / "results").mkdir()
    other = {**ROW, "seed": 2, "successes": 100, "return_mean": 0.7, "steps_mean": 10.0}
    pd.DataFrame([ROW, other, {**ROW, "agent": "random"}, LEARNT]).to_csv(tmp_path / "results" / "x.csv", index=False)

    def filled(words):
        text = published.with_tables(f"| a | <!-- results/x.csv {words} -->old<!-- end --> | b |", tmp_path)
        return text.removeprefix(f"| a | <!-- results/x.csv {words} -->").removesuffix("<!-- end --> | b |")

    assert filled("trained") == str(wilson(190, 200))
    assert filled("trained success return steps") == f"{wilson(190, 200)}; 0.600 ± 0.141; 9.0 ± 3.2"
    assert filled("trained 2") == "1.000 [0.963, 1.000]"
    assert filled("training sample-efficiency success-at-the-end") == "0.400; 0.800"
    for words, said in {"trained 3": "no result of 3", "L": "L is more than one result"}.items():
        with pytest.raises(UserError, match=said):
            filled(words)


def test_documents_are_written_anew_between_their_markers(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "docs").mkdir()
    pd.DataFrame([ROW, {**ROW, "level": "M"}]).to_csv(tmp_path / "results" / "x.csv", index=False)
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- results/x.csv M -->\nold\n<!-- end -->\nafter\n")
    assert published.update_documents(check=True, root=tmp_path) == ["README.md"]
    assert "old" in page.read_text()
    published.update_documents(check=False, root=tmp_path)
    text = page.read_text()
    assert text.startswith("before\n<!-- results/x.csv M -->\n| agent ")
    assert "level M" in text
    assert text.endswith("\n<!-- end -->\nafter\n")
    assert published.update_documents(check=True, root=tmp_path) == []
    page.write_text("<!-- results/x.csv N -->\n<!-- end -->\n")
    with pytest.raises(UserError, match="no result of N"):
        published.update_documents(check=True, root=tmp_path)
    page.write_text("<!-- results/y.csv -->\n<!-- end -->\n")
    with pytest.raises(UserError, match=r"y\.csv: no such file"):
        published.update_documents(check=True, root=tmp_path)


def last_row(path, **changes):
    header, *rows = path.read_text().splitlines()
    row = dict(zip(header.split(","), rows[-1].split(","), strict=True)) | changes
    return ",".join(map(str, row.values())) + "\n"


def played(path, **changes):
    """A test of the random policy, with the file of facts beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made_with = {"commit": "0" * 40 + "-dirty", "machine": "X", "command": ["x.py"]}
    path.with_name(f"{path.name}.json").write_text(json.dumps({"provenance": made_with}))
    test = {
        "path": path, "agent": "random", "label": "random", "run": "r", "name": "e/m", "seed": 1, "level": "L",
        "language": "english", "test": "a_test", "actions": (), "trained_in": None, "settings": (),
        "episodes": pd.DataFrame({"success": [1, 0], "episode_return": [0.5, 0.0], "frames": [9, 64]}),
    }  # fmt: skip
    return PlayedTest(**{**test, **changes})


def test_what_cannot_be_published(tmp_path):
    file = tmp_path / "x.csv"
    with pytest.raises(UserError, match="no results in these runs"):
        published.publish(file, [])
    a, b = tmp_path / "a", tmp_path / "b"
    with pytest.raises(UserError, match=r"a and .*b have the same experiment, level, test, agent"):
        published.publish(file, [played(a), played(b)])
    assert not file.exists()
    published.publish(file, [played(a), played(b, language="french", actions=("go",))])
    assert list(published.read(file).test) == ["a_test", "a_test french [go]"]
    text = published.table(published.read(file))
    assert "| a french [go] |" in text
    assert "commit `000000000000` with changes" in text
    file.write_text(file.read_text().replace("a_test,random,", "a_test,expert,"))  # by hand
    published.publish(file, [played(a)])
    assert list(published.read(file).agent) == ["random", "random", "expert"]
    file.write_text(file.read_text().replace("successes", "wins"))
    with pytest.raises(UserError, match="has no column successes"):
        published.publish(file, [played(a)])


def test_runs_are_published_by_the_report(small, tmp_path):
    train(make_config(small))
    random = ["rl_script_args.random_agent=true", "rl_script_args.name_model=random"]
    run_tests(make_config([*small, "rl_script_args.zero_shot=false"]))
    run_tests(make_config([*small, *random]))
    logs, file = paths_of(small).logs.parent, tmp_path / "results" / "small.csv"
    command = ["--logs", str(logs), "--output", str(tmp_path / "out"), "--publish", str(file), "--tables", "--figures"]
    for _ in range(2):  # rows are replaced
        assert report(command) == 0
        rows = published.read(file)
        assert list(rows.columns) == published.COLUMNS
        assert list(rows.agent) == ["random", "trained", "trained"]
        assert list(rows.test) == ["no_modification_test", "no_modification_test", "training"]
        assert list(rows.frames) == [0, 96, 96]
        assert list(rows.episodes[:2]) == [6, 6]
        assert list(rows.success.notna()) == [False, False, True]
        assert rows.machine.str.contains("cores of").all()
    assert {path.name for path in file.parent.iterdir()} == {"small.csv", "small.png"}
    french = [*small, *random, "rl_script_args.language=french"]
    elsewhere = [f"rl_script_args.saving_path_logs={tmp_path / 'french'}"]
    run_tests(make_config([*french, *elsewhere]))
    assert report(["--logs", str(tmp_path / "french"), *command[2:]]) == 0
    assert list(published.read(file).test) == [
        "no_modification_test", "no_modification_test french", "no_modification_test", "training",
    ]  # fmt: skip
    with (paths_of(small).logs / "log.csv").open("a") as log:  # training went on
        log.write(last_row(paths_of(small).logs / "log.csv", update=4, frames=128))
    assert report(command) == 0
    assert list(published.read(file).frames) == [0, 0, 96, 128]
    [facts] = logs.glob("*_random_*/test/*/episodes/*.json")
    facts.write_text(facts.read_text().replace('"provenance"', '"of_before"'))
    assert report(command) == 2
