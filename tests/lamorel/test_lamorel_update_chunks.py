"""How many tokens a forward and backward of an update may have."""

from typing import Any

import pytest
import torch
import transformers
from test_lamorel_checkpoint import CANDIDATES, CONTEXTS
from test_lamorel_updates import Record, Value, losses

from lamorel.packed_causal import PackedCausal
from lamorel.packed_t5 import PackedT5
from lamorel.trie import plan_all
from lamorel.update_chunks import _KEPT, tokens_that_fit

GB = 10**9
T5: dict[str, Any] = {"d_model": 512, "d_ff": 1408, "num_heads": 8, "d_kv": 64, "feed_forward_proj": "gated-gelu"}
T5 |= {"num_layers": 3, "vocab_size": 100, "decoder_start_token_id": 0}
LLAMA: dict[str, Any] = {"hidden_size": 512, "intermediate_size": 1408, "num_attention_heads": 8}
LLAMA |= {"num_hidden_layers": 3, "vocab_size": 100}


def empty(config: transformers.PretrainedConfig, dtype: torch.dtype) -> Any:
    auto = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    with torch.device("meta"):
        return auto.from_config(config, dtype=dtype)


def test_half_of_what_the_model_leaves() -> None:
    """LLaMA-7B's shape, frozen, in 16 bit: 13.5 GB of weights; 56 bytes * 32 layers * 4096 = 7.34 MB a token."""
    model = empty(transformers.LlamaConfig(vocab_size=32000), torch.float16)  # its defaults are those of the 7B model
    model.requires_grad_(False)
    assert sum(p.numel() for p in model.parameters()) == 6_738_415_616
    # (80 GB - 13.477 GB) / 2 = 33.26 GB, over 7.34 MB; (40 - 13.477) / 2 = 13.26 GB would be 1806
    assert tokens_that_fit(model, 80 * GB) == 4531
    assert tokens_that_fit(model, 40 * GB) == 2048
    assert tokens_that_fit(model, 0) == 2048
    assert tokens_that_fit(model, 10_000 * GB) == 32768
    model.requires_grad_(True)  # gradients and Adam's moments: (120 GB - 4 * 13.477 GB) / 2 = 33.05 GB
    assert tokens_that_fit(model, 120 * GB) == 4502


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", [transformers.T5Config(**T5), transformers.LlamaConfig(**LLAMA)])
def test_a_graph_keeps_about_what_is_assumed(config: Any, dtype: torch.dtype) -> None:
    """Of a forward as on a GPU, where attention is one call; weights are not of the graph."""
    auto = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    model = auto.from_config(config, dtype=dtype).eval()
    contexts, tries = (
        [tuple(5 + (i + context) % 90 for i in range(250)) for context in range(8)],
        plan_all([[(5, 6), (5, 7), (8, 9), (10,)]] * 8),
    )
    packed: Any = (
        PackedT5(model, pad_id=0, start_id=0, together=True)
        if config.is_encoder_decoder
        else PackedCausal(model, pad_id=0, together=True)
    )
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # held, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        packed.run(contexts, tries, packed.share(contexts))
    per_token = sum(storage.nbytes() for storage in kept.values()) / 2000
    assumed = _KEPT[config.is_encoder_decoder][dtype.itemsize] * config.num_hidden_layers * config.hidden_size
    assert 0.5 * assumed < per_token < 1.1 * assumed


def test_a_key_and_an_attribute_say_otherwise(t5: Any) -> None:
    sizes = []

    def loss_fn(outputs: Any, weights: torch.Tensor) -> torch.Tensor:
        sizes.append(len(outputs))
        return losses(outputs, weights)

    def act(updater: Record) -> None:
        weights = torch.ones(len(CONTEXTS))
        for updater.tokens_per_chunk in (None, 10_000):
            updater.accumulate(loss_fn, ["__score", "value"], CONTEXTS, CANDIDATES, weights=weights)

    with t5.caller(updater=Record(act), functions={"value": Value()}, tokens_per_chunk=1) as caller:
        caller.update(CONTEXTS, CANDIDATES)
    assert sizes == [1] * len(CONTEXTS) + [len(CONTEXTS)]


def test_running_out_of_memory_names_the_key(t5: Any) -> None:
    def loss_fn(outputs: Any, weights: torch.Tensor) -> torch.Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    def act(updater: Record) -> None:
        updater.accumulate(loss_fn, ["value"], CONTEXTS, CANDIDATES, weights=torch.ones(len(CONTEXTS)))

    with (
        t5.caller(updater=Record(act), functions={"value": Value()}) as caller,
        pytest.raises(torch.cuda.OutOfMemoryError) as error,
    ):
        caller.update(CONTEXTS, CANDIDATES)
    assert error.value.__notes__ == ["lamorel_args.llm_args.tokens_per_chunk is 2048 here: lower it"]
