"""Gradient steps of PPO of which some are not finite in one LLM process alone: `run_updates(caller, ...)`.

As a script it makes its Caller and leaves what it found in the file `$RESULTS`.
"""

import math
import os
from typing import Any

import torch

from experiments.agents.ppo.llm_policy import LLMPolicy
from experiments.agents.ppo.ppo_updater import PPOUpdateConfig, PPOUpdater
from lamorel import Caller, lamorel_init
from tests.lamorel.launched_jobs import CANDIDATES, CONTEXTS, AllWeights, all_weights

POLICY = LLMPolicy()
CONFIG = PPOUpdateConfig(
    lr=1e-3, value_lr=None, betas=(0.9, 0.999), adam_eps=1e-5, clip_eps=0.2, entropy_coef=0.01, value_loss_coef=0.5,
    max_grad_norm=0.5, critic_broadcast=False,
)  # fmt: skip


class SpoiltUpdater(PPOUpdater):
    """Adds infinity to the losses of the share that sample `spoilt` is in: they are not finite, their gradient is."""

    def perform_update(
        self, contexts: Any, candidates: Any, _current_batch_ids: Any, **kwargs: Any
    ) -> dict[str, float]:
        self.added = math.inf if kwargs["spoilt"] in list(_current_batch_ids) else 0.0
        report = super().perform_update(contexts, candidates, _current_batch_ids, **kwargs)
        return {**report, "spoilt": float(self.added > 0)}

    def _sample_losses(self, *args: Any, **rows: Any) -> Any:
        losses, terms = super()._sample_losses(*args, **rows)
        return losses + self.added, terms


def extras() -> tuple[PPOUpdater, dict[str, Any]]:
    """Updater and functions."""
    updater, weights = SpoiltUpdater(CONFIG, POLICY), AllWeights()
    weights.updater = (updater,)
    return updater, {**POLICY.module_functions(), "all_weights": weights}


def run_updates(caller: Caller, *, spoilt: bool) -> dict[str, Any]:
    """Weights after good steps, with steps between them that are not to count, if any."""
    found: dict[str, Any] = {"reports": []}
    for step, size in enumerate((5, 5, 1)):  # of the last one process has no share
        if spoilt:
            before = all_weights(caller)
            found["reports"] += [update(caller, size, nan=0), update(caller, size, infinite=0)]
            found[f"unchanged {step}"] = torch.equal(before, all_weights(caller))
        update(caller, size)
        found[f"weights {step}"] = all_weights(caller)
    return found


def update(caller: Caller, size: int, *, nan: int | None = None, infinite: int | None = None) -> list[dict[str, float]]:
    """One gradient step on so many samples, of which one has an advantage of NaN or an infinite loss."""
    advantages = torch.linspace(-1, 2, size)
    if nan is not None:
        advantages[nan] = math.nan
    rows = {
        "actions": torch.zeros(size, dtype=torch.long),
        "old_log_probs": torch.full((size,), -1.0),
        "old_values": torch.zeros(size),
        "advantages": advantages,
        "returns": torch.ones(size),
    }
    results = caller.update(CONTEXTS[:size], CANDIDATES[:size], **rows, biases=None, spoilt=infinite)
    return [result for result in results if result]


def main(lamorel_args: Any) -> None:
    lamorel_init()
    with Caller(lamorel_args, *extras()) as caller:
        torch.save(run_updates(caller, spoilt=True), os.environ["RESULTS"])


if __name__ == "__main__":
    import hydra

    hydra.main(version_base="1.3", config_path=None)(lambda config: main(config.lamorel_args))()
