"""Word and token scores, worked out by hand for a Llama-like and a GPT-2-like tokenizer (arXiv 2401.14151).

K texts prompt + " " + action; the log-probabilities of the action's tokens in one right-padded forward, summed, over
the number of its tokens or of its words.
"""

import math

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, LlamaConfig, PreTrainedTokenizerFast

from experiments.agents.ppo.action_scores import SCORE_RULES, candidate_outputs
from experiments.agents.ppo.llm_policy import LLMPolicy
from lamorel import Caller
from lamorel.tokenization import TextEncoder

PROMPTS = ["You are hungry. To eat, you should first", "The fridge is open and the milk is cold. You should"]
ACTIONS = [["walk to the fridge", "sit", "grab the cold milk"], ["close the fridge", "walk"]]
WORDS = [[4, 1, 4], [3, 1]]

# in the order of their ranks: what comes first is merged first; "_" is the mark of a word's beginning
MERGES = [
    "_ t", "_t o", "h e", "_t he", "_ w", "a l", "_w al", "_wal k", "_ f", "r i", "_f ri", "d g", "dg e", "_ g",
    "_g r", "_gr a", "_gra b", "_ c", "o l", "_c ol", "_col d", "_ m", "i l", "_m il", "_mil k", "s e",
]  # fmt: skip
# _walk _to _the _fri dge | _ s i t | _grab _the _cold _milk; _c l o se _the _fri dge | _walk
TOKENS = [[5, 4, 4], [7, 1]]


def byte_pairs(mark, characters, special):
    """A BPE model of these characters and `MERGES`."""
    merges = [tuple(merge.replace("_", mark).split()) for merge in MERGES]
    texts = [*special, *characters, *("".join(merge) for merge in merges)]
    return models.BPE(vocab={text: number for number, text in enumerate(dict.fromkeys(texts))}, merges=merges)


def llama_like():
    """SentencePiece as LLaMA's: a space is ▁, one is put before every text, <s> begins it."""
    characters = ["▁", *map(chr, range(33, 127))]
    tokenizer = Tokenizer(byte_pairs("▁", characters, ["<unk>", "<s>", "</s>"]))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.decoder = decoders.Metaspace()
    # a word's mark does not merge backwards, as no merge has it inside
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def gpt2_like():
    """Byte-level BPE as GPT-2's: the space belongs to the word that follows it, none is added, and no <s>."""
    tokenizer = Tokenizer(byte_pairs("Ġ", sorted(pre_tokenizers.ByteLevel.alphabet()), []))
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")


def llama_config(vocabulary):
    return LlamaConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip


def gpt2_config(vocabulary):
    last = vocabulary - 1
    return GPT2Config(vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=4, bos_token_id=last, eos_token_id=last)


@pytest.fixture(scope="module", params=[(llama_like, llama_config), (gpt2_like, gpt2_config)], ids=["llama", "gpt2"])
def folder(request, tmp_path_factory):
    """A model with random weights whose scores differ by nats, and its tokenizer."""
    make_tokenizer, make_config = request.param
    folder = tmp_path_factory.mktemp(make_tokenizer.__name__)
    tokenizer = make_tokenizer()
    model = AutoModelForCausalLM.from_config(make_config(len(tokenizer)))
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, mean=float("norm" in name or ".ln_" in name), std=0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def outputs_of(folder, **llm_args):
    arguments = {"model_type": "causal", "model_path": str(folder), "add_bos": True, "candidate_prefix": "auto"}
    with Caller({"llm_args": {**arguments, **llm_args}}) as caller:
        return caller.custom_module_fns(["__score", "__tokens"], PROMPTS, ACTIONS)


def scores(outputs, rule):
    formula = SCORE_RULES[rule][0]
    return [formula(candidate_outputs(row, texts)) for row, texts in zip(outputs, ACTIONS, strict=True)]


def action_tokens(tokenizer, action):
    """The recipe of the released code, and what it has to be where the tokenizer puts no space of its own."""
    if tokenizer.bos_token is not None:
        return tokenizer(action)["input_ids"][1:]  # alone, without the <s> that begins it
    return tokenizer(f" {action}")["input_ids"]


def test_tokens_and_words_by_hand(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert [[len(action_tokens(tokenizer, action)) for action in group] for group in ACTIONS] == TOKENS
    for prompt, group in zip(PROMPTS, ACTIONS, strict=True):
        for action in group:
            tail = action_tokens(tokenizer, action)
            assert tokenizer(f"{prompt} {action}")["input_ids"][-len(tail) :] == tail
    assert [output["__tokens"].tolist() for output in outputs_of(folder)] == TOKENS
    assert [[len(action.split()) for action in group] for group in ACTIONS] == WORDS


def test_a_space_that_ends_the_prompt_is_the_actions(folder):
    """GLAM's prompts end with "Action 0: ": alone, that space is a token which no text has before a word."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoder = TextEncoder(tokenizer, candidate_prefix="auto")
    prompt, action = f"{PROMPTS[0]}:", ACTIONS[0][0]
    whole = tuple(tokenizer(f"{prompt} {action}", add_special_tokens=False)["input_ids"])
    [[ids]] = encoder.candidates([[action]])
    assert [context + ids for context in encoder.contexts([prompt, f"{prompt} "])] == [whole, whole]
    [published] = TextEncoder(tokenizer).contexts([f"{prompt} "])  # as it is
    assert tokenizer.convert_ids_to_tokens(published)[-2:] in ([":", "▁"], [":", "Ġ"])
    [blank] = encoder.contexts([" "])
    assert blank


def test_scores_of_a_uniform_model_by_hand(folder, tmp_path):
    """Every token has log-probability -log V: per token this, per word n / w times it."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    nn.init.zeros_(model.lm_head.weight)  # GPT-2's embeddings, too
    for saved in (model, tokenizer):
        saved.save_pretrained(tmp_path)
    outputs, one = outputs_of(tmp_path), -math.log(len(tokenizer))
    for rule, shares in {
        "sum": [[5, 4, 4], [7, 1]],
        "token": [[1, 1, 1], [1, 1]],
        "word": [[5 / 4, 4, 1], [7 / 3, 1]],
    }.items():
        for found, share in zip(scores(outputs, rule), shares, strict=True):
            torch.testing.assert_close(found, one * torch.tensor(share, dtype=torch.float32))


def test_scores_against_one_right_padded_forward(folder):
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    texts = [(prompt, action) for prompt, group in zip(PROMPTS, ACTIONS, strict=True) for action in group]
    rows = [tokenizer(f"{prompt} {action}")["input_ids"] for prompt, action in texts]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    with torch.no_grad():
        log_probs = model(input_ids=ids, attention_mask=mask).logits.log_softmax(dim=-1)
    following = log_probs[:, :-1].gather(2, ids[:, 1:, None])[..., 0]  # of each next token
    sums = []
    for of_row, row, (_, action) in zip(following, rows, texts, strict=True):
        end = len(row) - 1
        sums.append(of_row[end - len(action_tokens(tokenizer, action)) : end].sum())
    sums = torch.stack(sums).split([3, 2])
    assert sums[0].max() - sums[0].min() > 1
    for scoring in ("fast", "pairs"):
        outputs = outputs_of(folder, scoring=scoring)
        for rule, counts in {"token": TOKENS, "word": WORDS}.items():
            expected = [of_state / torch.tensor(n) for of_state, n in zip(sums, counts, strict=True)]
            for found, score in zip(scores(outputs, rule), expected, strict=True):
                torch.testing.assert_close(found, score, rtol=0, atol=1e-4)
            policy = LLMPolicy(score_rule=rule).log_probs(outputs, ACTIONS)
            for found, score in zip(policy, expected, strict=True):  # no temperature
                torch.testing.assert_close(found[: len(score)], score.log_softmax(0), rtol=0, atol=1e-4)
