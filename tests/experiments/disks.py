"""Disks that are full: a limit of a file's size, which any process may set itself, and small tmpfs mounts (root)."""

import resource
import subprocess
from contextlib import contextmanager

import pytest


@contextmanager
def file_size_limit(size):
    """Within it this process and its children cannot write past `size` bytes of a file (EFBIG)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def small_disk(folder, size):
    """A disk of `size` bytes at `folder`; yields a function that changes its options, as size=… or ro."""
    folder.mkdir()
    mounted = mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")

    def remount(options):
        again = mount("-o", f"remount,{options}", folder)
        assert again.returncode == 0, again.stderr

    try:
        yield remount
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def mount(*arguments):
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)
