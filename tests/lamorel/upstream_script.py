"""A PPO script shaped as users of Lamorel 0.2 write theirs: nothing in it is ours but the import.

Started by test_lamorel_upstream.py, in one process and launched.
"""

import os
from collections import OrderedDict
from math import ceil
from pathlib import Path

import hydra
import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model

from lamorel import BaseModelInitializer, BaseModuleFunction, BaseUpdater, Caller, lamorel_init

lamorel_init()
accelerator = Accelerator()

PROMPTS = [
    "Goal: red ball. You see a red ball. Action:",
    "Goal: door. You see nothing. Action:",
    "Turn. Action:",
    "Goal: pick up the ball ahead of you, then turn. You see a ball. Action:",
    "Nothing. Action:",
]
ACTIONS = ["turn left", "turn right", "go forward", "drop"]


class LogScoringModuleFn(BaseModuleFunction):
    def __init__(self, model_type, pre_encoded_input):
        super().__init__()
        self._model_type = model_type
        self._pad_token = 0
        self._pre_encoded_input = pre_encoded_input

    def initialize(self):
        pass

    def forward(self, forward_outputs, minibatch, tokenized_contexts, **kwargs):
        if self._model_type == "causal" and self._pre_encoded_input:
            logits = forward_outputs["logits"][:, :-1, :]
            output_tokens = minibatch["input_ids"][:, 1:]
        elif self._model_type == "causal":
            end_of_context = len(tokenized_contexts[0]["input_ids"])
            logits = forward_outputs["logits"][:, end_of_context:-1, :]
            output_tokens = minibatch["input_ids"][:, end_of_context + 1 :]
        else:
            logits = forward_outputs["logits"][:, :-1, :]
            output_tokens = minibatch["decoder_input_ids"][:, 1:]
        logits = logits.log_softmax(dim=-1)
        tokens_logprobs = torch.gather(logits, 2, output_tokens[:, :, None]).squeeze(-1).to(torch.float32)
        mask = torch.ones(tokens_logprobs.shape, dtype=torch.bool, device=self.device)
        for i, output in enumerate(output_tokens):
            for j, token in enumerate(output):
                if token != self._pad_token:
                    mask[i, j] = False
        return tokens_logprobs.masked_fill(mask, 0.0).sum(-1).cpu()


class ValueHeadModuleFn(BaseModuleFunction):
    def __init__(self, model_type, pre_encoded_input):
        super().__init__()
        self._model_type = model_type
        self._pre_encoded_input = pre_encoded_input

    def initialize(self):
        config = self.llm_config.to_dict()
        hidden_size = config[self.llm_config.attribute_map.get("hidden_size", "hidden_size")]
        self.value_head_op = torch.nn.Sequential(
            torch.nn.Linear(hidden_size, 16), torch.nn.Sigmoid(), torch.nn.Linear(16, 1)
        ).to(self.device)

    def forward(self, forward_outputs, minibatch, tokenized_contexts, **kwargs):
        if self._model_type == "causal":
            position = 0 if self._pre_encoded_input else len(tokenized_contexts[0]["input_ids"])
            model_head = forward_outputs["hidden_states"][-1][:, position, :]
        else:
            model_head = forward_outputs["decoder_hidden_states"][-1][:, 0, :]
        return self.value_head_op(model_head.to(torch.float32).to(self.device)).cpu()


class WeightsLoaderInitializer(BaseModelInitializer):
    def __init__(self, weights_path):
        super().__init__()
        self._weights_path = weights_path

    def initialize_model(self, model):
        if self._weights_path is not None:
            saved = torch.load(self._weights_path + "/model.checkpoint")
            model.load_state_dict({key.replace("module.", ""): value for key, value in saved.items()}, strict=True)
        return model


class PeftInitializer(BaseModelInitializer):
    def __init__(self, target_modules):
        super().__init__()
        self._target_modules = target_modules

    def initialize_model(self, model):
        if self._target_modules is not None:
            llm = model._modules["_LLM_model"]
            task = "SEQ_2_SEQ_LM" if llm.config.is_encoder_decoder else "CAUSAL_LM"
            config = LoraConfig(
                r=2, lora_alpha=4, target_modules=list(self._target_modules), bias="none", task_type=task
            )
            peft_model = get_peft_model(llm, config)
            peft_model.print_trainable_parameters()
            model._modules["_LLM_model"] = peft_model
        return model


class PPOUpdater(BaseUpdater):
    def __init__(self, minibatch_size, gradient_batch_size, epochs, save_path):
        super().__init__()
        self._minibatch_size = minibatch_size
        self._gradient_batch_size = gradient_batch_size
        self._epochs = epochs
        self._save_path = save_path

    def _trainable(self):
        return [p for _, p in self._llm_module.named_parameters() if p.requires_grad]

    def perform_update(self, contexts, candidates, _current_batch_ids, **kwargs):
        if not hasattr(self, "optimizer"):
            self.optimizer = torch.optim.Adam(self._trainable(), lr=kwargs["lr"])
        buffer = {k: kwargs[k][_current_batch_ids] for k in ("actions", "advantages", "returns", "logprobs", "values")}
        losses = []
        for _ in range(self._epochs):
            for step in range(ceil(len(contexts) / self._minibatch_size)):
                start = step * self._minibatch_size
                stop = min((step + 1) * self._minibatch_size, len(contexts))
                self.optimizer.zero_grad()
                for first in range(start, stop, self._gradient_batch_size):
                    last = min(first + self._gradient_batch_size, stop)
                    loss = self._loss(contexts, candidates, buffer, first, last) * (last - first) / (stop - start)
                    losses.append(loss.item())
                    loss.backward()
                torch.nn.utils.clip_grad_norm_(self._trainable(), 0.5)
                self.optimizer.step()
        if accelerator.process_index <= 1:  # the first LLM process, in process or launched
            state = OrderedDict(self._llm_module.module.state_dict().items())
            torch.save(state, self._save_path + "/model.checkpoint")
            torch.save(self.optimizer.state_dict(), self._save_path + "/optimizer.checkpoint")
        return {"loss": sum(losses), "process": accelerator.process_index, "world": accelerator.num_processes}

    def _loss(self, contexts, candidates, buffer, first, last):
        output = self._llm_module(
            ["score", "value"],
            contexts=contexts[first:last],
            candidates=candidates[first:last],
            require_grad=True,
            minibatch_size=len(ACTIONS) * self._gradient_batch_size,
        )
        scores = torch.stack([o["score"] for o in output]).squeeze()
        probas = torch.distributions.Categorical(logits=scores.reshape(last - first, -1))
        values = torch.stack([o["value"][0] for o in output]).squeeze(-1)
        log_prob = probas.log_prob(buffer["actions"][first:last])
        ratio = torch.exp(log_prob - buffer["logprobs"][first:last])
        advantages = buffer["advantages"][first:last]
        actor_loss = -torch.min(ratio * advantages, torch.clamp(ratio, 0.8, 1.2) * advantages).mean()
        unclipped = (values - buffer["returns"][first:last]) ** 2
        old = buffer["values"][first:last]
        clipped = (old + torch.clamp(values - old, -0.2, 0.2) - buffer["returns"][first:last]) ** 2
        return actor_loss + 0.5 * torch.max(unclipped, clipped).mean() - 0.01 * probas.entropy().mean()


@hydra.main(config_path="config", config_name="config", version_base=None)
def main(config_args):
    args, llm_args = config_args.rl_script_args, config_args.lamorel_args.llm_args
    kind = (llm_args.model_type, llm_args.pre_encode_inputs)
    lm_server = Caller(
        config_args.lamorel_args,
        custom_updater=PPOUpdater(3, 2, args.epochs, args.output_dir),
        custom_module_functions={"score": LogScoringModuleFn(*kind), "value": ValueHeadModuleFn(*kind)},
        custom_model_initializer=[PeftInitializer(args.target_modules), WeightsLoaderInitializer(args.loading_path)],
    )
    candidates = [ACTIONS for _ in PROMPTS]
    output = lm_server.custom_module_fns(["score", "value"], contexts=PROMPTS, candidates=candidates)
    scores = torch.stack([o["score"] for o in output]).squeeze()
    values = torch.stack([o["value"][0] for o in output]).squeeze(-1)
    distribution = torch.distributions.Categorical(logits=scores)
    actions = torch.tensor([0, 1, 2, 3, 0])
    found = {"scores": scores, "builtin": torch.stack(lm_server.score(PROMPTS, candidates)), "values": values}
    found["first"] = [o["value"].squeeze(-1) for o in output]
    found["updates"] = lm_server.update(
        PROMPTS,
        candidates,
        actions=actions,
        advantages=torch.tensor([1.0, -1.0, 0.5, 2.0, -0.5]),
        returns=torch.tensor([1.0, 0.0, 0.5, 1.0, 0.2]),
        logprobs=distribution.log_prob(actions),
        values=values,
        lr=1e-3,
    )
    output = lm_server.custom_module_fns(["score", "value"], contexts=PROMPTS, candidates=candidates)
    found["after"] = torch.stack([o["score"] for o in output]).squeeze()
    found["process"] = (accelerator.process_index, accelerator.num_processes)
    torch.save(found, Path(args.output_dir) / "results.pt")
    assert os.path.exists(args.output_dir)
    lm_server.close()


if __name__ == "__main__":
    main()
