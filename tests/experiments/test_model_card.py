"""The card of a checkpoint: what it says, and that the folder is a model that others can load."""

import json
import re

import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from experiments.checkpoint import CheckpointStore
from experiments.model_card import base_model
from experiments.post_training_tests import run_tests
from experiments.results.intervals import wilson
from experiments.train_language_agent import train
from tests.experiments.conftest import make_config
from tests.experiments.test_training import paths_of
from tests.experiments.test_twosome import TOY, TWOSOME, causal, lora


def test_a_glam_run(small):
    train(make_config(small))
    last = paths_of(small).models / "last"
    card = ModelCard.load(last / "README.md")
    assert (card.data.base_model, card.data.library_name, card.data.license) == ("t5", "transformers", None)
    assert card.data.tags == ["reinforcement-learning", "ppo", "glam"]
    for fact in (
        "GLAM (arXiv 2302.02662)",
        "| seed | 1 |",
        "BabyAI-GoToRedBallNoDists-v0",
        "96 frames",
        "heads.safetensors",
    ):
        assert fact in card.text, fact
    assert "Not tested yet" in card.text
    assert AutoModelForSeq2SeqLM.from_pretrained(last).num_parameters() > 0


def test_tests_add_their_results_and_the_checkpoint_stays_complete(small):
    train(make_config(small))
    run_tests(make_config([*small, "rl_script_args.zero_shot=true"]))  # of another agent: not in the card
    run_tests(make_config([*small, "rl_script_args.zero_shot=false"]))
    paths = paths_of(small)
    [result] = paths.logs.glob("test/*/episodes/no_modification_test.json")
    results = json.loads(result.read_text())["results"]
    card = ModelCard.load(paths.models / "last" / "README.md")
    interval = str(wilson(round(results["success_rate"] * results["episodes"]), results["episodes"]))
    assert f"| no_modification_test | english | {results['episodes']} | {interval} |" in card.text
    assert [r.metric_value for r in card.data.eval_results] == [results["success_rate"]]
    assert CheckpointStore(paths.models).newest() == paths.models / "last"


def test_adapters_over_a_base_model_with_a_card(small, tiny_models, tmp_path):
    base = tmp_path / "tiny-llama"
    base.symlink_to(tiny_models / "llama")
    run = [*small, *TOY, *TWOSOME, *causal(base), lora("q_proj", "v_proj")]
    train(make_config(run))
    last = paths_of(run).models / "last"
    card = ModelCard.load(last / "README.md")
    assert (card.data.library_name, card.data.base_model) == ("peft", "llama")
    assert "TWOSOME (arXiv 2401.14151)" in card.text
    assert "adapters (LoRA, r=" in card.text
    code = re.search(r"```python\n(.*?)```", card.text, re.DOTALL).group(1)
    places = {}
    exec(code.replace('"llama"', repr(str(base))).replace('"THIS"', repr(str(last))), places)
    expected = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), last)
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(places["model"](ids).logits, expected(ids).logits)
    assert len(places["tokenizer"]) > 0


def test_name_and_licence_come_from_the_base_models_card(tmp_path):
    assert base_model("google/flan-t5-small") == ("google/flan-t5-small", None)
    folder = tmp_path / "model"
    folder.mkdir()
    assert base_model(str(folder)) == ("model", None)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\nbase_model: someone/something\n---\ntext\n")
    assert base_model(str(folder)) == ("someone/something", "apache-2.0")
