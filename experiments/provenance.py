"""What a run or a test was made with: command, commit, machine and versions."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "accelerate", "peft", "gymnasium", "minigrid", "hydra-core", "numpy", "pandas")


def provenance() -> dict[str, Any]:
    """The command line, the commit of this checkout (None outside git), the machine and the versions of packages."""
    return {
        "command": sys.argv,
        "commit": _commit(),
        "machine": machine(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def command_line(arguments: Sequence[str]) -> str:
    """A recorded `sys.argv` of one of the scripts, as it is typed in the repository's root."""
    script, *overrides = arguments
    return shlex.join(["python", f"experiments/{Path(script).name}", *overrides])


def machine() -> str:
    """Processor, cores and GPUs, such as `2 cores of Intel(R) Xeon(R) Processor, AMX`."""
    import torch  # here: the command line is checked before it is imported

    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        info = ""
    models = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    text = f"{os.cpu_count()} cores of {name}" + (", AMX" if "amx_bf16" in info else "")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return text + "".join(f", {gpus.count(gpu)} x {gpu}" for gpu in dict.fromkeys(gpus))


def _commit() -> str | None:
    """`git describe --always --dirty` of the checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
