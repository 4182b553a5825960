"""PPO on LoRA adapters and a value head, in a task of one decision: turn to where the ball is.

python lamorel/examples/ppo_lora.py --config-path configs --config-name ppo_lora
"""

from pathlib import Path
from typing import Any

import hydra
import torch
from custom_head import ValueHead
from omegaconf import DictConfig

from lamorel import BaseUpdater, Caller, lamorel_init

lamorel_init()

SIDES = ["left", "right"]
THINGS = ["ball", "box", "key", "door"]
PROMPTS = [f"You see a {thing} on your {side}. To face it, you" for thing in THINGS for side in SIDES]
GOOD = torch.tensor([SIDES.index(side) for _ in THINGS for side in SIDES])  # (prompts,) index of the right action
ACTIONS = [f"turn {side}" for side in SIDES]


class PPOUpdater(BaseUpdater):
    """The clipped loss of PPO with value loss and entropy bonus, over all that is trained: adapters and head."""

    def __init__(self, args: DictConfig) -> None:
        self._args = args

    def setup(self) -> None:
        trained = [parameter for parameter in self._llm_module.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=self._args.lr)

    def perform_update(self, contexts: Any, candidates: Any, _current_batch_ids: Any, **kwargs: Any) -> float:
        rows = {name: row[_current_batch_ids] for name, row in kwargs.items()}
        for _ in range(self._args.epochs):
            self.optimizer.zero_grad()
            losses = self.accumulate(self._losses, ["__score", "value"], contexts, candidates, **rows)
            torch.nn.utils.clip_grad_norm_(self._llm_module.parameters(), 1.0)
            self.optimizer.step()
        return losses.mean().item()

    def _losses(
        self, outputs: list[Any], actions: torch.Tensor, old_logp: torch.Tensor, rewards: torch.Tensor, values: Any
    ) -> torch.Tensor:
        """One loss per sample, all (n,)."""
        logp_all = torch.stack([output["__score"] for output in outputs]).log_softmax(dim=-1)
        new_values = torch.stack([output["value"] for output in outputs]).flatten()
        advantages = rewards - values
        ratio = (logp_all.gather(1, actions[:, None])[:, 0] - old_logp).exp()
        clipped = ratio.clamp(1 - self._args.clip, 1 + self._args.clip)
        policy = -torch.minimum(ratio * advantages, clipped * advantages)
        entropy = -(logp_all.exp() * logp_all).sum(dim=-1)
        return policy + self._args.value_coef * (new_values - rewards) ** 2 - self._args.entropy_coef * entropy


def collect(lm_server: Caller, samples: int) -> tuple[list[str], dict[str, torch.Tensor]]:
    """Prompts and what happened there: action, its log-probability, reward, value, each (samples,)."""
    chosen = torch.randint(len(PROMPTS), (samples,))
    prompts = [PROMPTS[i] for i in chosen]
    outputs = lm_server.score(prompts, [ACTIONS] * samples, additional_module_function_keys=["value"])
    logp = torch.stack([output["__score"] for output in outputs]).log_softmax(dim=-1)
    actions = torch.distributions.Categorical(logits=logp).sample()
    return prompts, {
        "actions": actions,
        "old_logp": logp.gather(1, actions[:, None])[:, 0],
        "rewards": (actions == GOOD[chosen]).float(),
        "values": torch.stack([output["value"] for output in outputs]).flatten(),
    }


def success(lm_server: Caller) -> float:
    """Mean probability of the right action."""
    scores = torch.stack(lm_server.score(PROMPTS, [ACTIONS] * len(PROMPTS)))
    return scores.softmax(dim=-1).gather(1, GOOD[:, None]).mean().item()


@hydra.main(config_path="configs", config_name="ppo_lora", version_base=None)
def main(config: DictConfig) -> None:
    args = config.rl_script_args
    torch.manual_seed(args.seed)
    lm_server = Caller(
        config.lamorel_args, custom_updater=PPOUpdater(args), custom_module_functions={"value": ValueHead()}
    )
    print(f"right action before: {success(lm_server):.3f}")
    for update in range(args.updates):
        prompts, rows = collect(lm_server, args.samples)
        losses = lm_server.update(prompts, [ACTIONS] * len(prompts), **rows)
        mean_loss = sum(losses) / len(losses)
        print(f"update {update + 1}: mean reward {rows['rewards'].mean().item():.3f}, loss {mean_loss:.3f}")
    print(f"right action after: {success(lm_server):.3f}")
    if args.save_to is not None:
        lm_server.save(args.save_to)
        lm_server.save(Path(f"{args.save_to}_merged"), merge_adapters=True)
    lm_server.close()


if __name__ == "__main__":
    main()
