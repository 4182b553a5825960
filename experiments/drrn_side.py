"""The DRRN agents that a configuration asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import torch

from experiments.agents.drrn.drrn_agent import DRRNAgent, DRRNConfig
from experiments.agents.drrn.drrn_policy import DRRNPolicy, DRRNTestAgent
from experiments.agents.drrn.network import DRRN
from experiments.agents.drrn.vocabulary import Vocabulary
from experiments.configuration import Config
from experiments.environments import make_envs, training_seeds
from experiments.prompters import make_prompters
from experiments.seeding import seed_everything


def make_drrn_policy(config: Config) -> DRRNPolicy:
    """The network with random weights from the run's seed, on the configured device.

    Raises:
        UserError: `spm_path` holds no usable sentencepiece model.
    """
    drrn = config.rl.drrn
    vocabulary = Vocabulary(Path(config.rl.spm_path).expanduser())
    seed_everything(config.rl)
    network = DRRN(len(vocabulary), drrn.embedding, drrn.hidden)
    return DRRNPolicy(network.to("cuda" if config.lamorel.llm_args.parallelism.use_gpu else "cpu"), vocabulary)


@contextmanager
def open_drrn_agent(config: Config) -> Iterator[DRRNAgent]:
    """The DRRN agent that learns, with its environments."""
    rl = config.rl
    policy = make_drrn_policy(config)
    settings = DRRNConfig(
        rl.frames_per_proc, rl.reward_scale, rl.bootstrap_timeouts, rl.max_skipped_gradient_steps, rl.drrn
    )
    with _denormals_flushed(), closing(make_envs(rl, seeds=training_seeds(rl))) as envs:
        yield DRRNAgent(envs, make_prompters(rl), policy, settings, seed=rl.seed)


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    """Within it numbers below 1e-38 are 0, in this thread and in threads that it starts.

    Gradients fade over the steps of a long text, and a CPU takes a hundred times longer for such numbers.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def make_drrn_test_agent(config: Config, checkpoint: Path) -> DRRNTestAgent:
    """The policy of a checkpoint."""
    policy = make_drrn_policy(config)
    policy.load(checkpoint)
    return DRRNTestAgent(policy)
