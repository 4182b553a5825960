"""The loss of behavioural cloning is minus what lamorel scores, token for token."""

import json
import math
import shutil

import pytest
import torch
from accelerate import Accelerator
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import AutoModelForSeq2SeqLM, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from experiments.cloning.data import Transitions
from experiments.cloning.learner import Learner, load
from experiments.cloning.loss import CloningLoss
from experiments.cloning.options import parse_arguments
from experiments.tiny_llm.vocabulary import word_level_tokenizer
from lamorel import Caller

# prompts of 6, 13 and 3 tokens, actions of 1, 2 and 5
PROMPTS = ["Goal of the agent: go", "Goal of the agent: go to the red ball Observation 0: wall", "red ball Action"]
ACTIONS = ["drop", "turn left", "go to the red ball"]


@pytest.fixture
def models(tiny_models, tmp_path):
    """t5, llama and gpt2, whose tokenizers would end every text with a special token, and a decoder that begins with
    another token than padding."""
    tokenizer = word_level_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    assert tokenizer("drop")["input_ids"][-1] == 1
    for name in ("t5", "llama"):
        shutil.copytree(tiny_models / name, tmp_path / name)
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=16, n_embd=32, n_layer=1, n_head=2, bos_token_id=1)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    for name in ("t5", "llama", "gpt2"):
        tokenizer.save_pretrained(tmp_path / name)
    for name in ("config", "generation_config"):
        path = tmp_path / "t5" / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"decoder_start_token_id": 7}))
    return tmp_path


def lamorel_scores(folder, prompts, actions, scoring, **texts):
    """Sum of log-likelihoods of the actions, and the number of their tokens, as lamorel gives them."""
    kind = "seq2seq" if folder.name == "t5" else "causal"
    args = {"model_path": str(folder), "model_type": kind, "scoring": scoring, **texts}
    with Caller({"log_level": "warning", "llm_args": args}) as caller:
        outputs = caller.custom_module_fns(["__score", "__tokens"], prompts, [[action] for action in actions])
    return (float(sum(output[key].sum() for output in outputs)) for key in ("__score", "__tokens"))


@pytest.mark.parametrize("scoring", ["reference", "fast"])
@pytest.mark.parametrize("name", ["t5", "llama", "gpt2"])
def test_the_loss_is_minus_lamorels_scores_per_token(models, name, scoring):
    model, encoder, args = load(str(models / name), torch.device("cpu"))
    loss = CloningLoss(model, encoder, args)
    assert [len(ids) for ids in loss.tokens(ACTIONS)] == [1, 2, 5]  # no special token
    score, tokens = lamorel_scores(models / name, PROMPTS, ACTIONS, scoring)
    assert tokens == 8
    found = loss(PROMPTS, ACTIONS)
    assert found.requires_grad
    assert found.item() / tokens == pytest.approx(-score / tokens, rel=2e-6)
    # an untrained model is not far from the uniform distribution over its vocabulary
    assert found.item() / tokens == pytest.approx(math.log(len(encoder.tokenizer)), abs=1.0)


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    """A gpt2 without padding token, whose tokenizer tells " drop" from "drop"."""
    folder = tmp_path_factory.mktemp("byte_level")
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    alphabet = ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=320, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(PROMPTS + [f"{prompt} {action}" for prompt in PROMPTS for action in ACTIONS], trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>").save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=tokenizer.get_vocab_size(), n_positions=128, n_embd=32, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "texts", [{}, {"add_bos": True}, {"candidate_prefix": "space"}, {"add_bos": True, "candidate_prefix": "auto"}]
)
def test_prompts_and_actions_are_those_that_a_policy_of_these_keys_scores(byte_level, tmp_path, texts):
    options = parse_arguments(
        ["--data_dir", "x", "--model_dir", str(byte_level), "--output_dir", str(tmp_path)]
        + [word for key, value in texts.items() for word in ([f"--{key}"] + [value] * (value is not True))],
        None,
    )
    learner = Learner(Accelerator(cpu=True), options, None, steps=1)
    loss = learner.loss
    score, tokens = lamorel_scores(byte_level, PROMPTS, ACTIONS, "reference", **texts)
    assert sum(map(len, loss.tokens(ACTIONS))) == tokens
    found = loss(PROMPTS, ACTIONS).item()
    assert found == pytest.approx(-score, rel=2e-6)
    assert learner.evaluate(Transitions(PROMPTS, ACTIONS)) == pytest.approx(found / tokens, rel=2e-6)
    prompt = loss.encoder.tokenizer(PROMPTS[0]).input_ids
    action = loss.encoder.tokenizer((" " if "candidate_prefix" in texts else "") + ACTIONS[0]).input_ids
    ids = torch.tensor([[0] * texts.get("add_bos", False) + prompt + action])  # <s> is 0
    with torch.no_grad():
        log_p = GPT2LMHeadModel.from_pretrained(byte_level).eval()(ids).logits[0].log_softmax(-1)
    expected = -log_p[-len(action) - 1 : -1].gather(1, torch.tensor(action)[:, None]).sum()
    assert loss(PROMPTS[:1], ACTIONS[:1]).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_loss_is_that_of_hugging_face(tiny_models):
    """Labels of -100 are not counted there, and it begins the decoder with the configured token itself."""
    model, encoder, args = load(str(tiny_models / "t5"), torch.device("cpu"))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_models / "t5")
    tokenizer.padding_side = "right"
    prompts = tokenizer(PROMPTS, padding=True, add_special_tokens=False, return_tensors="pt")
    labels = tokenizer(ACTIONS, padding=True, add_special_tokens=False, return_tensors="pt").input_ids
    labels[labels == tokenizer.pad_token_id] = -100
    theirs = AutoModelForSeq2SeqLM.from_pretrained(tiny_models / "t5").eval()
    expected = theirs(input_ids=prompts.input_ids, attention_mask=prompts.attention_mask, labels=labels).loss
    assert CloningLoss(model, encoder, args)(PROMPTS, ACTIONS).item() / 8 == pytest.approx(expected.item(), rel=2e-6)


def test_padding_does_not_count(tiny_models):
    for name in ("t5", "llama"):
        loss = CloningLoss(*load(str(tiny_models / name), torch.device("cpu")))
        alone = sum(loss([prompt], [action]).item() for prompt, action in zip(PROMPTS, ACTIONS, strict=True))
        assert loss(PROMPTS, ACTIONS).item() == pytest.approx(alone, rel=1e-6)


def test_no_dropout(tiny_models, tmp_path):
    shutil.copytree(tiny_models / "t5", tmp_path / "t5")
    path = tmp_path / "t5" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dropout_rate": 0.5}))
    loss = CloningLoss(*load(str(tmp_path / "t5"), torch.device("cpu")))
    assert loss.model.config.dropout_rate == 0.5
    assert torch.equal(loss(PROMPTS, ACTIONS), loss(PROMPTS, ACTIONS))
