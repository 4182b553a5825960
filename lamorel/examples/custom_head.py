"""Two functions of one's own: a value head on the context, and a score computed from the logits.

python lamorel/examples/custom_head.py --config-path configs --config-name custom_head
"""

from typing import Any

import hydra
import torch
from omegaconf import DictConfig

from lamorel import BaseModuleFunction, Caller, lamorel_init

lamorel_init()

PROMPTS = ["Goal: go to the ball. You see a ball on your left. Next action:", "You see nothing. Next action:"]
ACTIONS = ["turn left", "turn right", "go forward"]


class ValueHead(BaseModuleFunction):
    """An MLP on the hidden state from which the first token of an action is predicted."""

    context_only = True  # once per prompt, not once per prompt and action

    def initialize(self) -> None:
        width = self.llm_config.hidden_size
        self.mlp = torch.nn.Sequential(torch.nn.Linear(width, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1))
        self.mlp.to(self.device)

    def forward(self, forward_outputs: Any, minibatch: Any, tokenized_contexts: Any, **kwargs: Any) -> torch.Tensor:
        layers = "decoder_hidden_states" if self.llm_config.is_encoder_decoder else "hidden_states"
        return self.mlp(forward_outputs[layers][-1][:, 0, :].float())  # (prompts, 1)


class MeanLogProb(BaseModuleFunction):
    """The mean log-probability of an action's tokens, in place of their sum."""

    def forward(self, forward_outputs: Any, minibatch: Any, tokenized_contexts: Any, **kwargs: Any) -> torch.Tensor:
        prefix = "decoder_" if self.llm_config.is_encoder_decoder else ""
        # Position t predicts token t + 1.
        logprobs = forward_outputs["logits"][:, :-1, :].float().log_softmax(dim=-1)
        tokens = minibatch[f"{prefix}input_ids"][:, 1:]
        mask = minibatch[f"{prefix}attention_mask"][:, 1:]
        per_token = logprobs.gather(-1, tokens[:, :, None])[:, :, 0] * mask
        return per_token.sum(dim=1) / mask.sum(dim=1)  # (prompts x actions,)


@hydra.main(config_path="configs", config_name="custom_head", version_base=None)
def main(config: DictConfig) -> None:
    functions = {"value": ValueHead(), "mean_logprob": MeanLogProb()}
    lm_server = Caller(config.lamorel_args, custom_module_functions=functions)
    outputs = lm_server.score(
        contexts=PROMPTS,
        candidates=[ACTIONS] * len(PROMPTS),
        additional_module_function_keys=["value", "mean_logprob"],
    )
    for prompt, output in zip(PROMPTS, outputs, strict=True):
        print(f"{prompt}  (value {output['value'].item():.4f})")
        for action, score, mean in zip(ACTIONS, output["__score"], output["mean_logprob"], strict=True):
            print(f"  {score.item():9.4f} {mean.item():9.4f}  {action}")
    lm_server.close()


if __name__ == "__main__":
    main()
