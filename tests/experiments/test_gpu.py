"""Where there is a GPU: both methods act, learn, resume and are tested there as on the CPU."""

import importlib.util

import numpy as np
import pandas as pd
import pytest
import torch

import tests.experiments.toy_text_env  # noqa: F401 (registers it)
from experiments.llm_side import open_llm_agent
from experiments.post_training_tests import run_tests
from experiments.train_language_agent import train
from tests.experiments.conftest import make_config
from tests.experiments.test_launched import launch
from tests.experiments.test_training import elsewhere, logs_without_time, paths_of
from tests.experiments.test_twosome import GLAM, TOY, TWOSOME, causal, lora

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

GPU, ONE_UPDATE = "machine=gpu", "rl_script_args.num_steps=32"


@pytest.fixture(params=["glam", "twosome"])
def run(request, small, tiny_models):
    """Overrides of a run of each method, on the CPU in fp32."""
    if request.param == "glam":
        return small
    return [*small, *causal(tiny_models / "llama"), *TOY, *TWOSOME, lora("q_proj", "v_proj")]


def assert_close_logs(one, other):
    """The same episodes, and losses equal but for the order in which a GPU adds."""
    pd.testing.assert_frame_equal(logs_without_time(one), logs_without_time(other), rtol=1e-2, atol=1e-3)


def test_a_gpu_does_what_a_cpu_does(run, tmp_path):
    on_gpu, on_cpu = [*run, GPU, ONE_UPDATE], [*elsewhere(run, tmp_path), ONE_UPDATE]
    train(make_config(on_gpu))
    train(make_config(on_cpu))
    assert_close_logs(paths_of(on_gpu), paths_of(on_cpu))
    run_tests(make_config([*on_gpu, "rl_script_args.zero_shot=false"]))
    [returns] = paths_of(on_gpu).logs.rglob("return_per_episode/*.npy")
    assert len(np.load(returns)) == 6


def test_a_resumed_run_goes_on_as_an_uninterrupted_one(run, tmp_path):
    run = [*run, GPU, "rl_script_args.twosome.linear_lr_decay=false"]
    straight = elsewhere(run, tmp_path)
    train(make_config(straight))
    for frames in (32, 96):
        train(make_config([*run, f"rl_script_args.num_steps={frames}"]))
    assert_close_logs(paths_of(run), paths_of(straight))


def test_a_launched_llm_process_takes_the_gpu(small, tmp_path):
    alone = elsewhere([*small, GPU, ONE_UPDATE], tmp_path)
    train(make_config(alone))
    launched = launch("train_language_agent.py", [*small, GPU, ONE_UPDATE], tmp_path)
    assert launched.returncode == 0, launched.stderr
    assert_close_logs(paths_of(small), paths_of(alone))


@pytest.mark.parametrize("frozen", ["dtype=fp16", "dtype=bf16", "load_in_8bit=true", "load_in_4bit=true"])
@pytest.mark.parametrize("method", [TWOSOME, GLAM], ids=["twosome", "glam"])
def test_adapters_in_fp32_learn_over_a_frozen_model_of_fewer_bits(small, tiny_models, method, frozen):
    """A quantised model computes in bf16. What acts is what learns; the frozen weights stay as they are."""
    quantised = frozen.startswith("load")
    if quantised and importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("needs bitsandbytes")
    keys = [f"lamorel_args.llm_args.{frozen}", *(["lamorel_args.llm_args.dtype=bf16"] if quantised else [])]
    config = make_config([*small, *causal(tiny_models / "llama"), *TOY, *method, lora("q_proj", "v_proj"), GPU, *keys])
    with open_llm_agent(config) as agent:
        llm = agent.caller._worker._llm.module._LLM_model
        before = {name: weight.clone() for name, weight in llm.named_parameters()}
        for _ in range(2):
            stats = agent.update(agent.collect_rollout())
            assert stats["first_ratio_error"] < 0.02
            assert np.isfinite(list(stats.values())).all()
        changed = {name for name, weight in llm.named_parameters() if not torch.equal(weight, before[name])}
        assert changed == {name for name in before if "lora_" in name}
        assert {before[name].dtype for name in changed} == {torch.float32}
        assert {weight.device.type for weight in before.values()} == {"cuda"}
