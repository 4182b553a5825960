"""make_tiny_llm.py for environments that write their own prompts."""

import math

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from experiments.errors import UserError
from experiments.make_tiny_llm import make_tiny_llm
from experiments.tiny_llm.vocabulary import word_level_tokenizer, written_texts
from lamorel.tokenization import TextEncoder
from tests.experiments.conftest import make_config

TOY = [
    "rl_script_args.name_environment=ToyKitchen-v0",
    "rl_script_args.env_packages=[tests.experiments.toy_text_env]",
    "rl_script_args.prompter=environment",
    "rl_script_args.tiny_llm.clone_steps=0",
    "rl_script_args.tiny_llm.architecture=llama",
    "lamorel_args.llm_args.model_type=causal",
]


def toy_config(folder, *overrides):
    paths = [f"rl_script_args.saving_path_{kind}={folder / kind}" for kind in ("logs", "model")]
    return make_config([*TOY, *paths, f"lamorel_args.llm_args.model_path={folder / 'tiny'}", *overrides],
                       model_exists=False)  # fmt: skip


def test_its_vocabulary_is_what_the_environment_writes(tmp_path):
    make_tiny_llm(toy_config(tmp_path))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tiny")
    # prompts "Goal of the agent: go to 7", actions "go to 3"; 5 steps x 100 episodes show every one of the 10 dishes
    words = [*map(str, range(10)), ":", "Goal", "agent", "go", "of", "the", "to"]
    assert tokenizer.get_vocab() == {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", "<s>", *words])}
    encoder = TextEncoder(tokenizer, add_bos=True, candidate_prefix="auto")
    ids = tokenizer.get_vocab()
    context = ["<s>", "Goal", "of", "the", "agent", ":", "go", "to", "7"]
    assert encoder.contexts(["Goal of the agent: go to 7"]) == [tuple(ids[word] for word in context)]
    assert encoder.candidates([["go to 3", "eat 3"]]) == [[(ids["go"], ids["to"], ids["3"]), (ids["<unk>"], ids["3"])]]


def test_few_episodes_give_the_words_that_they_show(tmp_path):
    config = toy_config(tmp_path)
    few, many = written_texts(config.rl, 1), written_texts(config.rl, 50)
    assert few < many  # the same episodes come first
    assert all(text.startswith(("Goal of the agent: go to ", "go to ")) for text in many)
    assert set(word_level_tokenizer(few).get_vocab()) < set(word_level_tokenizer(many).get_vocab())


def test_init_scale_multiplies_the_initial_weights(tmp_path):
    spread = {}
    for scale in (1, 5):
        make_tiny_llm(toy_config(tmp_path, f"rl_script_args.tiny_llm.init_scale={scale}"))
        layer = AutoModelForCausalLM.from_pretrained(tmp_path / "tiny").model.layers[0]
        spread[scale] = float(layer.mlp.up_proj.weight.detach().std())
    # 64 x 128 normal weights of standard deviation 0.02: their own deviates by 0.02 / sqrt(2 * 8192), under 0.8%
    assert math.isclose(spread[1], 0.02, rel_tol=0.04)
    assert math.isclose(spread[5], 5 * spread[1], rel_tol=1e-5)  # the same seed, the same draws


def test_only_levels_with_a_bot_can_be_imitated(tmp_path):
    with pytest.raises(UserError, match=r"clone_steps=3: the bot to imitate .* set it to 0 for ToyKitchen-v0"):
        make_tiny_llm(toy_config(tmp_path, "rl_script_args.tiny_llm.clone_steps=3"))
    assert not (tmp_path / "tiny").exists()
