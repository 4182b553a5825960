"""The card of a checkpoint: what it says, and that the folder is a model that others can load."""

import json
import re
from types import SimpleNamespace

import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from transformers import AutoModelForCausalLM, T5ForConditionalGeneration

from experiments.checkpoint import CheckpointStore
from experiments.model_card import base_model, refresh_card, write_card
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
    places = run_loading_code(card, {"THIS": last})
    assert isinstance(places["model"], T5ForConditionalGeneration)
    assert len(places["tokenizer"]) > 0


def run_loading_code(card, names):
    """What the card's own code makes, with paths in place of the names in it."""
    code = re.search(r"```python\n(.*?)```", card.text, re.DOTALL).group(1)
    for name, path in names.items():
        code = code.replace(f'"{name}"', repr(str(path)))
    places = {}
    exec(code, places)
    return places


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
    places = run_loading_code(card, {"llama": base, "THIS": last})
    expected = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), last)
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(places["model"](ids).logits, expected(ids).logits)
    assert len(places["tokenizer"]) > 0
    assert base_model(str(last)) == ("llama", None)  # of the weights that it adapts


def test_name_and_licence_of_the_base_model(tmp_path):
    assert base_model("google/flan-t5-small") == ("google/flan-t5-small", None)
    folder = tmp_path / "model-0.5B-instruct"
    folder.mkdir()
    assert base_model(str(folder)) == ("model-0.5B-instruct", None)
    # the card names the model that this one was made from
    (folder / "README.md").write_text("---\nlicense: apache-2.0\nbase_model: someone/model-0.5B\n---\ntext\n")
    assert base_model(str(folder)) == ("model-0.5B-instruct", "apache-2.0")
    for broken in ("---\nno mapping\n---\n", "---\na: [b\n---\n"):
        (folder / "README.md").write_text(broken)
        assert base_model(str(folder)) == ("model-0.5B-instruct", None)
    (tmp_path / "model-0.5B.gguf").touch()
    assert base_model(str(tmp_path / "model-0.5B.gguf")) == ("model-0.5B", None)


def facts(test, success, **rl):
    rl = {"name_environment": "L", "language": "english", "modified_action_space": False, **rl}
    return {"test": test, "config": {"rl_script_args": rl}, "results": {"success_rate": success, "episodes": 10}}


def test_every_test_is_a_result_of_its_own(tmp_path):
    trainer = {
        "progress": {"frames": 1, "episodes": 1, "update": 1},
        "config": {
            # as version 0.3 wrote it
            "rl_script_args": {"seed": 1, "score_rule": "sum", "name_environment": "L", "use_action_heads": True},
            "lamorel_args": {"llm_args": {"model_path": "m", "model_type": "seq2seq", "pretrained": True}},
        },
    }
    tests = [facts("a", 0.5), facts("b", 0.1), facts("a", 0.2, modified_action_space=True)]
    write_card(tmp_path, trainer, "run", tests)
    card = ModelCard.load(tmp_path / "README.md")
    assert [(r.dataset_name, r.metric_value) for r in card.data.eval_results] == [
        ("L, a, english", 0.5),
        ("L, b, english", 0.1),
        ("L, a, renamed actions, english", 0.2),
    ]
    assert "GLAM (arXiv 2302.02662): PPO, action heads |" in card.text


def test_a_damaged_file_of_results_leaves_the_card(tmp_path, caplog):
    checkpoint, paths = tmp_path / "last", SimpleNamespace(logs=tmp_path / "logs", id="run")
    checkpoint.mkdir()
    (checkpoint / "manifest.json").write_text('{"update": 1, "files": {}}')
    (checkpoint / "trainer.json").write_text('{"update": 1}')
    episodes = paths.logs / "test" / "L" / "episodes"
    episodes.mkdir(parents=True)
    (episodes / "a.json").write_text('{"agent"')
    refresh_card(checkpoint, paths)
    assert "could not be refreshed" in caplog.text
