"""Whole updates of TWOSOME against the same, written once more with torch, transformers and peft alone."""

import copy
import shutil

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import nn
from transformers import AutoTokenizer, LlamaForCausalLM

import tests.experiments.toy_text_env  # noqa: F401 (registers it)
from experiments.llm_side import open_llm_agent
from tests.experiments.conftest import make_config
from tests.experiments.test_twosome import TOY, TWOSOME, causal, lora

CLIP = 1e-3  # so small that Adam's eps counts: another norm would be seen
ACTOR_LR, CRITIC_LR = 3e-2, 1e-3
UPDATES = [
    "rl_script_args.twosome.critic_warmup_steps=1",  # rounded up to an update
    f"rl_script_args.twosome.actor_lr={ACTOR_LR}",
    f"rl_script_args.twosome.critic_lr={CRITIC_LR}",
    f"rl_script_args.max_grad_norm={CLIP}",
]


@pytest.fixture(scope="module")
def llama(tiny_models, tmp_path_factory):
    """A decoder-only model whose candidates differ by nats: one fresh from its initialisation knows no difference."""
    folder = tmp_path_factory.mktemp("models") / "llama"
    shutil.copytree(tiny_models / "llama", folder)
    model = LlamaForCausalLM.from_pretrained(folder)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, mean=float("norm" in name), std=0.3)
    model.save_pretrained(folder)
    return folder


class PlainTwosome:
    """The method of arXiv 2401.14151 as its released code does it, but for that code's defects.

    Right-padded batches, joint texts, both optimisers stepped by hand, a loop per sample.
    """

    def __init__(self, folder, module, *, target_kl, normalize):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        settings = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        self.model = get_peft_model(LlamaForCausalLM.from_pretrained(folder), settings).eval()
        set_peft_model_state_dict(self.model, copy.deepcopy(get_peft_model_state_dict(module._LLM_model)))
        self.critic = nn.Sequential(
            nn.Linear(32, 1024, bias=False), nn.ReLU(), nn.Linear(1024, 512, bias=False), nn.ReLU(),
            nn.Linear(512, 1, bias=False),
        )  # fmt: skip
        self.critic.load_state_dict(
            {k.removeprefix("mlp."): v for k, v in module._module_functions.value.state_dict().items()}
        )
        self.adapters = [p for p in self.model.parameters() if p.requires_grad]
        self.actor_optimizer = torch.optim.AdamW(self.adapters, lr=0, eps=1e-5, weight_decay=0)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), lr=0, eps=1e-5)
        self.target_kl, self.normalize = target_kl, normalize

    def forward(self, rows):
        """Logits and last hidden states of token ids, right-padded."""
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        outputs = self.model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        return outputs.logits, outputs.hidden_states[-1]

    def encode(self, text):
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def values(self, states):
        rows = [self.encode(state.prompt) for state in states]
        with torch.no_grad(), self.model.disable_adapter():
            hidden = self.forward(rows)[1]
        last = torch.stack([hidden[i, len(row) - 1] for i, row in enumerate(rows)])
        return self.critic(last)[:, 0]

    def policies(self, states):
        """Per state a categorical distribution over its candidates."""
        rows, lengths, words = [], [], []
        for state in states:
            for action in state.candidates:
                full, tail = self.encode(f"{state.prompt} {action}"), self.encode(action)
                assert full[-len(tail) :] == tail
                rows.append(full)
                lengths.append(len(tail))
                words.append(len(action.split()))
        logits = self.forward(rows)[0]
        scores = []
        for row, length, count, of_row in zip(rows, lengths, words, logits, strict=True):
            log_probs = torch.log_softmax(of_row, dim=-1)
            places = range(len(row) - length, len(row))
            scores.append(sum(log_probs[place - 1, row[place]] for place in places) / count)
        sizes = [len(state.candidates) for state in states]
        return [torch.distributions.Categorical(logits=part) for part in torch.stack(scores).split(sizes)]

    def epoch(self, rollout, order, rate, *, actor_learns):
        """One pass over a rollout; returns how many steps the actor took, and whether it was stopped."""
        states = [state for row in rollout.observations for state in row]
        advantages, returns = advantages_of(rollout)
        actions, old_log_probs, old_values = (
            column.flatten() for column in (rollout.actions, rollout.log_probs, rollout.values)
        )
        for samples in np.split(order, 4):
            values = self.values([states[i] for i in samples])
            clipped = old_values[samples] + (values - old_values[samples]).clamp(-0.2, 0.2)
            squares = torch.maximum((values - returns[samples]) ** 2, (clipped - returns[samples]) ** 2)
            self.critic_optimizer.zero_grad()
            (0.25 * squares.mean()).backward()
            step(self.critic_optimizer, list(self.critic.parameters()), rate * CRITIC_LR)
        taken = 0
        for group in np.split(order, 4) if actor_learns else []:
            self.actor_optimizer.zero_grad()
            divergence = 0.0
            for samples in np.split(group, 2):
                a = advantages[samples] if self.normalize == "minibatch" else advantages
                a = (advantages[samples] - a.mean()) / (a.std() + 1e-8)
                a = advantages[samples] if self.normalize == "none" else a
                policies = self.policies([states[i] for i in samples])
                log_ratio = torch.stack([p.log_prob(actions[i]) for p, i in zip(policies, samples, strict=True)])
                log_ratio = log_ratio - old_log_probs[samples]
                ratio = log_ratio.exp()
                surrogate = torch.minimum(ratio * a, ratio.clamp(0.8, 1.2) * a)
                entropies = torch.stack([policy.entropy() for policy in policies])
                ((-surrogate.mean() - 0.01 * entropies.mean()) / 2).backward()
                divergence += (ratio - 1 - log_ratio).mean().item() / 2
            if divergence > self.target_kl:
                return taken, True
            step(self.actor_optimizer, self.adapters, rate * ACTOR_LR)
            taken += 1
        return taken, False


def step(optimizer, parameters, lr):
    norm = torch.nn.utils.clip_grad_norm_(parameters, CLIP)
    assert norm > CLIP
    optimizer.param_groups[0]["lr"] = lr
    optimizer.step()


def advantages_of(rollout):
    """Recursion of GAE with a discount per primitive step and time-outs as terminal, sample by sample; (B,) each."""
    steps, envs = rollout.rewards.shape
    advantages = np.zeros((steps, envs))
    for n in range(envs):
        following, value = 0.0, float(rollout.last_values[n])
        for t in reversed(range(steps)):
            discount = 0.99 ** int(rollout.durations[t, n])
            going_on = 0.0 if rollout.ends[t, n] else 1.0
            delta = float(rollout.rewards[t, n]) + discount * going_on * value - float(rollout.values[t, n])
            following = delta + discount * 0.95 * going_on * following
            advantages[t, n], value = following, float(rollout.values[t, n])
    flat = torch.tensor(advantages, dtype=torch.float32).flatten()
    return flat, flat + rollout.values.flatten()


def assert_same_weights(module, plain):
    adapters, heads = get_peft_model_state_dict(module._LLM_model), module._module_functions.value.mlp.state_dict()
    for found, expected in ((adapters, get_peft_model_state_dict(plain.model)), (heads, plain.critic.state_dict())):
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(
                found[name], tensor, rtol=2e-3, atol=2e-5, msg=lambda text, name=name: name + text
            )


@pytest.mark.parametrize(
    ("target_kl", "epochs", "normalize"), [(0.02, 1, "batch"), (0.005, 1, "minibatch"), (0.01, 2, "none")]
)
def test_updates_against_plain_torch_and_peft(small, llama, target_kl, epochs, normalize):
    """Four updates, the first of them a warm-up; the actor is stopped in some."""
    section = {"target_kl": target_kl, "epochs": epochs, "normalize_advantages": normalize}
    overrides = [*small, *causal(llama), *TOY, *TWOSOME, *UPDATES, lora("q_proj", "v_proj")]
    overrides += [f"rl_script_args.twosome.{key}={value}" for key, value in section.items()]
    with open_llm_agent(make_config(overrides)) as agent:
        module = agent.caller._worker._llm.module
        torch.manual_seed(0)
        for name, parameter in module._LLM_model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.3)  # adapters that can be told from none
        plain = PlainTwosome(llama, module, target_kl=target_kl, normalize=normalize)
        stops = []
        for number, rate in enumerate([1, 1, 2 / 3, 1 / 3]):
            rollout = agent.collect_rollout()
            states = rollout.observations[0]
            torch.testing.assert_close(rollout.values[0], plain.values(states).detach(), rtol=1e-4, atol=1e-5)
            log_probs = [p.log_prob(a) for p, a in zip(plain.policies(states), rollout.actions[0], strict=True)]
            torch.testing.assert_close(rollout.log_probs[0], torch.stack(log_probs).detach(), rtol=1e-3, atol=1e-4)
            orders = copy.deepcopy(agent.order)  # an epoch's order is a permutation out of it
            stats = agent.update(rollout)
            expected, learns = 0, number > 0
            for _ in range(epochs):
                taken, stopped = plain.epoch(rollout, orders.permutation(32), rate, actor_learns=learns)
                expected, learns = expected + 4 + taken, learns and not stopped
            assert stats["gradient_steps"] == expected, number
            stops.append(stats["actor_stopped"])
            assert stops[-1] == (number > 0 and not learns)
            assert number == 0 or stats["first_ratio_error"] < 1e-4
            assert_same_weights(module, plain)
        assert any(stops)
