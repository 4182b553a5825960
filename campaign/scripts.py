"""The batch scripts of a campaign, as their headers describe them, and the jobs that they can be submitted as.

Beside sbatch's own lines a header holds

    #GLAM figure: NAME [ARGUMENT ...]   a figure or table of the paper, and the first arguments it takes of this script
    #GLAM needs: JOB ...                jobs that must have ended well; $1 is this job's argument, * every other job of
                                        its figures, however it ends
    #GLAM repeats: SCRIPT               has the settings of another one under its own name
    #GLAM hours: NUMBER                 of a whole run over all its requeues; a second number is of one without LLM
    #GLAM hours of GLOB: NUMBER         with an LLM and a first argument like this
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

from experiments.errors import UserError

EVERYTHING = "*"  # as a need
CPUS_WITHOUT_LLM = 2  # of a job that needs none of the GPUs of its script


@dataclass(frozen=True)
class Script:
    """One batch script.

    Attributes:
        about: its first comment.
        figures: (figure, argument) pairs; the argument is None where the script takes none.
        needs, repeats, hours: see above; hours are wall-clock hours of one run, with LLM and without.
        hours_of: (glob, hours) pairs.
        seeds: of its array; empty where it is none.
        gpus: per node.
        default: of its first argument, where that chooses what it runs; else None. All others are appended to its
            command.
    """

    path: Path
    about: str
    figures: tuple[tuple[str, str | None], ...]
    needs: tuple[str, ...]
    repeats: str | None
    hours: tuple[float, float]
    hours_of: tuple[tuple[str, float], ...]
    seeds: tuple[int, ...]
    nodes: int
    tasks: int
    cpus: int
    gpus: int
    default: str | None

    @property
    def name(self) -> str:
        return self.path.stem


@dataclass(frozen=True)
class Job:
    """A script with its first argument, for one or several seeds.

    Attributes:
        without_llm: its script asks for a GPU, but its argument names a run that has no LLM.
    """

    script: Script
    argument: str | None
    without_llm: bool = False

    @property
    def title(self) -> str:
        """What submit.py is told, and tells: SCRIPT or SCRIPT:ARGUMENT."""
        return self.script.name + (f":{self.argument}" if self.argument else "")

    @property
    def variable(self) -> str:
        """The same as a name for the shell."""
        return re.sub(r"\W+", "_", self.title)

    @property
    def gpus(self) -> int:
        """Of one run, over its nodes."""
        return 0 if self.without_llm else self.script.nodes * self.script.gpus

    @property
    def cpus(self) -> int:
        """Of one run, over its nodes and tasks."""
        return CPUS_WITHOUT_LLM if self.without_llm else self.script.nodes * self.script.tasks * self.script.cpus

    @property
    def hours(self) -> float:
        """Of one run, by the clock."""
        own = [hours for glob, hours in self.script.hours_of if fnmatchcase(self.argument or "", glob)]
        return own[0] if own and not self.without_llm else self.script.hours[self.without_llm]

    def arguments(self, overrides: Sequence[str], seeds: Sequence[int]) -> tuple[str, ...]:
        """Of the script: tables and figures are of several seeds, and take no overrides; others have a run per seed."""
        if EVERYTHING in self.script.needs:
            return (self.argument or "", "--seeds", *map(str, seeds))
        return (*filter(None, [self.argument]), *overrides)


class Campaign:
    """All scripts of a folder, and the jobs that they make.

    Raises:
        UserError: a header is incomplete.
    """

    def __init__(self, folder: Path) -> None:
        self.scripts: Mapping[str, Script] = {path.stem: read_script(path) for path in sorted(folder.glob("*.sh"))}

    @cached_property
    def figures(self) -> dict[str, list[Job]]:
        """The jobs of each figure of the paper, without those that they need."""
        found: dict[str, list[Job]] = {}
        for script in self.scripts.values():
            for figure, argument in script.figures:
                found.setdefault(figure, []).append(self.job(script.name, argument))
        return found

    def job(self, name: str, argument: str | None = None) -> Job:
        """The job of a script and its first argument.

        Raises:
            UserError: there is no such script, or it takes no argument.
        """
        script = self.scripts.get(name)
        if script is None:
            raise UserError(
                f"campaign/{name}.sh does not exist: `python campaign/submit.py --list` names what there is"
            )
        argument = argument or script.default or None
        if argument is not None and script.default is None:
            raise UserError(f"{name}:{argument}: this script takes no argument, give {name}")
        trained = self.scripts.get(training_script(argument)) if "$1" in script.needs and argument else None
        return Job(script, argument, without_llm=bool(script.gpus and trained and not trained.gpus))

    def figures_of(self, job: Job) -> set[str]:
        return {figure for figure, jobs in self.figures.items() if job in jobs}

    def needs(self, job: Job, *, must_exist: bool = True) -> list[Job]:
        """The jobs without which it cannot run, but for those that `*` stands for.

        Raises:
            UserError: no script trains what its argument names, and one must.
        """
        found = []
        for need in job.script.needs:
            if need == "$1":
                name = training_script(job.argument or "")
                if name in self.scripts:
                    found.append(self.job(name))
                elif must_exist:
                    raise UserError(
                        f"{job.title}: no script campaign/{name}.sh trains [{job.argument}]; with --without-needs it "
                        "is taken as trained"
                    )
            elif need != EVERYTHING:
                name, _, argument = need.partition(":")
                found.append(self.job(name, job.argument if argument == "$1" else argument or None))
        return found


def training_script(overlays: str) -> str:
    """The script of the training with these overlays: actions_3,drrn -> actions_3_drrn."""
    return overlays.strip("[]").replace(",", "_")


def read_script(path: Path) -> Script:
    """Raises UserError where the header lacks a line, or holds one that cannot be read."""
    text = path.read_text(encoding="utf-8")
    none: list[str | None] = [None]
    sbatch = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?", text, re.M))
    glam: dict[str, list[list[str]]] = {}  # key -> the words of each of its lines
    for key, value in re.findall(r"^#GLAM (\w+): ([^#\n]*)", text, re.M):
        glam.setdefault(key, []).append(value.split())
    try:
        return Script(
            path=path,
            about=re.findall(r"^# (.*)", text, re.M)[0],
            figures=tuple((name, arg) for name, *arguments in glam.get("figure", []) for arg in (arguments or none)),
            needs=tuple(need for line in glam.get("needs", []) for need in line),
            repeats=glam["repeats"][0][0] if "repeats" in glam else None,
            hours=(float(glam["hours"][0][0]), float(glam["hours"][0][-1])),
            hours_of=tuple(
                (glob, float(hours)) for glob, hours in re.findall(r"^#GLAM hours of (\S+): ([\d.]+)", text, re.M)
            ),
            seeds=array_seeds(sbatch.get("array", "")),
            nodes=int(sbatch["nodes"]),
            tasks=int(sbatch["ntasks-per-node"]),
            cpus=int(sbatch["cpus-per-task"]),
            gpus=int(sbatch.get("gres", "gpu:0").rpartition(":")[2]),
            default=next(iter(re.findall(r"\$\{1:-([^}]*)\}", text)), None),
        )
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(
            f"{path}: its header cannot be read ({error!r}); campaign/scripts.py says what it holds"
        ) from error


def array_seeds(text: str) -> tuple[int, ...]:
    """The elements of sbatch's --array, such as 1-2 or 1,4."""
    ranges = [part.split("-") for part in text.split(",") if part]
    return tuple(seed for first, *last in ranges for seed in range(int(first), int(last[0] if last else first) + 1))
