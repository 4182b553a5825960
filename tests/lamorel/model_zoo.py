"""A small random model of every text family that transformers builds from a configuration, and scores to compare."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from lamorel import reference
from lamorel.tokenization import TokenIds
from lamorel.ways import Ways

VOCABULARY = 64
FAMILIES = [("causal", name) for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES] + [
    ("seq2seq", name) for name in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
]
_MOST_PARAMETERS = 16_000_000
_TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}

# Values for the keys that a configuration has.
_SMALL: dict[str, int] = {
    **{"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256},
    **{"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48, "n_positions": 256, "n_ctx": 256, "rotary_dim": 4},
    **{"d_model": 32, "n_layers": 2, "n_heads": 4, "num_layers": 2, "num_heads": 4, "d_kv": 8, "d_ff": 48},
    **{"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4},
    **{"encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "ffn_dim": 48, "num_decoder_layers": 2, "num_encoder_layers": 2},
    **{"num_encoder_attention_heads": 4, "num_decoder_attention_heads": 4, "dim": 32, "hidden_dim": 48},
    # experts
    **{"num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1},
    **{"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "topk_group": 1, "moe_num_experts": 4},
    **{"n_shared_experts": 1, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1},
    **{"expert_ffn_hidden_size": 16, "ffn_hidden_size": 48, "first_k_dense_replace": 1},
    # latent and sparse attention
    **{"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8},
    **{"qk_head_dim": 16, "index_head_dim": 16, "index_n_heads": 2, "index_topk": 8},
    # recurrent layers
    **{
        "linear_head_dim": 8,
        "linear_num_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
    },
    **{"lru_width": 32, "attention_window_size": 16, "attention_hidden_size": 32, "state_size": 8, "time_step_rank": 4},
    **{"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_num_heads": 4, "mamba_head_dim": 16},
    **{"n_groups": 1, "mamba_d_state": 8, "ssm_state_size": 8},
    **{"embedding_size": 32, "word_embed_proj_dim": 32, "vocab_size_per_layer_input": 64},
    **{"hidden_size_per_layer_input": 8},
}

# Keys whose values depend on each other in a way of the family's own.
_MORE: dict[str, dict[str, Any]] = {
    "deepseek_v2": {"num_experts_per_tok": 2},
    "falcon_h1": {"mamba_d_ssm": 64},
    "gemma3n_text": {
        "num_kv_shared_layers": 0,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "activation_sparsity_pattern": [0.0] * 4,
    },
    "gpt_neo": {"num_layers": 2, "attention_types": [[["global", "local"], 1]], "window_size": 16},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 4, "head_dim": 16},
    "ministral": {"head_dim": 8},
    "nemotron": {"num_key_value_heads": 2, "head_dim": 8},
    "zaya": {"num_experts_per_tok": 1},
}
_NOT_SET: dict[str, tuple[str, ...]] = {
    "falcon": ("head_dim",),
    "gpt_neo": ("num_hidden_layers",),
    "prophetnet": ("num_hidden_layers",),
    "xlnet": ("max_position_embeddings",),
    "xlstm": ("head_dim", "qk_head_dim", "v_head_dim"),
}


def make_config(model_type: str, family: str) -> Any:
    """The family's configuration with small values; raises whatever the family raises for them."""
    cls = CONFIG_MAPPING[family]
    default = cls()
    values = _small(default)
    for name in getattr(cls, "sub_configs", None) or {}:
        part = getattr(default, name, None)
        if part is not None and not isinstance(part, Mapping):
            values[name] = _small(part)
    config = cls(**values)
    if model_type == "seq2seq":
        config.decoder_start_token_id = 1
    elif hasattr(config, "is_decoder"):
        config.is_decoder = True
    return config


def make_model(model_type: str, family: str, *, seed: int = 0) -> Any:
    """A random model in eval mode.

    Raises:
        ValueError: it has too many parameters for a test, whatever its configuration says.
    """
    config = make_config(model_type, family)
    auto = transformers.AutoModelForSeq2SeqLM if model_type == "seq2seq" else transformers.AutoModelForCausalLM
    with torch.device("meta"):
        size = sum(p.numel() for p in auto.from_config(copy.deepcopy(config)).parameters())
    if size > _MOST_PARAMETERS:
        raise ValueError(f"{size} parameters")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = auto.from_config(config).eval()
        randomise(model)
    return model


def randomise(model: torch.nn.Module, std: float = 0.3) -> None:
    """Weights large enough for a wrong score to show; those of a recurrence stay stable."""
    for name, weight in model.named_parameters():
        recurrent = any(part in name for part in ("A_log", "dt_bias", "time_decay", "rg_lru"))
        if weight.is_floating_point() and (not recurrent or name.endswith("weight")):
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            torch.nn.init.normal_(weight, mean=centre, std=std)


def _small(config: Any) -> dict[str, Any]:
    more = _MORE.get(config.model_type, {})
    hidden = {*_NOT_SET.get(config.model_type, ()), *more}
    values = dict(_SMALL)
    if hasattr(config, "qk_rope_head_dim"):  # latent attention: a head's width follows from its parts
        hidden.add("head_dim")
        values["num_key_value_heads"] = 4
    tokens = {name: value for name, value in _TOKENS.items() if hasattr(config, name)}
    return {name: v for name, v in values.items() if name not in hidden and _is_number(config, name)} | tokens | more


def _is_number(config: Any, name: str) -> bool:
    value = getattr(config, name, None)
    return isinstance(value, int) and not isinstance(value, bool)


def tokens(count: int, first: int) -> TokenIds:
    return tuple(3 + (first + 7 * i) % (VOCABULARY - 4) for i in range(count))


CONTEXTS = [tokens(70, 1), tokens(5, 2), tokens(55, 3), tokens(21, 4)]
CANDIDATES = [
    [tokens(2, 9), tokens(1, 11), tokens(4, 9)],
    [tokens(2, 5), tokens(3, 5)],
    [tokens(1, 8)],
    [tokens(2, 9), (), tokens(6, 13)],
]


def expected_scores(model: Any) -> list[torch.Tensor]:
    """By one forward each, in a model that has seen nothing before."""
    fresh = copy.deepcopy(model)
    scores = []
    for context, group in zip(CONTEXTS, CANDIDATES, strict=True):
        parts = [reference.token_scores(copy.deepcopy(fresh), [context], [[candidate]])[0] for candidate in group]
        scores.append(torch.cat(parts))
    return scores


def score(ways: Ways, contexts: Sequence[TokenIds], candidates: Sequence[Sequence[TokenIds]]) -> list[torch.Tensor]:
    scores = [torch.empty(0)] * len(contexts)
    shared = ways.share(contexts, adapters=[True])
    for chunk in ways.chunks(contexts, candidates, tokens=None, rows=16):
        groups = [candidates[i] for i in chunk]
        found = ways.scores([contexts[i] for i in chunk], groups, rows=16, shared=shared)[0].logprob
        for i, part in zip(chunk, found.split([sum(map(len, group)) for group in groups]), strict=True):
            scores[i] = part
    return scores


@torch.no_grad()
def largest_difference(model: Any, ways: Ways) -> float:
    """In nats, of contexts scored together, one at a time, and together once more in another order."""
    expected = expected_scores(model)
    found = [score(ways, CONTEXTS, CANDIDATES)]
    found.append([score(ways, [c], [g])[0] for c, g in zip(CONTEXTS, CANDIDATES, strict=True)])
    found.append(score(ways, CONTEXTS[::-1], CANDIDATES[::-1])[::-1])
    return max((a - b).abs().max().item() for scores in found for a, b in zip(scores, expected, strict=True))
