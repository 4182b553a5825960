"""campaign/submit.py with an sbatch and a squeue that note what they are asked; tests/slurm has the real ones."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from campaign import submit
from campaign.plan import choose, in_order, make_plan
from campaign.rows import Row
from campaign.scripts import Campaign
from campaign.summary import hours
from experiments.errors import UserError
from experiments.folder_lock import FolderLock
from tests.experiments.conftest import ROOT

SBATCH = """#!/bin/bash
# jobs 11, 12, ...; the third fails where the file `full` exists
number=$(($(cat "$STUB/number" 2> /dev/null || echo 10) + 1))
if [ -e "$STUB/full" ] && [ $number = 13 ]; then echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2; exit 1; fi
echo $number > "$STUB/number"
echo "constraint=$SBATCH_CONSTRAINT $*" >> "$STUB/asked"
echo "$number;cluster"
"""
KILL = "--kill-on-invalid-dep=yes"
SQUEUE = '#!/bin/bash\ncat "$STUB/queue" 2> /dev/null || true\n'


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository with the scripts alone, and the two commands on PATH."""
    root = tmp_path / "repository"
    shutil.copytree(ROOT / "campaign", root / "campaign", ignore=shutil.ignore_patterns("*.py", "logs", "__pycache__"))
    (root / "campaign/logs").mkdir()
    for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE)):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("STUB", str(tmp_path))
    for name in ("SBATCH_CONSTRAINT", "SBATCH_PARTITION", "GLAM_CPU_PARTITION", "GLAM_STORAGE", "GLAM_SITE"):
        monkeypatch.delenv(name, raising=False)
    return root


def asked(root):
    """The options, script and arguments of every call of sbatch."""
    path = root.parent / "asked"
    return path.read_text().splitlines() if path.exists() else []


def records(root):
    return {path.name: json.loads(path.read_text()) for path in (root / "campaign/logs").glob("*.submitted")}


def queue(root, *entries):
    """Elements of arrays in the queue: (job, seed, state)."""
    lines = [f"{job}|{seed}|{state}|None|N/A|x|x|{root}" for job, seed, state in entries]
    (root.parent / "queue").write_text("\n".join(lines) + "\n")


def ended(root, name, job, seed, status, arguments=()):
    """What slurm/environment.sh notes of a job that has begun and ended."""
    event = {"job": "1", "array_job": str(job), "task": str(seed), "restart": 0, "arguments": list(arguments)}
    events = [("started", 1, None), ("ended", 2, status)]
    lines = [{**event, "event": kind, "time": time, "status": code} for kind, time, code in events]
    path = root / "campaign/logs" / f"{name}_{job}_{seed}.events"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def campaign():
    return Campaign(ROOT / "campaign")


def plan(campaign, *words, rows=(), **options):
    return make_plan(campaign, in_order(campaign, choose(campaign, words)), rows, **options)


def test_what_a_clone_needs_comes_first_and_is_waited_for(root, capsys):
    """Training, export, cloning, test of the clone: each seed after its own; then what reads all of them."""
    assert submit.main(["cloned_agent", "results:actions_6"], root) == 0
    chain = [f"{part} campaign/{name}" for part, name in (
        ("--array=1,2", "actions_6.sh"),
        (f"--array=1,2 --dependency=aftercorr:11 {KILL}", "export_agent.sh actions_6"),
        (f"--array=1,2 --dependency=aftercorr:12 {KILL}", "clone_agent.sh actions_6"),
        (f"--array=1,2 --dependency=aftercorr:13 {KILL}", "cloned_agent.sh actions_6"),
        # not of 11, which is of another figure: 12 waits for it
        (f"--dependency=afterany:12:13:14 {KILL}", "results.sh actions_6 --seeds 1 2"),
    )]  # fmt: skip
    assert asked(root) == [f"constraint= --parsable {line}" for line in chain]
    found = records(root)
    assert sorted(found) == ["actions_6_11.submitted", "clone_agent_13.submitted", "cloned_agent_14.submitted",
                             "export_agent_12.submitted", "results_15.submitted"]  # fmt: skip
    record = found["export_agent_12.submitted"]
    assert (record["name"], record["job"], record["array"]) == ("export_agent", "12", [1, 2])
    assert (record["arguments"], record["needs"]) == (["actions_6"], "aftercorr:11")
    assert found["results_15.submitted"]["array"] is None
    assert "job 12: export_agent:actions_6" in capsys.readouterr().out


def test_jobs_without_llm_get_the_cpu_partition_and_no_gpu_constraint(root):
    (root / "slurm").mkdir()
    (root / "slurm/site.sh").write_text(
        "export SBATCH_CONSTRAINT=a100\necho loaded\nexport GLAM_CPU_PARTITION=cpu GLAM_CPU_ACCOUNT='my account'\n"
    )
    assert submit.main(["french:q1_drrn"], root) == 0
    cpu = "--account=my account --partition=cpu"
    assert asked(root) == [
        f"constraint= --parsable --array=1,2 {cpu} campaign/sentencepiece.sh",
        f"constraint= --parsable --array=1,2 {cpu} --dependency=aftercorr:11 {KILL} campaign/q1_drrn.sh",
        f"constraint= --parsable --array=1,2 {cpu} --gres=none --cpus-per-task=2 --dependency=aftercorr:12 {KILL} "
        "campaign/french.sh q1_drrn",
    ]
    assert submit.main(["zero_shot_no_distractors"], root) == 0
    assert asked(root)[-1] == "constraint=a100 --parsable --array=1,2 campaign/zero_shot_no_distractors.sh"


def test_seeds_and_overrides(root):
    overrides = ["lamorel_args.llm_args.dtype=bf16", "rl_script_args.name_experiment=mine"]
    assert submit.main(["trained:actions_6", "results:actions_6", "--seeds", "3", "5", "--", *overrides], root) == 0
    assert [line.rpartition("campaign/")[2] for line in asked(root)] == [
        f"actions_6.sh {' '.join(overrides)}",
        f"trained.sh actions_6 {' '.join(overrides)}",
        "results.sh actions_6 --seeds 3 5",
    ]
    assert [re.findall(r"--array=\S+", line) for line in asked(root)] == [["--array=3,5"], ["--array=3,5"], []]


def test_what_sbatch_refuses_is_told_and_the_same_command_goes_on(root, capsys):
    (root.parent / "full").touch()
    assert submit.main(["cloned_agent"], root) == 2
    error = capsys.readouterr().err
    assert error == (
        "error: sbatch refuses clone_agent:actions_6 (sbatch: error: QOSMaxSubmitJobPerUserLimit); submitted before it:"
        " actions_6 11, export_agent:actions_6 12. When that is mended give the same command again: it submits the "
        "rest\n"
    )
    (root.parent / "full").unlink()
    queue(root, *((job, seed, "PENDING") for job in (11, 12) for seed in (1, 2)))
    assert submit.main(["cloned_agent"], root) == 0
    assert asked(root)[2:] == [
        f"constraint= --parsable --array=1,2 --dependency=aftercorr:12 {KILL} campaign/clone_agent.sh actions_6",
        f"constraint= --parsable --array=1,2 --dependency=aftercorr:13 {KILL} campaign/cloned_agent.sh actions_6",
    ]
    assert "actions_6                                          job 11 is in the queue" in capsys.readouterr().out


def test_what_is_done_is_not_submitted_again(root, capsys):
    for seed in (1, 2):
        ended(root, "actions_6", 5, seed, 0)
        ended(root, "trained", 6, seed, 0 if seed == 1 else 1, ["actions_6"])
    assert submit.main(["trained:actions_6"], root) == 0
    assert asked(root) == ["constraint= --parsable --array=2 campaign/trained.sh actions_6"]
    assert "done already 1 2" in capsys.readouterr().out
    # other arguments are another run
    assert submit.main(["trained:actions_6", "--seeds", "1", "--", "rl_script_args.name_experiment=mine"], root) == 0
    assert len(asked(root)) == 3
    assert submit.main(["trained:actions_6", "--seeds", "1", "--again", "--without-needs"], root) == 0
    assert asked(root)[3:] == ["constraint= --parsable --array=1 campaign/trained.sh actions_6"]


def test_what_does_not_exist_is_said_before_anything_is_submitted(root, capsys):
    for words, message in (
        (["random:q1_mixed,frnch"], "experiment=frnch is not a file of configs/experiment: did you mean french?"),
        (["french", "--", "rl_script_args.sed=4"], "rl_script_args.sed is not a known key: did you mean"),
        (["q1_mixed", "--", "rl_script_args.seed=4"], "rl_script_args.seed=4: each job has its own"),
        (["q1_mixed", "--", "experiment=actions_3"], "experiment=actions_3: each job has its own"),
    ):  # fmt: skip
        assert submit.main(words, root) == 2
        assert capsys.readouterr().err.startswith(f"error: {message}")
    assert not asked(root)


def test_tables_in_the_queue_do_not_wait_for_what_is_submitted_now(campaign):
    def tables(state):
        rows = [
            Row("input_type_drrn", (), 1, state, job="7_1"),
            Row("input_type_symbolic", (), 1, "running", job="8_1"),
        ]
        rows += [Row("results", ("input_type", "--seeds", "1"), None, "waiting", job="9")]
        return plan(campaign, "input_type", rows=rows, seeds=[1])[-1]

    assert (tables("running").seeds, tables("running").jobs) == ((), {None: "9"})
    assert (tables("failed").seeds, tables("failed").jobs) == ((None,), {})


def test_seeds_that_are_named_twice_and_lists_in_brackets(root):
    assert submit.main(["french:[pretraining, npe]", "--without-needs", "--seeds", "4", "3", "4"], root) == 0
    assert asked(root) == ["constraint= --parsable --array=4,3 campaign/french.sh pretraining,npe"]


def test_one_submits_at_a_time(root, capsys):
    with FolderLock(root / "campaign/logs", ""):
        assert submit.main(["french"], root) == 2
        assert "campaign/logs is in use by another run" in capsys.readouterr().err
        assert submit.main(["french", "--dry-run"], root) == 0
    assert submit.main(["french:q1_mixed"], root) == 0
    assert len(asked(root)) == 2


def test_a_job_in_the_queue_counts_beside_a_newer_one_that_failed(campaign):
    """The newer one found the run's folder in use."""
    rows = [Row("q1_mixed", (), 1, state, job=f"{job}_1") for job, state in ((7, "running"), (8, "failed"))]
    (step,) = plan(campaign, "q1_mixed", rows=rows, seeds=[1])
    assert (step.seeds, step.jobs) == ((), {1: "7"})


def test_seeds_in_different_jobs_are_waited_for_as_a_whole(campaign):
    """aftercorr needs one array with all seeds: not where a seed of the other was submitted alone, or is done."""

    def row(seed, state, job):
        return Row("actions_6", (), seed, state, job=f"{job}_{seed}")

    def dependency(*rows):
        return plan(campaign, "trained:actions_6", rows=rows)[1].dependency()

    assert dependency(row(1, "running", 7), row(2, "waiting", 7)) == "aftercorr:7"
    assert dependency(row(1, "running", 7), row(2, "waiting", 8)) == "afterok:7:8"
    assert dependency(row(1, "done", 7), row(2, "running", 8)) == "afterok:8"
    assert dependency(row(1, "done", 7), row(2, "done", 7)) == ""
    steps = plan(campaign, "trained:actions_6", rows=[row(1, "failed", 7), row(2, "running", 7)])
    assert steps[0].seeds == (1,)
    # a script without its argument is the one with the default
    steps = plan(campaign, "trained:actions_6", rows=[replace(row(1, "done", 9), name="trained")])
    assert (steps[1].seeds, steps[1].done) == ((2,), (1,))


def test_crossover_tests_have_a_table_for_each_training_which_waits_for_them(campaign):
    """A table of generalisation has the agents of one level of training: of both runs it would show one alone."""
    for words in (["twosome_crossover"], ["all"]):
        steps = plan(campaign, *words)
        tables = {step.arguments[0]: step for step in steps if step.job.script.name == "results"}
        for task, other in (("food_preparation", "entertainment"), ("entertainment", "food_preparation")):
            waited = {(step.job.script.name, step.arguments) for step in tables[f"twosome_{task}"].after}
            assert (f"crossover_{other}", (f"twosome_{task}",)) in waited
        assert "twosome" not in tables


def test_hours(campaign):
    """Cloning: 8 x 27 training, 18 export, two clonings of 4 x 18, tests 3 (clones, trained agent) and 25 h, 2 seeds.

    GPU: 2 x (216 + 18 + 144 + 9 + 25) = 824. CPU: 2 x (bot, random and the bot's export, 0.5 each) + results 2 x 0.1.
    """
    steps = plan(campaign, "cloning")
    assert [sum(column) for column in zip(*(step.hours() for step in steps), strict=True)] == pytest.approx([824, 3.2])
    assert hours(campaign, steps) == "# 824 GPU hours and 3 CPU hours in 12 jobs; at most, by campaign/README.md"
    text = hours(campaign, plan(campaign, "cloning", "actions"))
    # three trainings of 8 GPUs, 27, 27 and 40 h; the one of 6 actions is counted in both figures, and once in the total
    assert "#   actions                      1,504 GPU hours" in text
    assert text.startswith("# 1,896 GPU hours")  # 824 + 2 x 8 x (27 + 40)
    text = hours(campaign, plan(campaign, "model_size", "actions_6.sh"))
    assert "432 GPU hours and 0 CPU hours repeat a setting under another name (model_size_large = actions_6)" in text


def test_the_readme_tells_the_hours(campaign):
    everything = plan(campaign, "all")
    without = [step for step in everything if step.job.script.repeats is None]
    total, once = (f"{sum(step.hours()[0] for step in steps):,.0f}" for steps in (everything, without))
    text = (ROOT / "campaign/README.md").read_text()
    assert f"at most {total} GPU hours, {once} without repeats" in text


def test_words(campaign):
    def titles(*words):
        return [job.title for job in choose(campaign, words)]

    assert titles("pretraining")[:2] == ["pretraining", "pretraining_aflan"]  # the figure
    assert titles("pretraining.sh") == titles("campaign/pretraining.sh") == ["pretraining"]
    assert titles("french") == ["french:q1_mixed", "french:q1_npae", "french:q1_drrn"]
    assert titles("sentencepiece", "trained:pretraining,npe", "sentencepiece") == [
        "sentencepiece", "trained:pretraining,npe",
    ]  # fmt: skip
    assert {"q1_mixed", "results:pretraining", "clone_bot:actions_6"} <= set(titles("all"))
    assert [job.title for job in in_order(campaign, choose(campaign, ["trained:pretraining,npe"]))] == [
        "pretraining_npe", "trained:pretraining,npe",
    ]  # fmt: skip
    for word, message in (
        ("q1_mixd", "neither a figure nor a script of campaign/: did you mean q1_mixed"),
        ("q1_mixed:a", "takes no argument, give q1_mixed"),
        ("nothing:a", r"campaign/nothing.sh does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            choose(campaign, [word])
    unknown = choose(campaign, ["french:q1_other"])
    with pytest.raises(UserError, match=r"no script campaign/q1_other.sh trains \[q1_other\]; with --without-needs"):
        in_order(campaign, unknown)
    assert in_order(campaign, unknown, add_needs=False) == unknown


def test_a_dry_run_is_a_script_that_does_the_same(root, capsys):
    words = ["generalisation", "cloning", "actions", "--without-repeats", "--", "rl_script_args.name_model=a b"]
    assert submit.main(["--dry-run", *words], root) == 0
    script = capsys.readouterr().out
    assert not asked(root)
    assert not records(root)
    (root.parent / "bin/sbatch").write_text(SBATCH.replace('echo "$number;cluster"', "echo $number"))
    subprocess.run(["bash", "-euc", script], cwd=root, check=True)
    (root.parent / "asked").rename(root.parent / "dry")
    (root.parent / "number").unlink()
    assert submit.main(words, root) == 0
    assert len(asked(root)) > 50
    assert Path(root.parent / "dry").read_text().splitlines() == asked(root)


def test_a_dry_run_sources_the_site_file(root, capsys):
    (root / "slurm").mkdir()
    (root / "slurm/site.sh").write_text("export SBATCH_CONSTRAINT=a100\n")
    assert submit.main(["--dry-run", "french:q1_mixed"], root) == 0
    subprocess.run(["bash", "-c", capsys.readouterr().out], cwd="/", check=True)
    assert [line.partition(" ")[0] for line in asked(root)] == ["constraint=a100"] * 2


def test_repeats_can_be_left_out(root, capsys):
    assert submit.main(["--dry-run", "distractors", "--without-repeats"], root) == 0
    script = capsys.readouterr().out
    assert "distractors_4=" in script
    assert "distractors_8" not in script


def test_listing(capsys, root):
    assert submit.main(["--list"], root) == 0
    text = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in text.splitlines()]
    start = lines.index("actions")
    assert lines[start + 1 : start + 3] == [
        "actions_3 8 GPUs x 27 h",
        "actions_3_drrn 2 CPUs x 2 h after sentencepiece",
    ]
    assert lines[-2:] == ["needed by others", "sentencepiece 1 CPU x 0.2 h"]


@pytest.mark.parametrize("command", [["submit.py", "--list"], ["status.py"]])
def test_a_pager_that_ends_first_is_no_error(command):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, f"campaign/{command[0]}", *command[1:]], cwd=ROOT, stdout=write, stderr=-1)
    os.close(write)
    assert (done.returncode, b"Traceback" in done.stderr) == (-signal.SIGPIPE, False)


def test_errors_are_one_line(root, capsys, monkeypatch):
    def error(*arguments):
        assert submit.main(list(arguments), root) == 2
        return capsys.readouterr().err

    (root.parent / "bin/squeue").write_text("#!/bin/bash\necho 'slurm_load_jobs error' >&2\nexit 1\n")
    assert error("french").splitlines()[-1].startswith("error: squeue does not answer")
    (root / "slurm").mkdir()
    (root / "slurm/site.sh").write_text("no_such_command\n")
    assert re.match(r"error: .*slurm/site.sh fails: .*no_such_command: command not found\n$", error("french"))
    (root / "slurm/site.sh").unlink()
    monkeypatch.setenv("GLAM_SITE", "slurm/stie.sh")
    assert error("french") == "error: GLAM_SITE=slurm/stie.sh: there is no such file\n"
    monkeypatch.delenv("GLAM_SITE")
    (root.parent / "bin/squeue").write_text(SQUEUE)
    (root.parent / "bin/sbatch").unlink()
    monkeypatch.setenv("PATH", str(root.parent / "bin"))
    assert error("french") == (
        "error: there is no sbatch here: submit from a login node of the cluster, or see the commands by --dry-run\n"
    )
    with pytest.raises(SystemExit, match="2"):
        submit.main([], root)
