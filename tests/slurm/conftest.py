"""A cluster for the tests marked `slurm`, and the launchers of slurm/ for those that need none."""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import REPOSITORY, Cluster, missing_programs

sys.path.insert(0, str(REPOSITORY / "slurm"))  # what python does with the folder of a script


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two nodes, idle; gone with every process of every job when the tests end, however they end."""
    missing = missing_programs()
    if missing:
        pytest.skip(f"SLURM is not installed ({', '.join(missing)} not found): apt-get install slurm-wlm munge")
    running = Cluster(Path(tempfile.mkdtemp(prefix="glam_slurm_", dir="/tmp")))  # a socket's path is 107 bytes at most
    try:
        running.start()
        yield running
    finally:
        running.stop()
