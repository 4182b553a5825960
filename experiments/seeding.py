"""The global random states of a process. Every stream we draw from has its own generator; these are for libraries.

PAPER-DIFF(6): the released code seeds the environments alone.
"""

from __future__ import annotations

import base64
import random
from typing import Any

import numpy as np
import torch

from experiments.configuration import RLScriptArgs


def seed_everything(rl: RLScriptArgs) -> None:
    """Seed the global generators of Python, numpy and torch from the run's seed, and set the number of threads."""
    random.seed(rl.seed)
    np.random.seed(rl.seed % 2**32)
    torch.manual_seed(rl.seed)
    if rl.torch_threads is not None:
        torch.set_num_threads(rl.torch_threads)


def get_random_states() -> dict[str, Any]:
    """The global generators' states as JSON-able data."""
    version, internal, gauss = random.getstate()
    numpy_state: Any = np.random.get_state()
    name, keys, position, has_gauss, cached = numpy_state
    return {
        "python": [version, list(internal), gauss],
        "numpy": [name, keys.tolist(), position, has_gauss, cached],
        "torch": base64.b64encode(torch.get_rng_state().numpy().tobytes()).decode(),
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Put back what `get_random_states` gave."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(torch.frombuffer(bytearray(base64.b64decode(states["torch"])), dtype=torch.uint8))
