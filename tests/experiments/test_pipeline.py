"""The whole pipeline, script by script, with a tiny LLM: every file that it promises is there and says something."""

import csv
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from experiments.run_log import COLUMNS
from experiments.substitutions import TESTS
from tests.experiments.conftest import ROOT, script_environment

LEVEL = "BabyAI-MixedTrainLocal-v0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("pipeline")
    command = [sys.executable, str(ROOT / "tests" / "pipeline.py"), str(target)]
    done = subprocess.run(command, env=script_environment(), capture_output=True, text=True, check=False, timeout=3600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return target


def run_of(folder, model, kind="logs"):
    (found,) = folder.glob(f"{kind}/pipeline_nbr_env_8_{model}_*")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("model", ["tiny", "drrn", "symbolic"])
def test_training(folder, model):
    log = pd.read_csv(run_of(folder, model) / "log.csv")
    assert tuple(log.columns) == COLUMNS
    assert log.frames.tolist() == [64, 128, 192]
    assert log.episodes.iloc[-1] > 0
    assert log.loss.notna().any()
    events = list(run_of(folder, model).glob("events.out.tfevents.*"))
    assert sum(path.stat().st_size for path in events) > 1000
    for name in ("last", "backup"):
        assert (run_of(folder, model, "models") / name / "manifest.json").exists()
    if model != "symbolic":  # it reads no prompts
        distrib = pd.read_csv(run_of(folder, model) / "distrib.csv")
        assert len(distrib) == 3 * 11
        np.testing.assert_allclose(distrib.iloc[:, 3:].sum(axis=1), 1, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "level", "stem", "agent"),
    [
        *(("tiny", LEVEL, test, "trained") for test in TESTS),
        *(("tiny", LEVEL, f"{test}_zero_shot", "zero-shot") for test in TESTS),
        *(("random", LEVEL, test, "random") for test in TESTS),
        *(("drrn", LEVEL, test, "drrn") for test in TESTS),
        ("tiny", LEVEL, "no_modification_test_newactions", "trained"),
        ("tiny", LEVEL, "no_modification_test_newactions_zero_shot", "zero-shot"),
        ("tiny", "BabyAI-GoToFrench-v0", "no_modification_test", "trained"),
        ("tiny", "BabyAI-GoToFrench-v0", "no_modification_test_zero_shot", "zero-shot"),
        ("tiny", "BabyAI-PickUpSeqPickUpLocal-v0", "no_modification_test", "trained"),
        ("bot", LEVEL, "no_modification_test", "bot"),
        ("clone", LEVEL, "no_modification_test_im", "cloned"),
        ("symbolic", LEVEL, "no_modification_test", "symbolic"),
    ],
)
def test_tests(folder, model, level, stem, agent):
    results = run_of(folder, model) / "test" / level
    returns = np.load(results / "return_per_episode" / f"{stem}.npy")
    episodes = pd.read_csv(results / "episodes" / f"{stem}.csv")
    facts = json.loads((results / "episodes" / f"{stem}.json").read_text())
    assert facts["agent"] == agent
    assert (facts["checkpoint_update"] == 3) == (agent in ("trained", "drrn", "symbolic"))
    np.testing.assert_allclose(returns, episodes.episode_return)
    assert episodes.seed.tolist() == [10**9 + k for k in range(20)]
    assert facts["results"]["success_rate"] == episodes.success.mean()
    if agent == "bot":
        assert episodes.success.mean() == 1
    if level == LEVEL:
        assert len(facts["results"]["per_task"]) == 5


@pytest.mark.slow
@pytest.mark.parametrize(("model", "prefix"), [("tiny", "trajectories"), ("bot", "bot_trajectories")])
def test_exports(folder, model, prefix):
    prompts, actions = (
        np.load(run_of(folder, model) / "test" / LEVEL / f"{prefix}_{kind}_0.npy") for kind in ("prompts", "actions")
    )
    assert prompts.shape == actions.shape == (600,)
    assert all(text.startswith("Possible action of the agent: turn left") for text in prompts)
    assert set(actions) <= {"turn left", "turn right", "go forward", "pick up", "drop", "toggle"}
    assert len(set(actions)) > 3


@pytest.mark.slow
def test_the_clone(folder):
    AutoModelForSeq2SeqLM.from_pretrained(folder / "clone")
    AutoTokenizer.from_pretrained(folder / "clone")
    (log,) = (folder / "clone").glob("*.csv")
    losses = pd.read_csv(log)
    assert losses.iloc[-1].filter(like="eval").notna().all()


@pytest.mark.slow
def test_pages(folder):
    pages = sorted(folder.glob("logs/*/test/*/pages/*.html"))
    assert {page.name.split("_")[0] for page in pages} == {"trained", "zero-shot", "bot"}
    for page in pages:
        assert "Goal of the agent" in page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_tables_and_figures(folder):
    results = folder / "results"
    for table in ("results", "generalisation", "tasks", "sample_efficiency"):
        with (results / f"{table}.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        assert len(rows) > 3, table
        assert (results / f"{table}.md").read_text(encoding="utf-8").count("|") > 20
        assert "tabular" in (results / f"{table}.tex").read_text(encoding="utf-8")
    for figure in ("learning_curve", "generalisation", "probabilities"):
        images = sorted(results.glob(f"{figure}*.png"))
        assert images, figure
        for image in images:
            assert image.read_bytes().startswith(b"\x89PNG")
            assert image.stat().st_size > 5000
            assert image.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    missing = (results / "missing.md").read_text(encoding="utf-8")
    assert "Symbolic-PPO" in missing  # played one test only
