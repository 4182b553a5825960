"""Tiny random models with a byte-level tokenizer, written once per test session. No network."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from lamorel import Caller

CORPUS = ["turn left turn right go forward pick up drop toggle the red ball is two steps ahead of you"] * 4

# Family -> model type, config. Learned positions (GPT-2, BART), rotary ones and relative ones (T5) pad differently.
WIDTHS: dict[str, Any] = {"num_attention_heads": 4, "num_hidden_layers": 2}
FAMILIES: dict[str, tuple[str, Callable[[int], transformers.PretrainedConfig]]] = {
    "t5": ("seq2seq", lambda n: _t5(n, "gated-gelu")),
    "t5-relu": ("seq2seq", lambda n: _t5(n, "relu")),
    "bart": ("seq2seq", lambda n: _bart(n)),
    "llama": ("causal", lambda n: _rotary(transformers.LlamaConfig, n, num_key_value_heads=2)),
    "qwen2": ("causal", lambda n: _rotary(transformers.Qwen2Config, n, num_key_value_heads=2)),
    # A window shorter than the contexts: what leaves it must be forgotten, cached or not.
    "mistral": ("causal", lambda n: _rotary(transformers.MistralConfig, n, num_key_value_heads=2, sliding_window=8)),
    "gpt2": ("causal", lambda n: _gpt2(n)),
}
NO_PAD_TOKEN = {"gpt2"}


def _t5(vocabulary: int, activation: str) -> transformers.PretrainedConfig:
    return transformers.T5Config(
        vocab_size=vocabulary,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        feed_forward_proj=activation,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
        tie_word_embeddings=activation == "relu",  # False: no scaling of the decoder's output
        pad_token_id=3,
        eos_token_id=2,
        decoder_start_token_id=3,
    )


def _bart(vocabulary: int) -> transformers.PretrainedConfig:
    return transformers.BartConfig(
        vocab_size=vocabulary,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=256,
        pad_token_id=3,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_eos_token_id=None,
    )


def _rotary(cls: Any, vocabulary: int, **more: Any) -> transformers.PretrainedConfig:
    ids = {"pad_token_id": 3, "bos_token_id": 1, "eos_token_id": 2}
    return cls(vocab_size=vocabulary, hidden_size=32, intermediate_size=48, **WIDTHS, **ids, **more)


def _gpt2(vocabulary: int) -> transformers.PretrainedConfig:
    return transformers.GPT2Config(
        vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=4, n_positions=256, bos_token_id=1, eos_token_id=2
    )


def make_tokenizer(pad: bool = True) -> Any:
    """Byte-level BPE with a few merges: any text has tokens, words have one to six."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<unk>", "<s>", "</s>", "<pad>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"} | ({"pad_token": "<pad>"} if pad else {})
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def randomise(model: torch.nn.Module, std: float = 0.3) -> None:
    """Weights large enough for candidates to differ by nats, so that a wrong score is seen."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, parameter in model.named_parameters():
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            torch.nn.init.normal_(parameter, mean=centre, std=std)


def pytest_configure(config: pytest.Config) -> None:
    # peft reads the deprecated name on every model that it wraps; nothing here does.
    config.addinivalue_line("filterwarnings", "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@dataclass(frozen=True)
class TinyModel:
    """A model folder, and how to use it."""

    family: str
    model_type: str
    folder: Path

    def config(self, **llm_args: Any) -> dict[str, Any]:
        """`lamorel_args` for this model."""
        return {"llm_args": {"model_type": self.model_type, "model_path": str(self.folder), **llm_args}}

    def caller(self, *, updater: Any = None, functions: Any = None, initializer: Any = None, **llm_args: Any) -> Caller:
        return Caller(self.config(**llm_args), updater, functions, initializer)

    def plain_model(self) -> Any:
        """The same weights, loaded by Hugging Face alone."""
        cls = {"seq2seq": transformers.AutoModelForSeq2SeqLM, "causal": transformers.AutoModelForCausalLM}
        return cls[self.model_type].from_pretrained(self.folder).eval()


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TinyModel]:
    root = tmp_path_factory.mktemp("models")
    made = {}
    for family, (model_type, make_config) in FAMILIES.items():
        tokenizer = make_tokenizer(pad=family not in NO_PAD_TOKEN)
        config = make_config(len(tokenizer))
        cls = transformers.AutoModelForSeq2SeqLM if model_type == "seq2seq" else transformers.AutoModelForCausalLM
        model = cls.from_config(config)
        if family == "t5":  # T5 1.1 as it is published, which transformers does not build from a config
            model.config.tie_word_embeddings = False
            model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
        randomise(model)
        model.save_pretrained(root / family)
        tokenizer.save_pretrained(root / family)
        made[family] = TinyModel(family, model_type, root / family)
    return made


@pytest.fixture(params=list(FAMILIES))
def tiny(request: pytest.FixtureRequest, tiny_models: dict[str, TinyModel]) -> TinyModel:
    """Every family in turn."""
    return tiny_models[request.param]


@pytest.fixture(params=["t5", "llama"])
def tiny_pair(request: pytest.FixtureRequest, tiny_models: dict[str, TinyModel]) -> TinyModel:
    """One encoder-decoder, one decoder-only model."""
    return tiny_models[request.param]


@pytest.fixture
def t5(tiny_models: dict[str, TinyModel]) -> TinyModel:
    return tiny_models["t5"]


@pytest.fixture
def llama(tiny_models: dict[str, TinyModel]) -> TinyModel:
    return tiny_models["llama"]


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
