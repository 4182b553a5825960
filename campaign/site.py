"""slurm/site.sh: what a cluster needs to know, read as the jobs will read it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from experiments.errors import UserError

SECONDS = 60


def site_file(root: Path, environment: Mapping[str, str]) -> Path | None:
    """GLAM_SITE, or else slurm/site.sh where that exists. Raises UserError where GLAM_SITE does not."""
    named = environment.get("GLAM_SITE")
    site = root / (named or "slurm/site.sh")
    if named and not site.is_file():
        raise UserError(f"GLAM_SITE={named}: there is no such file")
    return site if site.is_file() else None


def site_environment(root: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment as slurm/site.sh leaves it; as it is where there is no such file.

    Raises:
        UserError: the file fails, or is not where GLAM_SITE says.
    """
    site = site_file(root, environment)
    if site is None:
        return dict(environment)
    command = ["bash", "-c", '. "$0" >&2 && env -0', str(site)]
    try:
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{site} has not ended within {SECONDS} s: mend it") from error
    if done.returncode:
        raise UserError(f"{site} fails: {last_line(done.stderr) or f'exit status {done.returncode}'}")
    return dict(entry.split("=", 1) for entry in done.stdout.split("\0") if "=" in entry)


def last_line(text: str) -> str:
    """Its last line, without space around it; "" of an empty text."""
    return (text.strip().splitlines() or [""])[-1]
