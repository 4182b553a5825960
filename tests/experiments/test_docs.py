"""What the documents say is still so: commands compose, and every metric that is logged is explained."""

import ast
import itertools
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from experiments.cloning.options import parse_arguments
from experiments.cloning.run import COLUMNS as CLONING_COLUMNS
from experiments.configuration import parse_config
from experiments.experiment_paths import ExperimentPaths
from experiments.results import paper
from experiments.run_log import COLUMNS, TRACKED
from experiments.test_results import parse_arguments as parse_results_arguments
from tests.experiments.conftest import ROOT

WITH_COMMANDS = (
    "README.md", "configs/README.md", "experiments/README.md", "results/README.md", "docs/cloning.md",
    "docs/reproduction.md", "docs/small_reproduction.md", "docs/tables_and_figures.md",
)  # fmt: skip
NOT_HYDRA = ("test_results.py", "clm_behavioral-cloning.py")
# what "…the same overrides…" of the README stands for
SAME = ("saving_path_logs=storage/logs", "saving_path_model=storage/models")
MODEL = "lamorel_args.llm_args.model_path=google/flan-t5-small"


def commands(name):
    """(script, arguments) of the commands in a document's code blocks and inline code; continued lines are joined."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    indented = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    for code in [*indented, *re.findall(r"`([^`\n]+)`", text)]:
        words = shlex.split(code, comments=True) if code.startswith("python ") and "SCRIPT" not in code else []
        scripts = [word.rsplit("/", 1)[-1] for word in words if re.fullmatch(r"(.*=)?experiments/[\w-]+\.py", word)]
        if scripts:
            launched = "lamorel_launcher.launch" in words
            words = words[words.index("base") + 1 if launched else 2 :]
            yield from ((scripts[0], run) for run in runs(words))


def runs(words):
    """The overrides of each run of a sweep (-m key=one,two); of a command without -m its own."""
    if "-m" not in words:
        return [words]
    keys, choices = zip(*(word.split("=", 1) for word in words if word != "-m"), strict=True)
    choices = [choice.split(",") for choice in choices]
    return [[f"{key}={value}" for key, value in zip(keys, run, strict=True)] for run in itertools.product(*choices)]


FOUND = [(name, script, tuple(words)) for name in WITH_COMMANDS for script, words in commands(name)]
HYDRA = sorted({command[1:] for command in FOUND if command[1] not in NOT_HYDRA})


@cache
def configuration(script, overrides):
    """The configuration of a command, as it stands; folders that other commands make are made here."""
    if any("…" in word for word in overrides):
        overrides = [*(f"rl_script_args.{key}" for key in SAME), MODEL, *(w for w in overrides if "=" in w)]
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        tree = compose("base", overrides=list(overrides))
        for path in (tree.rl_script_args.im_path, OmegaConf.select(tree, "lamorel_args.llm_args.model_path")):
            if path and path.startswith("storage/"):
                Path(path).mkdir(parents=True, exist_ok=True)
                (Path(path) / "config.json").touch()
        return parse_config(tree, model_exists=script != "make_tiny_llm.py")


def test_commands_are_found():
    """The pattern has not missed a document."""
    count = {name: sum(command[0] == name for command in FOUND) for name in WITH_COMMANDS}
    assert count["README.md"] >= 5
    assert count["configs/README.md"] == 6  # two of them sweeps of two
    assert count["docs/reproduction.md"] > 80


@pytest.mark.parametrize(
    ("script", "overrides"), HYDRA, ids=lambda value: None if isinstance(value, str) else " ".join(value)
)
def test_a_command_composes(script, overrides, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (ROOT / "experiments" / script).is_file()
    configuration(script, overrides)


def test_clones_are_made_of_exported_files_and_tested_where_they_are_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exports, tested = set(), set()
    document = [command[1:] for command in FOUND if command[0] == "docs/reproduction.md"]
    for script, overrides in document:
        if script in NOT_HYDRA:
            continue
        config = configuration(script, overrides)
        if config.rl.get_example_trajectories:
            exports.add(str(ExperimentPaths.of(config).test_folder(config.rl.name_environment)))
        if config.rl.im_learning:
            tested.add(config.rl.im_path)
    clones = [parse_arguments(words, None) for script, words in document if script == "clm_behavioral-cloning.py"]
    assert {str(options.data_dir) for options in clones} == exports
    assert {str(options.output_dir) for options in clones} == tested


def test_commands_without_hydra_have_options_that_exist():
    for _, script, words in FOUND:
        if script == "test_results.py":
            parse_results_arguments(list(words))
        elif script in NOT_HYDRA:
            parse_arguments(words, None)


def test_the_papers_numbers_are_those_of_the_tables():
    """docs/reproduction.md and what test_results.py sets beside our numbers."""
    text = (ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8")
    rows = {tuple(cell.strip() for cell in row.split("|")[1:4]) for row in re.findall(r"^\|.*$", text, re.M)}
    agents = {"random": "Random", "LLM zero-shot": "Flan-T5 zero-shot", "LLM": "GFlan-T5"}
    tests = {"no change": "training tasks, no change", "other nouns": "other nouns (chair, table, car)",
             "pick up A then/after pick up B": "new composition: pick up A then/after pick up B"}  # fmt: skip
    for test, values in paper.GENERALISATION.items():
        for agent, value in values.items():
            change = paper.GENERALISATION_CHANGE.get(test, {}).get(agent)
            shown = f"{value:.2f}" + (f" ({change}%)" if change else "")
            assert (tests.get(test, test), agents.get(agent, agent), shown) in rows
    for change in paper.DISTRACTORS_CHANGE.values():
        assert f"falls about {-change}%" in text
    agents |= {"LLM": "GFlan-T5 (GLAM)", "NPAE": "NPAE-Flan-T5"}
    curves = {(agent, value) for agent, _, value in rows}
    for agent, points in paper.TRAINING.items():
        assert {(agents.get(agent, agent), value) for value in points.values()} <= curves


def test_every_metric_is_explained():
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    listed = set()
    for row in re.findall(r"^\| `([^`]+)` \|", text, flags=re.MULTILINE):
        stem, _, choices = row.partition("{")
        listed |= {stem + choice for choice in choices.rstrip("}").split(",")}
    assert listed == {*COLUMNS, *TRACKED, *CLONING_COLUMNS}


DETAILS = (ROOT / "docs" / "implementation_details.md").read_text(encoding="utf-8")
NAMED_TESTS = sorted(set(re.findall(r"`([\w/]+\.py)::([\w:]+)`", DETAILS)))
FAULTS = (ROOT / "slurm" / "README.md").read_text(encoding="utf-8").partition("## When something breaks")[2]
NAMED_PLACES = sorted(set(re.findall(r"`((?:[\w-]+/)+[\w-]*(?:\.py)?)(?::([\w.]+))?`", DETAILS)) - set(NAMED_TESTS))


@cache
def definitions(path):
    """Names of the functions and classes of a file; of methods as Class.method."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.ClassDef)
    found = {node.name for node in tree.body if isinstance(node, kinds)}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{child.name}" for child in node.body if isinstance(child, kinds)}
    return found


def test_every_named_test_and_place_exists():
    assert len(NAMED_TESTS) > 80
    assert len(NAMED_PLACES) > 40
    for path, name in NAMED_TESTS:
        assert name.replace("::", ".") in definitions(ROOT / "tests" / path), (path, name)
    for path, name in NAMED_PLACES:
        assert (ROOT / path).exists(), path
        assert not name or name in definitions(ROOT / path), (path, name)


def test_every_fault_of_a_job_is_tested():
    """Each row of slurm/README.md names tests, and these exist."""
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in re.findall(r"^\| .*$", FAULTS, re.M)][1:]
    assert len(rows) >= 13
    for fault, seen, lost, tests in rows:
        assert seen, fault
        assert lost, fault
        named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", tests)
        assert named, fault
        for path, name in named:
            assert name in definitions(ROOT / "tests" / path), (fault, path, name)


def test_every_defect_of_the_released_code_is_answered():
    """54 items; those that change results or do not run are held by a test, or say why they need none."""
    section = DETAILS.partition("## The defects of the released code")[2]
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in re.findall(r"^\| \d+ \|.*$", section, re.M)]
    assert [int(row[0]) for row in rows] == list(range(1, 55))
    for number, kind, _, here, held_by in rows:
        assert kind in ("S", "R", "H")
        assert here, number
        assert "::test_" in held_by or kind == "H", number


def test_tags_in_the_code_are_rows():
    tags = {
        int(number)
        for room in ("babyai-text", "experiments", "lamorel", "lamorel_launcher")
        for path in (ROOT / room).rglob("*.py")
        for number in re.findall(r"PAPER-DIFF\((\d+)\)", path.read_text(encoding="utf-8"))
    }
    differences = DETAILS.partition("## Where we differ")[2].partition("\n## ")[0]
    assert tags == {int(number) for number in re.findall(r"^\| (\d+) \|", differences, re.M)}
    ids = [int(n) for n in re.findall(r"^\| (\d+) \|", DETAILS.partition("## The defects")[0], re.M)]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("room", ["experiments", "lamorel", "lamorel_launcher"])
def test_no_script_knows_an_environment_of_twosome(room):
    """They know what `info` carries; the ids stand in configs/."""
    named = [
        path
        for path in (ROOT / room).rglob("*")
        if path.suffix in (".py", ".md", ".js", ".html")
        and re.search("overcooked|virtualhome", path.read_text(encoding="utf-8"), re.IGNORECASE)
    ]
    assert named == []
