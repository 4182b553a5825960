"""The workload of the scoring benchmarks: models from config with random weights, prompts of known length, heads.

Shapes are those of Flan-T5-small, -large and -xl, of a small Llama, Llama-1B and LLaMA-7B, of a small GPT-2, and tiny
ones for tests of the scripts. Prompts look like GLAM's (possible actions, goal, three observations of some sentences)
and have an exact number of tokens, because the tokenizer takes a word for a token.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from lamorel import BaseModuleFunction, BaseUpdater

CANDIDATES = ["turn left", "turn right", "go forward", "pick up", "drop", "toggle"]
HEAD = (
    "The possible actions of the agent : turn left , turn right , go forward , pick up , drop , toggle . "
    "Goal of the agent : go to the"
)
HEAD_TOKENS = 31
TAIL = "Action 3 :"
COLOURS = ["red", "green", "blue", "purple", "yellow", "grey"]
THINGS = ["ball", "box", "key", "door"]
NUMBERS = ["1", "2", "3", "4", "5", "6"]
SENTENCES = [
    "You see a {colour} {thing} {number} steps left and {number} steps forward .",
    "You see a {colour} {thing} {number} steps right .",
    "You see a wall {number} steps forward .",
    "You see an open {colour} door {number} steps right and {number} steps forward .",
    "You carry a {colour} {thing} .",
    "Action {number} : go forward . Observation {number} :",
]
SHORTEST, LONGEST = 150, 320  # tokens of a prompt
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def _t5(d_model: int, layers: int, heads: int, d_kv: int, d_ff: int, vocabulary: int) -> transformers.T5Config:
    return transformers.T5Config(
        vocab_size=vocabulary,
        d_model=d_model,
        num_layers=layers,
        num_heads=heads,
        d_kv=d_kv,
        d_ff=d_ff,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )


def _llama(hidden: int, layers: int, heads: int, kv_heads: int, inner: int, vocabulary: int) -> Any:
    return transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=inner,
        max_position_embeddings=2048,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=3,
    )


def _gpt2(hidden: int, layers: int, heads: int, vocabulary: int) -> transformers.GPT2Config:
    ids: dict[str, Any] = {"bos_token_id": 3, "eos_token_id": 1}
    return transformers.GPT2Config(vocab_size=vocabulary, n_embd=hidden, n_layer=layers, n_head=heads, **ids)


# size -> model -> its config
SHAPES: dict[str, dict[str, Callable[[], transformers.PretrainedConfig]]] = {
    "tiny": {
        "t5": lambda: _t5(32, 2, 4, 8, 48, 512),
        "llama": lambda: _llama(32, 2, 4, 4, 48, 512),
        "gpt2": lambda: _gpt2(32, 2, 4, 512),
    },
    "small": {
        "t5": lambda: _t5(512, 8, 6, 64, 1024, 32128),
        "llama": lambda: _llama(512, 8, 8, 8, 1376, 32000),
        "gpt2": lambda: _gpt2(512, 8, 8, 50257),
    },
    "large": {
        "t5": lambda: _t5(1024, 24, 16, 64, 2816, 32128),
        "llama": lambda: _llama(2048, 16, 32, 8, 8192, 128256),
    },
    "xl": {
        "t5": lambda: _t5(2048, 24, 32, 64, 5120, 32128),
        "llama": lambda: _llama(4096, 32, 32, 32, 11008, 32000),
    },
}


def write_model(folder: Path, model: str, size: str, dtype: str, tokenizer: Any = None, device: str = "cpu") -> None:
    """Model with random weights, drawn on `device`, and a tokenizer, `make_tokenizer`'s or the given one, in Hugging
    Face format."""
    config = SHAPES[size][model]()
    auto = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    torch.manual_seed(0)
    with torch.device(device):
        made = auto.from_config(config, dtype=DTYPES[dtype])
    if model == "t5":
        # An untied T5 head starts with weights of 1, hence logits of 20 to 80 and rounding errors to match; trained
        # heads give logits of about 1, as this does.
        torch.nn.init.normal_(made.lm_head.weight, std=config.d_model**-0.5)
    made.save_pretrained(folder)
    (tokenizer or make_tokenizer()).save_pretrained(folder)


def make_tokenizer() -> Any:
    """One token per word or sign; the ids are the first of the model's vocabulary, the rest of it is never used."""
    text = " ".join([HEAD, TAIL, *CANDIDATES, *SENTENCES, *COLOURS, *THINGS, *NUMBERS, "Observation", "0"])
    words = sorted({word for word in text.split() if not word.startswith("{")})
    special = ["<pad>", "</s>", "<unk>", "<s>"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(special + words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names: dict[str, Any] = dict(zip(("pad_token", "eos_token", "unk_token", "bos_token"), special, strict=True))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def make_prompts(count: int, seed: int = 0) -> list[str]:
    """Prompts of 150 to 320 tokens, evenly spread, in random order; every seed has the same lengths, other texts."""
    lengths = [SHORTEST + round(i * (LONGEST - SHORTEST) / max(1, count - 1)) for i in range(count)]
    random.Random(0).shuffle(lengths)
    draw = random.Random(seed)
    return [_prompt(length, COLOURS[i % len(COLOURS)], draw) for i, length in enumerate(lengths)]


def _prompt(tokens: int, goal: str, draw: random.Random) -> str:
    words = [*HEAD.split(), goal, draw.choice(THINGS), ".", "Observation", "0", ":"]
    tail = TAIL.split()
    while len(words) < tokens - len(tail):
        sentence = draw.choice(SENTENCES).split()
        options = {"{colour}": COLOURS, "{thing}": THINGS, "{number}": NUMBERS}
        words += [draw.choice(options[word]) if word in options else word for word in sentence]
    return " ".join(words[: tokens - len(tail)] + tail)


class Value(BaseModuleFunction):
    """A value head as GLAM's: an MLP on the root position."""

    context_only = True

    def initialize(self) -> None:
        hidden = self.llm_config.hidden_size
        self.mlp = torch.nn.Sequential(
            torch.nn.Linear(hidden, 1024),
            torch.nn.Sigmoid(),
            torch.nn.Linear(1024, 1024),
            torch.nn.Sigmoid(),
            torch.nn.Linear(1024, 1),
        ).to(self.device)

    def forward(self, forward_outputs: Any, minibatch: Any, tokenized_contexts: Any, **kwargs: Any) -> torch.Tensor:
        layers = forward_outputs["decoder_hidden_states" if self.llm_config.is_encoder_decoder else "hidden_states"]
        return self.mlp(layers[-1][:, 0].float())


def ppo_losses(
    outputs: list[dict[str, torch.Tensor]],
    actions: torch.Tensor,
    old_logp: torch.Tensor,
    advantages: torch.Tensor,
    returns: torch.Tensor,
) -> torch.Tensor:
    """PPO's clipped loss per sample (n,), with value loss and entropy bonus; all rows are (n,)."""
    logp = torch.stack([output["__score"] for output in outputs]).log_softmax(dim=-1)
    value = torch.stack([output["value"] for output in outputs]).flatten()
    ratio = (logp.gather(1, actions[:, None])[:, 0] - old_logp).exp()
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
    entropy = -(logp.exp() * logp).sum(dim=-1)
    return -surrogate + 0.5 * (value - returns) ** 2 - 0.01 * entropy


class Updater(BaseUpdater):
    """Forward and backward of the PPO loss; no optimizer step, so that every repetition sees the same weights."""

    def perform_update(self, contexts: Any, candidates: Any, _current_batch_ids: Any, **kwargs: Any) -> float:
        for parameter in self._llm_module.parameters():
            parameter.grad = None
        rows = {name: row[_current_batch_ids] for name, row in kwargs.items()}
        losses = self.accumulate(ppo_losses, ["__score", "value"], contexts, candidates, **rows)
        return losses.mean().item()


def ppo_rows(count: int) -> dict[str, torch.Tensor]:
    """What an update needs beside the texts: tensors (count,)."""
    generator = torch.Generator().manual_seed(0)
    return {
        "actions": torch.randint(len(CANDIDATES), (count,), generator=generator),
        "old_logp": torch.full((count,), -1.8),
        "advantages": torch.randn(count, generator=generator),
        "returns": torch.rand(count, generator=generator),
    }


def lamorel_args(folder: Path, *, causal: bool, dtype: str, gpu: bool, **llm_args: Any) -> dict[str, Any]:
    """The configuration a user would write for this model."""
    known = {"model_type": "causal" if causal else "seq2seq", "model_path": str(folder), "minibatch_size": 192}
    llm = known | {"dtype": dtype, "parallelism": {"use_gpu": gpu}} | llm_args
    return {"log_level": "warning", "llm_args": llm}
