"""Which jobs a campaign submits, in which order, and what each waits for."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from campaign.rows import Row
from campaign.scripts import EVERYTHING, Campaign, Job
from experiments.errors import UserError

IN_QUEUE = ("running", "waiting")  # states of a row


@dataclass
class Step:
    """A job for the seeds of a campaign.

    Attributes:
        arguments: of its script.
        seeds: to be submitted; (None,) for a job that is no array.
        done: have ended well before.
        jobs: seed -> SLURM's job of it, of those in the queue and of those that this campaign has submitted.
        after: what it waits for, seed by seed, or wholly and however it ends (`whole`).
    """

    job: Job
    arguments: tuple[str, ...]
    seeds: tuple[int | None, ...]
    done: tuple[int | None, ...] = ()
    jobs: dict[int | None, str] = field(default_factory=dict)
    after: list[Step] = field(default_factory=list)
    whole: bool = False

    def hours(self) -> tuple[float, float]:
        """GPU hours of what is to be submitted, and CPU hours of what has no GPU."""
        total = self.job.hours * len(self.seeds)
        return total * self.job.gpus, 0 if self.job.gpus else total * self.job.cpus

    def dependency(self) -> str:
        """sbatch's --dependency; "" where nothing it waits for is under way.

        `aftercorr` lets a seed begin when that seed of the other job has ended well. It needs one array that holds all
        of the seeds; otherwise the whole of the other jobs is waited for.
        """
        if self.whole:
            ids = dict.fromkeys(job for step in self.after for job in step.jobs.values())
            return f"afterany:{':'.join(ids)}" if ids else ""
        kinds: dict[str, list[str]] = {}
        for step in self.after:
            ids = dict.fromkeys(step.jobs[seed] for seed in self.seeds if seed in step.jobs)
            same = len(ids) == 1 and all(seed in step.jobs for seed in self.seeds)
            kinds.setdefault("aftercorr" if same else "afterok", []).extend(ids)
        return ",".join(f"{kind}:{':'.join(ids)}" for kind, ids in kinds.items() if ids)


def choose(campaign: Campaign, words: Iterable[str]) -> list[Job]:
    """The jobs that words on the command line name: all, a figure, a script (`.sh` tells it from a figure), or a job.

    Raises:
        UserError: a word names none of these.
    """
    jobs: dict[str, Job] = {}
    everything = {job.title: job for jobs in campaign.figures.values() for job in jobs}
    for word in words:
        name, _, argument = word.removeprefix("campaign/").partition(":")
        name, is_script = name.removesuffix(".sh"), name.endswith(".sh")
        if argument:
            found = [campaign.job(name, re.sub(r"[\[\]\s]", "", argument))]  # [pretraining, npe] is pretraining,npe
        elif word == "all":
            found = list(everything.values())
        elif name in campaign.figures and not is_script:
            found = campaign.figures[name]
        elif name in campaign.scripts:
            found = [job for job in everything.values() if job.script.name == name] or [campaign.job(name)]
        else:
            near = difflib.get_close_matches(name, [*campaign.figures, *campaign.scripts], n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "--list names what there is"
            raise UserError(f"{word} is neither a figure nor a script of campaign/: {hint}")
        jobs |= {job.title: job for job in found}
    return list(jobs.values())


def in_order(campaign: Campaign, chosen: Sequence[Job], *, add_needs: bool = True) -> list[Job]:
    """The chosen jobs and, unless these are taken as done, all that they need; each after what it needs.

    Raises:
        UserError: no script trains what a job's argument names.
    """
    ordered: dict[str, Job] = {}
    titles = {job.title for job in chosen}

    def add(job: Job) -> None:
        if job.title not in ordered:
            for need in campaign.needs(job, must_exist=add_needs):
                if add_needs or need.title in titles:
                    add(need)
            ordered[job.title] = job

    for job in sorted(chosen, key=lambda job: EVERYTHING in job.script.needs):  # they wait for all others
        add(job)
    return list(ordered.values())


def make_plan(
    campaign: Campaign,
    jobs: Sequence[Job],
    rows: Iterable[Row],
    *,
    seeds: Sequence[int] = (),
    overrides: Sequence[str] = (),
    again: bool = False,
) -> list[Step]:
    """The steps of these jobs, in their order (`in_order`).

    Args:
        rows: how the runs stand (`campaign.status`): those in the queue are not submitted again, nor are those that are
            done; tables and figures are made again, also where those in the queue do not wait for all.
        seeds: in place of those of the scripts.
        overrides: for every job but tables and figures.
        again: submit what is done, too.
    """
    standing = _standing(campaign, rows)
    all_seeds = seeds or sorted({seed for job in jobs for seed in job.script.seeds}) or (1, 2)
    steps: dict[str, Step] = {}
    for job in jobs:
        arguments, last = job.arguments(overrides, all_seeds), EVERYTHING in job.script.needs
        wanted: tuple[int | None, ...] = (tuple(seeds) or job.script.seeds) if job.script.seeds else (None,)
        found = {seed: standing.get((job.script.name, arguments, seed)) for seed in wanted}
        queued = {seed: _base(row) for seed, row in found.items() if row and row.job and row.state in IN_QUEUE}
        done = () if again or last else tuple(seed for seed, row in found.items() if row and row.state == "done")
        needs = campaign.needs(job, must_exist=False)
        after = [steps[need.title] for need in needs if need.title in steps]
        if last:
            after = [step for step in steps.values() if campaign.figures_of(step.job) & campaign.figures_of(job)]
            if any(step.seeds for step in after):
                queued = {}  # what is in the queue does not wait for these
        missing = tuple(seed for seed in wanted if seed not in queued and seed not in done)
        steps[job.title] = Step(job, arguments, missing, done, queued, after, whole=last)
    return list(steps.values())


def _standing(campaign: Campaign, rows: Iterable[Row]) -> dict[tuple[str, tuple[str, ...], int | None], Row]:
    """How script, arguments and seed stand; a script without its first argument has the default."""
    found: dict[tuple[str, tuple[str, ...], int | None], Row] = {}
    for row in rows:
        script = campaign.scripts.get(row.name)
        default = (script.default,) if script and script.default else ()
        key = row.name, row.arguments or default, row.seed
        if key not in found or found[key].state not in IN_QUEUE:  # where another was submitted, too, and refused
            found[key] = row
    return found


def _base(row: Row) -> str:
    """The job, or the array that it is an element of."""
    return (row.job or "").partition("_")[0]
