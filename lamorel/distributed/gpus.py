"""Which GPUs of its machine an LLM process has. Needs no torch, which must not look for GPUs before that is settled."""

import os
import subprocess
from collections.abc import Mapping

from lamorel.config import LLM_KEY, LamorelConfig, LamorelConfigError
from lamorel.distributed.launched import World, has_our_launcher

_KEY = f"{LLM_KEY}.parallelism"


def choose_gpus(config: LamorelConfig, world: World) -> None:
    """Leaves this LLM process its own GPUs: what our launcher has done already, and torchrun does not do."""
    if has_our_launcher() or "LOCAL_RANK" not in os.environ:
        return
    local_rank, local_size = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    first = world.rank - local_rank
    rl_here = min(max(world.n_rl - first, 0), local_size)
    gpus = gpus_of_llm_processes(config, local_size - rl_here, os.environ)
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[local_rank - rl_here])


def gpus_of_llm_processes(config: LamorelConfig, llm_processes: int, environment: Mapping[str, str]) -> list[list[str]]:
    """Per LLM process of this machine the names of its GPUs; empty where the LLM runs on CPUs."""
    parallelism = config.llm_args.parallelism
    if not parallelism.use_gpu or not llm_processes:
        return []
    each = parallelism.model_parallelism_size
    visible = visible_gpus(environment)
    if len(visible) < llm_processes * each:
        raise LamorelConfigError(
            f"{_KEY}: {llm_processes} LLM process(es) on this machine want {llm_processes * each} GPU(s) "
            f"(model_parallelism_size {each}), but there are {len(visible)} here: ask for fewer LLM processes, or set "
            f"{_KEY}.use_gpu to false"
        )
    return [visible[i * each : (i + 1) * each] for i in range(llm_processes)]


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """Indices, or identifiers, of the GPUs that processes started here may use."""
    given = environment.get("CUDA_VISIBLE_DEVICES")
    if given is not None and given != "all":
        return [name.strip() for name in given.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [str(i) for i, line in enumerate(listed.splitlines()) if line.startswith("GPU ")]
