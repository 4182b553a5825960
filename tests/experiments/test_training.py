"""Training end to end with a tiny LLM: what it writes, and that a resumed run is the uninterrupted one."""

import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from experiments.checkpoint import CheckpointStore
from experiments.errors import UserError
from experiments.experiment_paths import ExperimentPaths
from experiments.llm_side import make_caller, make_policy, open_llm_agent
from experiments.post_training_tests import run_tests
from experiments.run_log import COLUMNS
from experiments.train_language_agent import train
from experiments.training_run import TrainingRun
from tests.experiments.conftest import make_config

MEASURED_TIME = ["FPS", "duration"]


def paths_of(overrides):
    return ExperimentPaths.of(make_config(overrides))


def elsewhere(overrides, tmp_path):
    """The same run, writing beside the other."""
    folders = (("saving_path_logs", "other_logs"), ("saving_path_model", "other_models"))
    return [*overrides, *(f"rl_script_args.{key}={tmp_path / name}" for key, name in folders)]


def logs_without_time(paths):
    return pd.read_csv(paths.logs / "log.csv").drop(columns=MEASURED_TIME)


def assert_same_run(one, other):
    """Equal logs (but for measured time), probe probabilities and weights."""
    pd.testing.assert_frame_equal(logs_without_time(one), logs_without_time(other), check_exact=True)
    assert (one.logs / "distrib.csv").read_text() == (other.logs / "distrib.csv").read_text()
    for name in ("model.safetensors", "heads.safetensors"):
        first, second = load_file(one.models / "last" / name), load_file(other.models / "last" / name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first), name


def test_what_a_run_writes(small):
    train(make_config(small))
    paths = paths_of(small)
    log = pd.read_csv(paths.logs / "log.csv")
    assert tuple(log.columns) == COLUMNS
    assert log["update"].tolist() == [1, 2, 3]
    assert log.frames.tolist() == [32, 64, 96]
    # six steps at most: after 8 steps in 4 environments at least 4 episodes have ended
    assert log.episodes.is_monotonic_increasing
    assert log.episodes[0] >= 4
    np.testing.assert_allclose(log.reshaped_return_mean, 20 * log.return_mean)
    assert (log.grad_norm > 0).all()
    assert log.entropy.between(0, math.log(6)).all()

    distrib = pd.read_csv(paths.logs / "distrib.csv")
    assert list(distrib.columns[:3]) == ["update", "frames", "prompt"]
    assert len(distrib) == 3 * 11
    np.testing.assert_allclose(distrib.iloc[:, 3:].sum(axis=1), 1, atol=1e-5)

    assert json.loads((paths.logs / "status.json").read_text()) == {
        "i": 3,
        "num_episodes": int(log.episodes.iloc[-1]),
        "num_frames": 96,
    }
    assert "name_environment: BabyAI-GoToRedBallNoDists-v0" in (paths.logs / "config.yaml").read_text()
    provenance = json.loads((paths.logs / "provenance.json").read_text())
    assert provenance["packages"]["torch"] == torch.__version__
    assert f"{os.cpu_count()} cores" in provenance["machine"]
    events = EventAccumulator(str(paths.logs))
    events.Reload()
    assert [event.step for event in events.Scalars("policy_loss")] == [1, 2, 3]
    assert all(event.value > 0 for event in events.Scalars("approx_kl"))

    last = paths.models / "last"
    AutoModelForSeq2SeqLM.from_pretrained(last)
    assert AutoTokenizer.from_pretrained(last)("turn left", add_special_tokens=False)["input_ids"]
    torch.load(last / "optimizer.pt", weights_only=True)
    assert (paths.models / "backup" / "manifest.json").exists()


def test_the_weights_change_and_the_same_seed_repeats_them(small, tmp_path):
    again = elsewhere(small, tmp_path)
    other_seed = [*again, "rl_script_args.seed=2"]
    for overrides in (small, again, other_seed):
        train(make_config(overrides))
    assert_same_run(paths_of(small), paths_of(again))
    one, two = (load_file(paths_of(o).models / "last" / "model.safetensors") for o in (again, other_seed))
    assert not torch.equal(one["shared.weight"], two["shared.weight"])


def test_a_resumed_run_equals_an_uninterrupted_one(small, tmp_path):
    straight = elsewhere(small, tmp_path)
    train(make_config(straight))
    for frames in (32, 64, 96):  # one update per start, and episodes that span them
        train(make_config([*small, f"rl_script_args.num_steps={frames}"]))
    assert_same_run(paths_of(small), paths_of(straight))
    events = EventAccumulator(str(paths_of(small).logs))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3]


def test_logs_past_the_checkpoint_are_cut_back(small):
    train(make_config([*small, "rl_script_args.num_steps=64"]))
    paths = paths_of(small)
    before = (paths.logs / "log.csv").read_text()
    with (paths.logs / "log.csv").open("a") as file:
        file.write(before.splitlines()[-1].replace("2,", "3,", 1) + "\n4,1,torn")  # written just before a kill
    train(make_config(small))
    assert pd.read_csv(paths.logs / "log.csv")["update"].tolist() == [1, 2, 3]


def test_a_resume_with_another_configuration_is_refused(small):
    train(make_config([*small, "rl_script_args.num_steps=32"]))
    with pytest.raises(UserError, match=r"rl_script_args\.lr.*rl_script_args\.temperature") as error:
        train(make_config([*small, "rl_script_args.lr=1e-4", "rl_script_args.temperature=2"]))
    assert "was 0.001, given 0.0001" in str(error.value)
    train(make_config([*small, "rl_script_args.num_steps=64", "lamorel_args.llm_args.minibatch_size=3"]))


@pytest.mark.parametrize(
    "overrides",
    [
        ["rl_script_args.score_rule=sum"],
        ["rl_script_args.score_rule=token"],
        ["rl_script_args.score_rule=word"],
        ["rl_script_args.score_rule=logits"],
        ["rl_script_args.score_rule=max_scaled", "rl_script_args.temperature=0.5"],
        ["compat=released_code"],
        ["rl_script_args.use_action_heads=true", "rl_script_args.detach_value=true"],
        ["lamorel_args.llm_args.pretrained=false", "rl_script_args.use_action_heads=true"],
        ["lamorel_args.llm_args.pretrained=false", "rl_script_args.load_embedding=false"],
        ["rl_script_args.bootstrap_timeouts=true", "rl_script_args.normalize_advantages=true"],
        ["rl_script_args.language=french", "rl_script_args.walls=all", "rl_script_args.vector_backend=process"],
        ["llama"],
        ["llama", "rl_script_args.use_action_heads=true"],
    ],
    ids=lambda overrides: "+".join(o.split(".")[-1] for o in overrides),
)
def test_the_first_ratio_is_one(small, tiny_models, overrides):
    """Acting and updating see the same policy, for every rule, head and model: ratio 1 on the first minibatch."""
    if "llama" in overrides:
        model = [f"lamorel_args.llm_args.model_path={tiny_models / 'llama'}", "lamorel_args.llm_args.model_type=causal"]
        overrides = [*model, *overrides[1:]]
    config = make_config([*small, *overrides, "rl_script_args.template_test=2"])
    paths = ExperimentPaths.of(config)
    paths.make_writable()
    with TrainingRun(config, paths, open_llm_agent) as run:
        run.resume()
        for _ in range(2):
            rollout = run.agent.collect_rollout()
            stats = run.agent.update(rollout)
            run.record(rollout, stats, seconds=1.0)
            assert stats["first_ratio_error"] < 1e-4
            assert stats["ratio_error"] > 1e-6  # later minibatches differ: the weights did move
            assert stats["gradient_steps"] == 2 * 3


def test_two_runs_of_one_experiment(small):
    """The second refuses, naming the first, before it writes anything."""
    config = make_config(small)
    paths = ExperimentPaths.of(config)
    paths.make_writable()
    with TrainingRun(config, paths, open_llm_agent) as run:
        run.resume()
        with pytest.raises(UserError, match=rf"is in use by another run \(process {os.getpid()} on "):
            train(config)
    train(config)  # closed: free again


def test_target_kl_stops_an_update(small):
    config = make_config([*small, "rl_script_args.target_kl=1e-9"])
    paths = ExperimentPaths.of(config)
    paths.make_writable()
    with TrainingRun(config, paths, open_llm_agent) as run:
        run.resume()
        # the first minibatch has ratio 1 and KL 0 up to rounding, the next ones do not
        assert run.agent.update(run.agent.collect_rollout())["gradient_steps"] < 6


def test_embeddings_alone_are_copied(small, tiny_models):
    config = make_config([*small, "lamorel_args.llm_args.pretrained=false"])
    pretrained = load_file(tiny_models / "t5" / "model.safetensors")
    with make_caller(config, make_policy(config.rl)) as caller:
        model = caller._worker._llm.module._LLM_model
        assert torch.equal(model.get_input_embeddings().weight, pretrained["shared.weight"])
        name = "encoder.block.0.layer.0.SelfAttention.q.weight"
        assert not torch.equal(model.state_dict()[name], pretrained[name])


def test_an_output_head_of_its_own_is_left_alone(small, tiny_models, tmp_path):
    """As in T5 1.1 and Flan-T5, whose embeddings would make scores ten times as large."""
    folder = Path(shutil.copytree(tiny_models / "t5", tmp_path / "t5"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    heads, embeddings = [], []
    for copied in (True, False):
        options = ["pretrained=false", f"model_path={folder}"]
        overrides = [*small, *(f"lamorel_args.llm_args.{option}" for option in options)]
        config = make_config([*overrides, f"rl_script_args.load_embedding={copied}"])
        with make_caller(config, make_policy(config.rl)) as caller:
            state = caller._worker._llm.module._LLM_model.state_dict()
            heads.append(state["lm_head.weight"])
            embeddings.append([state[f"{part}.embed_tokens.weight"] for part in ("encoder", "decoder")])
    pretrained = load_file(folder / "model.safetensors")["shared.weight"]
    assert all(torch.equal(embedding, pretrained) for embedding in embeddings[0])
    assert not any(torch.equal(embedding, pretrained) for embedding in embeddings[1])
    assert torch.equal(*heads)
    assert not torch.equal(heads[0], pretrained)


@pytest.mark.parametrize("backend", ["sync", "process"])
def test_an_environment_that_writes_its_prompt_and_offers_changing_actions(small, tmp_path, backend):
    """Candidates belong to a state; durations reach the discount; the same scripts train, resume and test."""
    toy = [
        *small,
        "rl_script_args.env_packages=[tests.experiments.toy_text_env]",
        "rl_script_args.name_environment=ToyKitchen-v0",
        "rl_script_args.max_episode_steps=null",
        "rl_script_args.prompter=environment",
        "rl_script_args.score_rule=token",
        f"rl_script_args.vector_backend={backend}",
    ]
    straight = elsewhere(toy, tmp_path)
    train(make_config(straight))
    train(make_config([*toy, "rl_script_args.num_steps=32"]))
    config = make_config(toy)
    paths = ExperimentPaths.of(config)
    with TrainingRun(config, paths, open_llm_agent) as run:
        run.resume()
        rollout = run.agent.collect_rollout()
    assert {len(state.candidates) for row in rollout.observations for state in row} == {2, 3, 4}
    chosen = [
        state.action_ids[action]
        for row, actions in zip(rollout.observations, rollout.actions.tolist(), strict=True)
        for state, action in zip(row, actions, strict=True)
    ]
    assert rollout.durations.flatten().tolist() == [2 if dish % 2 == 0 else 1 for dish in chosen]
    train(config)
    one, other = paths_of(toy), paths_of(straight)
    pd.testing.assert_frame_equal(logs_without_time(one), logs_without_time(other), check_exact=True)
    assert not (one.logs / "distrib.csv").exists()  # no fixed action list to follow
    run_tests(make_config([*toy, "rl_script_args.zero_shot=false"]))
    assert len(np.load(one.test_folder("ToyKitchen-v0") / "return_per_episode" / "no_modification_test.npy")) == 6


def test_checkpoints_every_few_updates(small, monkeypatch):
    saved = []
    monkeypatch.setattr(CheckpointStore, "save", lambda self, trainer, *_: saved.append(trainer["update"]))
    train(make_config([*small, "rl_script_args.checkpoint_every=2"]))
    assert saved == [2, 3]  # and the last update, whatever its number


def test_embeddings_come_from_a_bin_file_too(small, tiny_models, tmp_path):
    folder = tmp_path / "bin"
    shutil.copytree(tiny_models / "t5", folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({name: tensor + 1 for name, tensor in weights.items()}, folder / "pytorch_model.bin")
    path = f"lamorel_args.llm_args.model_path={folder}"
    for pretrained in ("true", "false"):
        config = make_config([*small, path, f"lamorel_args.llm_args.pretrained={pretrained}"])
        with make_caller(config, make_policy(config.rl)) as caller:
            embeddings = caller._worker._llm.module._LLM_model.get_input_embeddings().weight
            assert torch.equal(embeddings, weights["shared.weight"] + 1)
