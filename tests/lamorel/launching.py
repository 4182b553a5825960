"""Starts scripts as several processes, for tests."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

REPOSITORY = Path(__file__).resolve().parents[2]
JOBS = Path(__file__).with_name("launched_jobs.py")


@dataclass
class Launch:
    """A configuration file, ready to be launched."""

    folder: Path
    script: Path = JOBS

    @classmethod
    def of(cls, folder: Path, lamorel_args: dict[str, Any], script: Path = JOBS, **keys: Any) -> "Launch":
        folder.mkdir(parents=True, exist_ok=True)
        quiet = {"run": {"dir": "."}, "output_subdir": None}
        tree = {
            "defaults": ["_self_", {"override hydra/job_logging": "none"}, {"override hydra/hydra_logging": "none"}],
            "hydra": quiet,
            "lamorel_args": lamorel_args,
            "rl_script_args": {"path": None, **keys},
        }
        OmegaConf.save(tree, folder / "config.yaml")
        return cls(folder, script)

    @property
    def arguments(self) -> list[str]:
        return ["--config-path", str(self.folder), "--config-name", "config"]

    def command(self, *overrides: str) -> list[str]:
        launcher = [sys.executable, "-m", "lamorel_launcher.launch", *self.arguments]
        return [*launcher, f"rl_script_args.path={self.script}", *overrides]

    def torchrun(self, processes: int) -> list[str]:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        return [*torchrun, str(self.script), *self.arguments]

    def start(self, command: list[str], **environment: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def environment(self, **more: str) -> dict[str, str]:
        own = {key: value for key, value in os.environ.items() if key != "ACCELERATE_USE_CPU"}
        path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
        return {**own, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "RESULTS": str(self.folder / "results.pt"), **more}


def lamorel_args(model: Any, n_llm: int, n_rl: int = 1, **more: Any) -> dict[str, Any]:
    setup = {"n_rl_processes": n_rl, "n_llm_processes": n_llm}
    return {"gloo_timeout": 60, "distributed_setup_args": setup, **model.config(), **more}
