"""Training speed of DRRN in the paper's mixed tasks, beside the same agent with torch's GRU over padded texts.

    python benchmarks/drrn_speed.py [--updates 3] [--threads 1]

Alternates between the two in one process and measures processor time per frame of whole updates. The slow one keeps
denormal numbers, torch's default.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from experiments.agents.drrn.network import DRRN
from experiments.configuration import parse_config
from experiments.drrn_side import open_drrn_agent
from experiments.hydra_script import compose_experiment
from experiments.make_sentencepiece import make_sentencepiece


def encode_padded(network: DRRN, encoder: nn.GRU, texts: Sequence[Any]) -> Tensor:
    lengths = torch.tensor([len(text) for text in texts])
    padded = pad_sequence([torch.as_tensor(np.asarray(text, dtype=np.int64)) for text in texts])
    return encoder(network.embedding(padded))[0][lengths - 1, torch.arange(len(texts))]


def seconds_per_frame(agent: Any) -> float:
    start = time.process_time()
    rollout = agent.collect_rollout()
    agent.update(rollout)
    return (time.process_time() - start) / rollout.frames


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    measured: dict[str, list[float]] = {"torch's GRU": [], "ours": []}
    with tempfile.TemporaryDirectory() as folder:
        keys = {"saving_path_logs": folder, "saving_path_model": folder, "spm_path": Path(folder) / "spm.model"}
        keys |= {"frames_per_proc": 8, "seed": 1}
        config = parse_config(compose_experiment("q1_drrn", [f"rl_script_args.{k}={v}" for k, v in keys.items()]))
        make_sentencepiece(config)
        with open_drrn_agent(config) as agent:
            agent.collect_rollout()  # the memory holds a batch from here on
            for _ in range(args.updates):
                measured["ours"].append(seconds_per_frame(agent))
                with mock.patch.object(DRRN, "_encode", encode_padded):
                    torch.set_flush_denormal(False)
                    measured["torch's GRU"].append(seconds_per_frame(agent))
                    torch.set_flush_denormal(True)
    medians = {name: statistics.median(values) for name, values in measured.items()}
    for name, value in medians.items():
        print(f"{name:12} {1 / value:6.0f} frames per second of processor time")
    ratio = medians["torch's GRU"] / medians["ours"]
    print(f"ratio {ratio:.1f}, {args.threads} threads, {args.updates} updates each")
    return 0


if __name__ == "__main__":
    sys.exit(main())
