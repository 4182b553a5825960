"""A campaign in words: what there is, what waits for what, and the hours it takes."""

from __future__ import annotations

from collections.abc import Sequence

from campaign.plan import Step, in_order
from campaign.scripts import EVERYTHING, Campaign, Job


def listing(campaign: Campaign) -> str:
    """Every figure and its jobs, with what one run of each takes."""
    lines = []
    for figure, jobs in campaign.figures.items():
        lines.append(f"\n{figure}")
        for job in jobs:
            needs = " ".join(need.title for need in campaign.needs(job))
            after = "all others of the figure" if EVERYTHING in job.script.needs else needs
            lines.append(f"  {job.title:50} {resources(job):>22}{'  after ' if after else ''}{after}")
    shared = [job for job in in_order(campaign, _all(campaign)) if not campaign.figures_of(job)]
    lines += ["\nneeded by others", *(f"  {job.title:50} {resources(job):>22}" for job in shared)]
    return "\n".join(lines).lstrip("\n")


def graph(steps: Sequence[Step]) -> str:
    """A line per job, as comments of a shell script."""
    lines = []
    for step in steps:
        seeds = [seed for seed in step.seeds if seed is not None]
        parts = [f"seed{'s'[: len(seeds) != 1]} {' '.join(map(str, seeds))}"] if seeds else []
        if step.seeds:
            parts.append(resources(step.job))
        parts += [f"job {job} is in the queue" for job in dict.fromkeys(step.jobs.values())]
        if step.done:
            parts.append("done already" + "".join(f" {seed}" for seed in step.done if seed is not None))
        waits = [other.job.title for other in step.after if other.seeds or other.jobs] if step.seeds else []
        if waits:
            parts.append(
                f"after {len(waits)} job{'s' * (len(waits) != 1)}, however they end"
                if step.whole
                else f"after {' '.join(waits)}"
            )
        lines.append(f"# {step.job.title:50} {', '.join(parts)}")
    return "\n".join([*lines, ""])


def hours(campaign: Campaign, steps: Sequence[Step]) -> str:
    """Hours of what is submitted: in total, and of each whole figure with what it needs."""
    by_title = {step.job.title: step for step in steps}
    submitted = sum(bool(step.seeds) for step in steps)
    lines = [f"# {_hours(steps)} in {submitted} job{'s' * (submitted != 1)}; at most, by campaign/README.md"]
    shares = []
    for figure, jobs in campaign.figures.items():
        share = [by_title[job.title] for job in in_order(campaign, jobs) if job.title in by_title]
        if all(job.title in by_title for job in jobs) and any(step.seeds for step in share):
            shares.append(f"#   {figure:28} {_hours(share)}")
    if len(shares) > 1:
        lines += ["# by figure, with what it needs; what several need is counted in each", *shares]
    repeats = [step for step in steps if step.seeds and step.job.script.repeats]
    if repeats:
        names = ", ".join(f"{step.job.title} = {step.job.script.repeats}" for step in repeats)
        lines.append(
            f"# of all this {_hours(repeats)} repeat a setting under another name ({names}): --without-repeats"
        )
    return "\n".join(lines)


def resources(job: Job) -> str:
    """What one run takes."""
    number, unit = (job.gpus, "GPU") if job.gpus else (job.cpus, "CPU")
    return f"{number} {unit}{'s' * (number > 1)} x {job.hours:g} h"


def _hours(steps: Sequence[Step]) -> str:
    gpu, cpu = (sum(column) for column in zip(*(step.hours() for step in steps), strict=True)) if steps else (0, 0)
    return f"{gpu:,.0f} GPU hours and {cpu:,.0f} CPU hours"


def _all(campaign: Campaign) -> list[Job]:
    return [job for jobs in campaign.figures.values() for job in jobs]
