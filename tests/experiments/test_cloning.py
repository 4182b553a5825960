"""Runs of behavioural cloning: batches, resuming, folders, and the model that comes out."""

import json
import logging
import math
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from peft import LoraConfig, TaskType, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from experiments.checkpoint import CheckpointStore
from experiments.clm_behavioral_cloning import main
from experiments.cloning import processes
from experiments.cloning import run as run_module
from experiments.cloning.data import read_transitions
from experiments.cloning.learner import Learner, load
from experiments.cloning.options import parse_arguments
from experiments.errors import UserError
from experiments.post_training_tests import run_tests
from experiments.tiny_llm.vocabulary import word_level_tokenizer
from experiments.train_language_agent import train
from lamorel import Caller
from lamorel.config import LamorelConfigError
from tests.experiments.cloning_runs import (
    LEVEL,
    arguments,
    assert_same_run,
    assert_same_weights,
    assert_similar_rows,
    export_bot,
    rows,
    run,
    weights,
)
from tests.experiments.conftest import ROOT, make_config, run_script, script_environment
from tests.experiments.test_training import paths_of


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """150 pairs of the bot in two files."""
    folder = tmp_path_factory.mktemp("trajectories")
    export_bot(folder, 150, 2)
    return folder


@pytest.fixture(scope="module")
def straight(data, tiny_models, tmp_path_factory):
    """Uninterrupted runs by architecture."""
    folder = tmp_path_factory.mktemp("straight")
    for name in ("t5", "llama"):
        run(data, tiny_models / name, folder / name)
    return folder


def scores(folder, model_type, pairs):
    """Minus the mean log-likelihood per token of the actions, as lamorel scores them, one pair at a time."""
    args = {"model_path": str(folder), "model_type": model_type, "scoring": "reference"}
    with Caller({"log_level": "warning", "llm_args": args}) as caller:
        outputs = caller.custom_module_fns(["__score", "__tokens"], pairs.prompts, [[a] for a in pairs.actions])
    return -sum(float(o["__score"].sum()) for o in outputs) / sum(int(o["__tokens"].sum()) for o in outputs)


@pytest.mark.parametrize(("name", "model_type"), [("t5", "seq2seq"), ("llama", "causal")])
def test_a_run(straight, data, tiny_models, name, model_type):
    found = rows(straight / name)
    assert [row["step"] for row in found] == [5, 6, 10, 12]  # 138 pairs, 12 at a time: 11 steps and one of 6 pairs
    assert [row["examples"] for row in found] == [60, 72, 120, 138]
    assert [not math.isnan(row["eval_loss"]) for row in found] == [False, True, False, True]
    assert found[-1]["train_loss"] < 0.6 * found[0]["train_loss"]
    held_out = read_transitions(data, "bot_trajectories", "all")[138:]
    assert len(held_out) == 12
    expected = scores(straight / name, model_type, held_out)
    assert found[-1]["eval_loss"] == pytest.approx(expected, rel=1e-5)
    assert found[-1]["perplexity"] == pytest.approx(math.exp(expected), rel=1e-5)
    assert expected < 0.5 * scores(tiny_models / name, model_type, held_out)
    record = json.loads((straight / name / "cloning.json").read_text())
    assert record["finished"]
    modes = {path.name: path.stat().st_mode & 0o777 for path in (straight / name).iterdir() if path.is_file()}
    assert len(set(modes.values())) == 1, modes  # whoever may read the configuration may read the weights
    assert record["eval_loss"] == found[-1]["eval_loss"]
    assert {path.name for path in (straight / name).iterdir()} == {
        "checkpoints", "cloning.json", "config.json", "generation_config.json", "log.csv", "model.safetensors",
        "run.log", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    loads = AutoModelForSeq2SeqLM if model_type == "seq2seq" else AutoModelForCausalLM
    assert loads.from_pretrained(straight / name).dtype == torch.float32


def test_train_loss_is_the_mean_over_the_tokens_of_its_steps(data, tiny_models, tmp_path):
    """With a learning rate of nearly nothing it is the starting model's loss on the pairs."""
    run(data, tiny_models / "t5", tmp_path / "out", lr=1e-12, log_every=100, eval_every=100)
    learnt = read_transitions(data, "bot_trajectories", "all")[:138]
    [row] = rows(tmp_path / "out")
    assert row["train_loss"] == pytest.approx(scores(tiny_models / "t5", "seq2seq", learnt), rel=1e-5)


def test_the_schedule(data, tiny_models, tmp_path):
    # 96 pairs, 12 at a time: 8 steps, of which a quarter warms up: 0, 1/2, then (1 + cos(pi k / 6)) / 2 for k = 0..5
    changes = {"train_transitions": 96, "eval_transitions": 1, "warmup_share": 0.25, "log_every": 1, "lr": 1e-3}
    run(data, tiny_models / "t5", tmp_path / "out", **changes)
    expected = [0, 0.5, 1, 0.9330127, 0.75, 0.5, 0.25, 0.0669873]
    assert [row["lr"] for row in rows(tmp_path / "out")] == pytest.approx([1e-3 * share for share in expected])


def test_the_only_step_of_a_run_learns(data, tiny_models, tmp_path):
    run(data, tiny_models / "t5", tmp_path / "out", train_transitions=12, eval_transitions=1)
    [row] = rows(tmp_path / "out")
    assert (row["step"], row["lr"]) == (1, 1e-2)
    start = weights(tiny_models / "t5")
    assert any(not torch.equal(tensor, start[name]) for name, tensor in weights(tmp_path / "out").items())


@pytest.mark.parametrize(("size", "accumulation"), [(12, 1), (1, 12)])
def test_accumulated_forwards_are_one_batch(straight, data, tiny_models, tmp_path, size, accumulation):
    out = tmp_path / "out"
    changes = {"per_device_batch_size": size, "gradient_accumulation_steps": accumulation}
    run(data, tiny_models / "llama", out, **changes)
    assert_same_weights(out, straight / "llama", atol=2e-5)
    start = weights(tiny_models / "llama")
    moved = max(float((tensor - start[name]).abs().max()) for name, tensor in weights(out).items())
    assert moved > 1e-2
    assert_similar_rows(out, straight / "llama")


def torchrun(processes, options, *, timeout=300):
    """The script in several CPU processes, as its docstring says."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    return subprocess.run(
        [*command, str(ROOT / "experiments" / "clm_behavioral-cloning.py"), *options],
        env=script_environment(), capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def test_two_processes_are_one(data, tiny_models, tmp_path):
    """133 pairs, 12 at a time: of the last batch, a single pair, one process has nothing."""
    run(data, tiny_models / "t5", tmp_path / "one", train_transitions=133)
    changes = {"per_device_batch_size": 2, "train_transitions": 133}
    done = torchrun(2, arguments(data, tiny_models / "t5", tmp_path / "two", **changes))
    assert done.returncode == 0, done.stderr
    assert "12 gradient steps of 12 pairs (2 per process and forward, 3 forwards, 2 processes)" in done.stderr
    assert done.stderr.count("done: ") == 1  # one process speaks
    assert_same_weights(tmp_path / "two", tmp_path / "one", atol=2e-5)
    assert_similar_rows(tmp_path / "two", tmp_path / "one")


class Killed(BaseException):
    """Stands for kill -9."""


def kill(monkeypatch, target, call, *args, **changes):
    """A run that ends right before so manyth call of a function."""
    home, name = target
    original, count = getattr(home, name), 0

    def counting(*arguments):
        nonlocal count
        count += 1
        if count == call:
            raise Killed
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(home, name, counting)
        with pytest.raises(Killed):
            run(*args, **changes)


STEP = (Learner, "step")


@pytest.mark.parametrize("name", ["t5", "llama"])
def test_a_resumed_run_is_the_uninterrupted_one(straight, data, tiny_models, tmp_path, monkeypatch, caplog, name):
    """Checkpoints fall on steps 3, 6, 9; rows of log.csv on 5, 6, 10, 12, so that sums are carried over."""
    out = tmp_path / "out"
    for step in (2, 6, 3, 2):  # before any checkpoint; in step 6, resumed in 4, killed in 6; resumed at 3, killed at 5
        kill(monkeypatch, STEP, step, data, tiny_models / name, out)
        assert not (out / "config.json").exists()  # not a model yet
    with caplog.at_level(logging.INFO, logger="experiments"):
        run(data, tiny_models / name, out)
    assert "resumed at step 3 from" in caplog.text
    assert_same_run(out, straight / name)


def test_what_a_checkpoint_holds(data, tiny_models, tmp_path, monkeypatch):
    out = tmp_path / "out"
    kill(monkeypatch, STEP, 8, data, tiny_models / "t5", out)
    last = CheckpointStore(out / "checkpoints").newest()
    assert not list(last.rglob("*.pkl")) + list(last.rglob("*.bin"))
    state = torch.load(last / "optimizer.pt", weights_only=True)
    [group] = state["optimizer"]["param_groups"]
    assert (group["weight_decay"], group["betas"], group["initial_lr"]) == (0.0, (0.9, 0.999), 1e-2)
    assert state["schedule"]["last_epoch"] == 6


def test_a_kill_while_the_model_is_put_in_place(straight, data, tiny_models, tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(run_module, "os", SimpleNamespace(replace=os.replace))  # of its five files
    for call in (1, 2, 5):
        kill(monkeypatch, (run_module.os, "replace"), call, data, tiny_models / "t5", out)
        assert not (out / "config.json").exists()
    run(data, tiny_models / "t5", out)
    assert_same_run(out, straight / "t5")


def test_a_run_goes_on_with_the_batch_divided_otherwise(straight, data, tiny_models, tmp_path, monkeypatch):
    out = tmp_path / "out"
    kill(monkeypatch, STEP, 8, data, tiny_models / "t5", out)
    changes = {"per_device_batch_size": 6, "gradient_accumulation_steps": 2, "checkpoint_every": 1}
    run(data, tiny_models / "t5", out, **changes)
    assert_same_weights(out, straight / "t5", atol=2e-5)


def test_a_finished_run_stays_as_it_is(straight, data, tiny_models, tmp_path, caplog):
    out = tmp_path / "out"
    shutil.copytree(straight / "t5", out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != ".lock"}
    with caplog.at_level(logging.INFO, logger="experiments"):
        run(data, tiny_models / "t5", out)
    assert f"{out} is finished: give another --output_dir" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != ".lock"} == before


def test_another_run_does_not_take_the_folder(straight, data, tiny_models, tmp_path):
    out = straight / "t5"
    with pytest.raises(UserError, match=r"\(lr, seed\): give the same values, or another --output_dir\n  lr: was 0.01"):
        run(data, tiny_models / "t5", out, seed=2, lr=1e-3)
    with pytest.raises(UserError, match=r"\(data\.sha256, data\.transitions\)"):
        run(data, tiny_models / "t5", out, file_id="0")
    with pytest.raises(UserError, match=r"candidate_prefix: was 'none', given 'auto'"):
        run(data, tiny_models / "t5", out, candidate_prefix="auto")
    with pytest.raises(UserError, match=r"total_batch: was 12, given 16"):
        run(data, tiny_models / "t5", out, gradient_accumulation_steps=4)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("all of it")
    with pytest.raises(UserError, match=r"--output_dir .*foreign holds thesis\.tex and no cloning\.json"):
        run(data, tiny_models / "t5", foreign)
    assert [path.name for path in foreign.iterdir()] == ["thesis.tex"]
    with pytest.raises(UserError, match=r"--output_dir .*thesis\.tex is a file: give a new folder"):
        run(data, tiny_models / "t5", foreign / "thesis.tex")
    (foreign / "cloning.json").write_text("")
    with pytest.raises(UserError, match=r"foreign/cloning\.json cannot be read .*: put back a copy, or give another"):
        run(data, tiny_models / "t5", foreign)
    with CheckpointStore(tmp_path / "busy" / "checkpoints").locked(), pytest.raises(UserError, match="is in use by"):
        run(data, tiny_models / "t5", tmp_path / "busy")


def test_pairs_that_the_model_cannot_take_are_named(data, tmp_path):
    model = tmp_path / "gpt2"
    tokenizer = word_level_tokenizer()
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=16, n_embd=32, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(model)
    tokenizer.save_pretrained(model)
    message = r"bot_trajectories_prompts_0\.npy\[0\]: contexts\[0\] \(\d+ tokens\) .* GPT2LMHeadModel has 16"
    with pytest.raises(UserError, match=message):
        run(data, model, tmp_path / "out")
    np.save(tmp_path / "bot_trajectories_prompts_0.npy", np.array(["red", "ball"]))
    np.save(tmp_path / "bot_trajectories_actions_0.npy", np.array(["drop", " "]))
    with pytest.raises(UserError, match=r"prompts_0\.npy\[1\]: the action ' ' has no tokens"):
        run(tmp_path, model, tmp_path / "out2")


@pytest.mark.parametrize(("architecture", "kind"), [("t5", "seq2seq"), ("llama", "causal")])
def test_an_adapter_is_merged_and_all_is_trained(tiny_models, tmp_path, architecture, kind):
    loads = AutoModelForSeq2SeqLM if kind == "seq2seq" else AutoModelForCausalLM
    task = TaskType.SEQ_2_SEQ_LM if kind == "seq2seq" else TaskType.CAUSAL_LM
    lora = LoraConfig(task_type=task, r=2, target_modules=["q" if kind == "seq2seq" else "q_proj"])
    model = get_peft_model(loads.from_pretrained(tiny_models / architecture), lora)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=3, generator=torch.Generator().manual_seed(1))
    model.save_pretrained(tmp_path / "adapter")
    word_level_tokenizer().save_pretrained(tmp_path / "adapter")
    pairs = SimpleNamespace(prompts=["Goal of the agent: go to the red ball"] * 2, actions=["turn left", "drop"])

    found, encoder, _ = load(str(tmp_path / "adapter"), torch.device("cpu"))
    assert type(found) is type(loads.from_pretrained(tiny_models / architecture))
    assert all(parameter.requires_grad for parameter in found.parameters())
    found.save_pretrained(tmp_path / "merged")
    encoder.tokenizer.save_pretrained(tmp_path / "merged")
    score = scores(tmp_path / "merged", kind, pairs)
    assert score == pytest.approx(scores(tmp_path / "adapter", kind, pairs), rel=1e-5)
    assert abs(score - scores(tiny_models / architecture, kind, pairs)) > 1e-3


def test_processes_are_as_many_as_the_launcher_promised(data, tiny_models, tmp_path, monkeypatch):
    options = parse_arguments(arguments(data, tiny_models / "t5", tmp_path / "out"), None)
    with monkeypatch.context() as patch:  # what accelerate launch --cpu --num_processes 2 leaves
        patch.setenv("MASTER_ADDR", "127.0.0.1")
        patch.setenv("ACCELERATE_MIXED_PRECISION", "no")
        with pytest.raises(UserError, match=r"asked for several processes and started one: on CPUs use .*torchrun"):
            processes.make_accelerator(options)
    with monkeypatch.context() as patch:
        patch.setenv("WORLD_SIZE", "3")
        patch.setattr(processes, "Accelerator", lambda **_: SimpleNamespace(num_processes=1))
        with pytest.raises(UserError, match="promised WORLD_SIZE=3 processes, but accelerate found 1"):
            processes.make_accelerator(options)


def test_bf16_computes_in_bf16_and_keeps_fp32(straight, data, tiny_models, tmp_path):
    AcceleratorState._reset_state(reset_partial_state=True)  # one precision per process otherwise
    try:
        run(data, tiny_models / "t5", tmp_path / "out", dtype="bf16")
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    assert {tensor.dtype for tensor in weights(tmp_path / "out").values()} == {torch.float32}
    found, expected = rows(tmp_path / "out"), rows(straight / "t5")
    assert found != expected
    assert found[-1]["eval_loss"] == pytest.approx(expected[-1]["eval_loss"], rel=0.02)


def test_options_that_cannot_be_meant(data, tiny_models, tmp_path, capsys):
    for changes, message in (
        ({"epochs": 0}, "--epochs: expected a whole number of at least 1, got '0'"),
        ({"lr": "nan"}, "--lr: expected a positive number, got 'nan'"),
        ({"eval_share": 1}, "--eval_share: expected a share from 0 to below 1, got '1'"),
        ({"file_name": "x"}, "--file_name: invalid choice"),
    ):
        with pytest.raises(SystemExit) as ended:
            parse_arguments(arguments(data, tiny_models / "t5", tmp_path / "out", **changes), None)
        assert ended.value.code == 2
        assert message in capsys.readouterr().err


def test_paths_begin_at_home(data, tiny_models, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    options = parse_arguments(arguments("~/data", tiny_models / "t5", "~/out"), None)
    assert (str(options.data_dir), str(options.output_dir)) == ("/home/me/data", "/home/me/out")


def test_bad_input_is_one_line(data, tiny_models, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["clm", *arguments(data, tmp_path / "nothing", out)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.splitlines()[-1].startswith(f"error: --model_dir: model folder {tmp_path}/nothing does not exist")
    run(data, tiny_models / "t5", out, train_transitions=12)  # the mistake has not taken the folder


def test_a_tokenizer_with_more_tokens_than_the_model(tiny_models, tmp_path):
    folder = shutil.copytree(tiny_models / "llama", tmp_path / "llama")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    size = len(tokenizer)
    tokenizer.add_tokens(["unheard-of"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(LamorelConfigError, match=rf"ids up to {size} \('unheard-of'\), but .* have {size} rows"):
        load(str(folder), torch.device("cpu"))


def test_the_script(data, tiny_models, tmp_path, small):
    """As a user runs it; what it leaves is tested, and trained further."""
    script = "clm_behavioral-cloning.py"
    done = run_script(script, arguments(data, tiny_models / "t5", "out"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "12 gradient steps of 12 pairs (4 per process and forward, 3 forwards, 1 process)" in done.stderr
    out = tmp_path / "out"

    run_tests(make_config([*small, "rl_script_args.im_learning=true", f"rl_script_args.im_path={out}"]))
    folder = paths_of(small).test_folder(LEVEL) / "episodes"
    facts = json.loads((folder / "no_modification_test_im.json").read_text())
    assert facts["agent"] == "cloned"

    further = [*small, f"lamorel_args.llm_args.model_path={out}", "rl_script_args.num_steps=32"]
    train(make_config(further))
    assert (paths_of(further).models / "last" / "manifest.json").exists()


def test_a_clone_is_tested_once_it_is_finished_on_its_own_texts(straight, small, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    record = tmp_path / "clone" / "cloning.json"
    shutil.copytree(straight / "t5", record.parent)
    config = make_config([*small, "rl_script_args.im_learning=true", "rl_script_args.im_path='~/clone'"])
    run_tests(config)

    whole = json.loads(record.read_text())
    record.write_text(json.dumps(whole | {"finished": False}))
    with pytest.raises(UserError, match=r"im_path .*/clone is not finished: let its clm_behavioral-cloning\.py end"):
        run_tests(config)
    record.write_text(json.dumps(whole | {"settings": whole["settings"] | {"candidate_prefix": "space"}}))
    message = r"\(lamorel_args\.llm_args\.candidate_prefix\): .* another rl_script_args\.im_path\n.* was 'space', given"
    with pytest.raises(UserError, match=message):
        run_tests(config)


def test_a_cloned_decoder_only_model_is_tested(straight, small):
    cloned = [f"rl_script_args.im_path={straight / 'llama'}", "lamorel_args.llm_args.model_type=causal"]
    run_tests(make_config([*small, "rl_script_args.im_learning=true", *cloned]))
    episodes = paths_of(small).test_folder(LEVEL) / "episodes" / "no_modification_test_im.csv"
    assert len(episodes.read_text().splitlines()) == 1 + 6
