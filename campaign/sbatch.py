"""SLURM's sbatch: the command of a step, run or printed."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from campaign.plan import Step
from campaign.site import last_line, site_file
from experiments.atomic_files import write_atomically
from experiments.errors import UserError

# --option of a job without GPU <- variable of slurm/site.sh
CPU_OPTIONS = {"account": "GLAM_CPU_ACCOUNT", "partition": "GLAM_CPU_PARTITION", "qos": "GLAM_CPU_QOS"}


def command(step: Step, environment: Mapping[str, str], dependency: str) -> list[str]:
    """sbatch with its options, the script and its arguments."""
    script = step.job.script
    options = ["--parsable"]
    if step.seeds != (None,):
        options.append(f"--array={','.join(map(str, step.seeds))}")
    if not step.job.gpus:
        options += [f"--{name}={environment[key]}" for name, key in CPU_OPTIONS.items() if environment.get(key)]
        if step.job.without_llm:
            options += ["--gres=none", f"--cpus-per-task={step.job.cpus}"]
    if dependency:
        options += [f"--dependency={dependency}", "--kill-on-invalid-dep=yes"]
    # a constraint of sbatch's environment is one on the GPU
    without = [] if step.job.gpus or "SBATCH_CONSTRAINT" not in environment else ["env", "-u", "SBATCH_CONSTRAINT"]
    return [*without, "sbatch", *options, f"campaign/{script.path.name}", *step.arguments]


def shell_script(steps: Sequence[Step], environment: Mapping[str, str], root: Path) -> str:
    """All commands, in order; what is not yet known of a job is a variable of its name."""
    lines = [f"cd {shlex.quote(str(root))}"]
    if site := site_file(root, environment):
        lines.append(f". {shlex.quote(str(site))}")
    lines.append("set -e")
    for step in steps:
        if step.seeds:
            _note(step, f"${step.job.variable}")
            words = command(step, environment, step.dependency())
            text = " ".join(_quote(word) for word in words)
            lines.append(f"{step.job.variable}=$({text})")
    return "\n".join([*lines, ""])


def submit(steps: Sequence[Step], environment: Mapping[str, str], root: Path) -> None:
    """Submit all steps in order, each with a record of it in campaign/logs.

    Raises:
        UserError: there is no sbatch, or it refuses one; the text says what has been submitted.
    """
    if shutil.which("sbatch", path=environment.get("PATH")) is None:
        raise UserError(
            "there is no sbatch here: submit from a login node of the cluster, or see the commands by --dry-run"
        )
    submitted: list[str] = []
    for step in steps:
        if not step.seeds:
            continue
        dependency = step.dependency()
        words = command(step, environment, dependency)
        done = subprocess.run(words, cwd=root, env=environment, capture_output=True, text=True, check=False)
        number = re.match(r"(\d+)", done.stdout)
        if done.returncode or number is None:
            said = last_line(done.stderr) or last_line(done.stdout) or f"exit status {done.returncode}"
            before = f"submitted before it: {', '.join(submitted)}" if submitted else "nothing was submitted"
            raise UserError(
                f"sbatch refuses {step.job.title} ({said}); {before}. When that is mended give the same command again: "
                "it submits the rest"
            )
        job = number[1]
        record = {
            "name": step.job.script.name,
            "job": job,
            "array": None if step.seeds == (None,) else list(step.seeds),
            "arguments": list(step.arguments),
            "needs": dependency,
            "time": time.time(),
        }
        write_atomically(root / "campaign" / "logs" / f"{record['name']}_{job}.submitted", json.dumps(record))
        _note(step, job)
        submitted.append(f"{step.job.title} {job}")
        print(f"job {job}: {step.job.title}", flush=True)


def _note(step: Step, job: str) -> None:
    step.jobs |= dict.fromkeys(step.seeds, job)


def _quote(word: str) -> str:
    """A word for the shell, in which $name is a variable."""
    return word if re.fullmatch(r"--dependency=[\w:,$]+", word) else shlex.quote(word)
