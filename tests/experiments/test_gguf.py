"""The scripts take a GGUF file wherever they take the folder of a model."""

import pytest

from experiments.llm_side import make_caller, make_policy
from experiments.partial_results import source_of
from experiments.post_training_tests import run_tests
from experiments.train_language_agent import train
from tests.experiments.conftest import make_config
from tests.experiments.test_training import paths_of
from tests.lamorel.conftest import make_tokenizer
from tests.lamorel.tiny_gguf import write_llama

pytest.importorskip("gguf")


@pytest.fixture
def llama(small, tmp_path):
    """Overrides of a short run with a file of a Llama."""
    file = write_llama(tmp_path / "tiny.gguf", make_tokenizer())
    keys = (f"model_path={file}", "model_type=causal")
    return [*small, *(f"lamorel_args.llm_args.{key}" for key in keys), "rl_script_args.num_steps=32"]


def test_training_and_tests(llama):
    train(make_config(llama))
    run_tests(make_config([*llama, "rl_script_args.zero_shot=false"]))
    assert any((paths_of(llama).models / "last").rglob("model.safetensors"))


def test_embeddings_are_copied(llama):
    config = make_config([*llama, "lamorel_args.llm_args.pretrained=false"])
    pretrained = make_config(llama)
    with make_caller(config, make_policy(config.rl)) as one, make_caller(pretrained, make_policy(config.rl)) as other:
        weights = [caller._worker.model.get_input_embeddings().weight for caller in (one, other)]
        assert weights[0].equal(weights[1])


def test_a_file_in_the_place_of_a_cloned_model(llama, tmp_path):
    keys = ("im_learning=true", f"im_path={tmp_path / 'tiny.gguf'}", "zero_shot=true")
    config = make_config([*llama, *(f"rl_script_args.{key}" for key in keys)])
    run_tests(config)
    source = source_of(config, paths_of(llama), "llm", None)
    assert list(source["weights"]) == ["tiny.gguf"]
