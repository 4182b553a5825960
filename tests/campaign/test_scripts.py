"""campaign/*.sh: a script for every experiment, headers that are read, and overrides that exist."""

import copy
import re
import shlex
import shutil
import subprocess
from functools import cache

import pytest

from campaign.plan import in_order
from campaign.scripts import EVERYTHING, Campaign, Job, array_seeds, read_script
from experiments.cloning.options import parse_arguments as parse_cloning
from experiments.errors import UserError
from experiments.experiment_paths import ExperimentPaths
from experiments.test_results import parse_arguments as parse_results
from tests.experiments.conftest import ROOT, make_config
from tests.experiments.test_docs import FOUND
from tests.experiments.test_overlays import BASELINES, CROSSOVER, SELECTIONS, TESTS, TRAINING, TWOSOME_TASKS

CAMPAIGN = Campaign(ROOT / "campaign")
JOBS = in_order(CAMPAIGN, [job for jobs in CAMPAIGN.figures.values() for job in jobs])
SEED = 2


@cache
def words(job):
    """The words of the line that a job starts, as bash makes them; `set --` gives the script its arguments."""
    line = job.script.path.read_text().partition(". slurm/environment.sh\n")[2]
    assert line.startswith("srun "), job.title
    arguments = shlex.join(job.arguments((), (1, SEED)))
    shell = f'set -eu; srun() {{ printf "%s\\0" "$@"; }}; set -- {arguments}\n{line}'
    done = subprocess.run(
        ["bash", "-c", shell], env={"SLURM_ARRAY_TASK_ID": str(SEED)}, capture_output=True, text=True, check=True
    )
    return tuple(done.stdout.split("\0")[:-1])


@cache
def config(job):
    """The configuration of a hydra job."""
    return make_config(words(job)[2:])


@pytest.fixture(scope="module", autouse=True)
def clones(tmp_path_factory):
    """Where the tests of clones find them."""
    folder = tmp_path_factory.mktemp("campaign")
    for who in ("agent", "bot"):
        (folder / f"storage/cloned/actions_6_{who}_seed_{SEED}").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.title)
def test_what_a_script_starts_exists_and_takes_its_arguments(job):
    launcher, script, *arguments = words(job)
    assert (ROOT / script).is_file()
    if script == "experiments/clm_behavioral-cloning.py":
        assert launcher == "slurm/launch_accelerate.py"
        assert parse_cloning(arguments, None).seed == SEED
    elif script == "experiments/test_results.py":
        assert launcher == "python"
        assert parse_results(arguments).seeds == [1, 2]
    else:
        assert launcher == ("python" if job.script.name == "sentencepiece" else "slurm/launch_lamorel.py")
        found = config(job)
        assert found.rl.seed == SEED
        # a GPU for those that run an LLM, and for no other
        assert (found.agent == "llm") == bool(job.gpus), job.title


@pytest.mark.parametrize("script", CAMPAIGN.scripts.values(), ids=lambda script: script.name)
def test_directives(script):
    text = script.path.read_text()
    assert script.path.stat().st_mode & 0o111 == 0o111
    assert text.startswith("#!/bin/bash\n# ")
    assert f"#SBATCH --job-name={script.name}\n" in text
    log = "%A_%a" if script.seeds else "%j"
    assert f"#SBATCH --output=campaign/logs/%x_{log}.log\n#GLAM" in text
    assert {"--requeue", "--open-mode=append"} <= set(re.findall(r"^#SBATCH (\S+)", text, re.M))
    assert ("$SLURM_ARRAY_TASK_ID" in text) == (script.seeds == (1, 2)) == (script.name != "results")
    assert ('"$@"' in text) == (script.default is None)
    assert ('"${@:2}"' in text) == (script.default is not None)
    assert max(map(len, text.splitlines())) <= 120
    # what goes on after a signal gets one before the time limit; the others end within the hour
    signalled = re.search(r"^#SBATCH --signal=USR1@(\d+)", text, re.M)
    if signalled is None:
        assert script.name in ("sentencepiece", "results")
        assert max(script.hours) < 1
    if script.needs == () and script.gpus > 1:  # training of an LLM: longer than an update of 1280 frames
        frames = next(found.rl.num_steps for job in JOBS if job.script == script for found in [config(job)])
        assert int(signalled[1]) > 1280 * script.hours[0] * 3600 / frames
    subprocess.run(["bash", "-n", script.path], check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck():
    paths = [script.path for script in CAMPAIGN.scripts.values()]
    subprocess.run(["shellcheck", "--severity=warning", "--external-sources", *paths], cwd=ROOT, check=True)


def selected(job):
    """The overlays in the order in which a script selects them; () where it does not."""
    chosen = [word.partition("=")[2].strip("[]") for word in words(job) if word.startswith("experiment=")]
    return tuple(chosen[0].split(",")) if chosen else ()


def expanded(overlays):
    """q1_drrn is [q1_mixed,drrn]."""
    both = ("q1_npae", "q1_drrn", "q1_symbolic", "input_type_drrn", "input_type_symbolic")
    parts = {name: (("q1_mixed" if name.startswith("q1") else "input_type"), name.rpartition("_")[2]) for name in both}
    return tuple(part for overlay in overlays for part in parts.get(overlay, (overlay,)))


def test_every_overlay_has_a_script():
    used = {part for job in JOBS for part in (*selected(job), *expanded(selected(job)))}
    overlays = {path.stem for path in (ROOT / "configs/experiment").glob("*.yaml")}
    of_no_figure = {"demo", "twosome_demo", "smollm2_food_preparation", "smollm2_goto_red_ball",
                    "smollm2_goto_local", "smollm2_goto_local_short",
                    "paper", "twosome", "twosome_agent", "glam_agent", "vector_ppo"}  # fmt: skip
    assert overlays - used == of_no_figure


def test_every_row_has_a_script():
    """The rows of docs/reproduction.md, as the hydra commands that it gives them."""
    started = {(words(job)[1].rpartition("/")[2], expanded(selected(job))) for job in JOBS}
    rows = set()
    for document, script, arguments in FOUND:
        overlays = [word.partition("=")[2].strip("[]") for word in arguments if word.startswith("experiment=")]
        if document == "docs/reproduction.md" and overlays:
            rows.add((script, expanded(overlays[0].split(","))))
    assert len(rows) > 70
    assert rows <= started


def test_every_training_has_a_script_for_each_of_its_agents():
    trained = {expanded(selected(job)) for job in JOBS if "/train_" in words(job)[1]}
    baselines = ("actions_3", "actions_6", "actions_9", "distractors_4", "distractors_8", "distractors_16", "q1_mixed")
    expected = {(name,) for name in TRAINING} - {("paper",), ("input_type",)}
    expected |= {(name, agent) for name in (*baselines, "input_type") for agent in BASELINES}
    expected |= {("q1_mixed", "npae"), *(("pretraining", agent) for agent in ("aflan", "npae", "npa", "npe"))}
    expected |= {(task, *agent) for task in TWOSOME_TASKS for agent in ((), ("score_token",), ("score_sum",))}
    expected |= {(f"vector_ppo_{task.removeprefix('twosome_')}",) for task in TWOSOME_TASKS}
    assert trained == expected
    assert {name for test in (*TESTS, *CROSSOVER) for name in test.split(",")} <= {
        part for job in JOBS for part in selected(job)
    }
    assert SELECTIONS.keys() >= {"q1_drrn", "q1_symbolic"}


def test_repeats_have_the_settings_of_the_other():
    repeated = [job for job in JOBS if job.script.repeats]
    assert len(repeated) == 6
    for job in repeated:
        ours, theirs = (copy.deepcopy(config(one).resolved) for one in (job, CAMPAIGN.job(job.script.repeats)))
        assert ours["rl_script_args"].pop("name_experiment") == re.sub(r"_(drrn|symbolic)$", "", job.script.name)
        theirs["rl_script_args"].pop("name_experiment")
        assert ours == theirs


def test_a_job_finds_what_its_needs_leave():
    """Tests the checkpoint, the tests of clones the clone, DRRN its sentencepiece model."""
    for job in JOBS:
        for need in CAMPAIGN.needs(job):
            if job.script.name.startswith("clone_"):
                exported = config(need)
                folder = ExperimentPaths.of(exported).test_folder(exported.rl.name_environment)
                assert parse_cloning(words(job)[2:], None).data_dir == folder
            elif need.script.name.startswith("clone_"):
                assert config(job).rl.im_path == str(parse_cloning(words(need)[2:], None).output_dir)
            elif need.script.name == "sentencepiece":
                assert config(job).rl.spm_path == config(need).rl.spm_path
            else:
                assert ExperimentPaths.of(config(job)).models == ExperimentPaths.of(config(need)).models


def test_what_is_read_is_needed():
    """A test needs the training of its agent or the making of its clone, DRRN's training the sentencepiece model."""
    for job in JOBS:
        if job.script.name.startswith("clone_") or EVERYTHING in job.script.needs:
            continue
        rl, needs = config(job).rl, [need.title for need in CAMPAIGN.needs(job)]
        trained = "post-training" in words(job)[1] and not (rl.zero_shot or rl.random_agent or rl.bot or rl.im_learning)
        expected = ["sentencepiece"] if config(job).agent == "drrn" and "/train_" in words(job)[1] else []
        expected += [job.argument.replace(",", "_")] if trained else []
        expected += [job.title.replace("cloned_", "clone_")] if rl.im_learning else []
        assert needs == expected, job.title
    for who in ("agent", "bot"):
        clone = CAMPAIGN.job(f"clone_{who}", "actions_6")
        assert [need.title for need in CAMPAIGN.needs(clone)] == [f"export_{who}:actions_6"]


def test_needs_are_acyclic_and_everything_waits_for_all():
    places = {job.title: place for place, job in enumerate(JOBS)}
    assert len(places) == len(JOBS)
    for job in JOBS:
        assert all(places[need.title] < places[job.title] for need in CAMPAIGN.needs(job)), job.title
    last = [job for job in JOBS if EVERYTHING in job.script.needs]
    assert JOBS[-len(last) :] == last
    assert {figure for job in last for figure in CAMPAIGN.figures_of(job)} == set(CAMPAIGN.figures)


def test_variables_tell_jobs_apart():
    assert len({job.variable for job in JOBS}) == len(JOBS)


HEADER = """#!/bin/bash
# About.
#SBATCH --array=1,4-6
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=8   # a comment
#SBATCH --gres=gpu:a100:4
#GLAM figure: one
#GLAM figure: two a b
#GLAM needs: other $1
#GLAM hours: 1.5 0.5   # a comment
#GLAM hours of c_*: 0.25
srun x "${1:-a}" "${@:2}"
"""


def test_a_header_is_read(tmp_path):
    path = tmp_path / "mine.sh"
    path.write_text(HEADER)
    found = read_script(path)
    assert (found.name, found.about, found.default, found.repeats) == ("mine", "About.", "a", None)
    assert (found.seeds, found.nodes, found.tasks, found.cpus, found.gpus) == ((1, 4, 5, 6), 3, 2, 8, 4)
    assert (found.figures, found.needs) == ((("one", None), ("two", "a"), ("two", "b")), ("other", "$1"))
    assert found.hours == (1.5, 0.5)
    assert [Job(found, argument).hours for argument in ("a", "c_1", None)] == [1.5, 0.25, 1.5]
    assert Job(found, "c_1", without_llm=True).hours == 0.5
    for line in ("#GLAM hours: 1.5 0.5   # a comment\n", "#SBATCH --nodes=3\n", "# About.\n"):
        path.write_text(HEADER.replace(line, ""))
        with pytest.raises(UserError, match="its header cannot be read"):
            read_script(path)


def test_array_seeds():
    assert [array_seeds(text) for text in ("", "3", "1-2", "1,4-6")] == [(), (3,), (1, 2), (1, 4, 5, 6)]
