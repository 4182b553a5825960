"""Submit the paper's experiments, or some of them, to SLURM: each after what it needs.

    python campaign/submit.py --list                          # figures, their jobs, and what these take
    python campaign/submit.py --dry-run all                   # the sbatch commands as a shell script, and the hours
    python campaign/submit.py sample_efficiency               # one figure, with all that it needs
    python campaign/submit.py french:q1_npae --seeds 3 4      # one job, for other seeds
    python campaign/submit.py actions -- lamorel_args.llm_args.dtype=bf16     # overrides, for every job

What is named: `all`, a figure, a script (`pretraining.sh` where a figure has its name) with all of its arguments, or
SCRIPT:ARGUMENT. What these need is added. What is done or in the queue already (campaign/status.py tells) is not
submitted again, so that the same command goes on after any failure.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from campaign.scripts import Job

ROOT = Path(__file__).resolve().parents[1]


def parse_arguments(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, and what stands after `--`."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("what", nargs="*", metavar="WHAT", help="all, FIGURE, SCRIPT, SCRIPT.sh or SCRIPT:ARGUMENT")
    add("--list", action="store_true", help="print what there is, and submit nothing")
    add("--dry-run", action="store_true", help="print what would be submitted, as a shell script, and submit nothing")
    add("--seeds", type=seed, nargs="+", default=[], help="in place of the scripts' own, 1 and 2")
    add("--without-needs", action="store_true", help="take what is not named as done")
    add("--without-repeats", action="store_true", help="leave out jobs that repeat the settings of another one")
    add("--again", action="store_true", help="submit what is done, too")
    options = parser.parse_args(arguments[:end])
    if not options.what and not options.list:
        parser.error("name what to submit: all, a figure or a script (--list)")
    options.seeds = list(dict.fromkeys(options.seeds))
    return options, arguments[end + 1 :]


def seed(text: str) -> int:
    if int(text) < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return int(text)


def check_overrides(jobs: Sequence[Job], overrides: Sequence[str]) -> None:
    """Raises UserError where a job's overlays or an override do not exist: jobs would wait for days to say so."""
    from campaign.scripts import EVERYTHING
    from experiments.errors import UserError
    from experiments.hydra_script import compose_experiment

    for override in overrides:
        if override.startswith(("experiment=", "rl_script_args.seed=")):
            raise UserError(f"{override}: each job has its own, name the jobs or give --seeds")
    overlays = {job.argument or "" for job in jobs if EVERYTHING not in job.script.needs}
    for chosen in sorted(overlays if overrides else overlays - {""}):
        compose_experiment(chosen, overrides)


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    from campaign import sbatch, summary
    from campaign.plan import choose, in_order, make_plan
    from campaign.scripts import Campaign
    from campaign.site import site_environment
    from campaign.status import collect
    from experiments.errors import UserError
    from experiments.folder_lock import FolderLock

    options, overrides = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    try:
        campaign = Campaign(root / "campaign")
        if options.list:
            print(summary.listing(campaign))
            return 0
        environment = site_environment(root, os.environ)
        chosen = choose(campaign, options.what)
        if options.without_repeats:
            chosen = [job for job in chosen if job.script.repeats is None]
        jobs = in_order(campaign, chosen, add_needs=not options.without_needs)
        check_overrides(jobs, overrides)
        # who submits at the same time would not see these jobs
        with nullcontext() if options.dry_run else FolderLock(root / "campaign" / "logs", "--dry-run"):
            problems: list[str] = []
            asked, rows = collect(None, root, problems)
            for problem in problems:
                print(f"warning: {problem}", file=sys.stderr)
            steps = make_plan(campaign, jobs, rows, seeds=options.seeds, overrides=overrides, again=options.again)
            print(summary.graph(steps))
            if options.dry_run:
                print(sbatch.shell_script(steps, environment, root))
            elif not asked:
                raise UserError("squeue does not answer, so that it is not known what is in the queue: try later")
            else:
                sbatch.submit(steps, environment, root)
        print(summary.hours(campaign, steps))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # instead of this folder, whose modules are campaign's
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # no traceback where `| head` or a pager ends first
    sys.exit(main())
