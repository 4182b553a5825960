"""A word-level tokenizer made from the environment's own vocabulary, English and French."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedTokenizerFast

from babyai_text.description import LANGUAGES
from experiments.prompters.french_prompter import ACTIONS as FRENCH_ACTIONS
from experiments.prompters.french_prompter import FrenchPrompter
from experiments.prompters.glam_prompter import GlamPrompter

PAD, EOS, UNK = "<pad>", "</s>", "<unk>"
TOKEN = r"[^\W\d]+|\d+|[^\w\s]"  # a word, a number, or a punctuation mark; white space only separates
LONGEST_DISTANCE = 40  # steps; the longest that the largest level can show

MISSION_WORDS = (
    "go to pick up open put next then after you the a in front of behind on your left right object "
    "aller à attraper ouvrir mettre côté de puis après avoir fait la une"
)
# what the generalisation tests put in place of nouns, adjectives, actions and headers (paper, section 4.2)
SUBSTITUTES = (
    "chair table car vermilion jade cyan violet golden silver dax xolo afze faze jatu croh vurst gakul sil I would "
    "like the agent to You have to rotate shift move ahead take release switch turn eat dance sleep do nothing cut "
    "think chaise voiture mauve dorée argent Je veux que l'agent fasse Tu dois faire"
)


def environment_words() -> list[str]:
    """Every word, number and mark that a prompt or an action can hold, sorted."""
    texts: list[str] = [MISSION_WORDS, SUBSTITUTES, ", : .", " ".join(map(str, range(LONGEST_DISTANCE + 1)))]
    for language in LANGUAGES.values():
        texts += [
            re.sub(r"\{\w+\}", "", form) for form in (language.held, language.wall, language.thing, language.door)
        ]
        texts += [language.sides_and_ahead.replace("{side}", "").replace("{ahead}", "")]
        texts += [*language.steps, language.forward, language.left, language.right, *language.states]
        texts += [*language.types.values(), *language.colors.values()]
    for prompter in (GlamPrompter, FrenchPrompter):
        texts += [prompter.actions_header, prompter.goal_header]
    texts += ["Observation Action turn left turn right go forward pick up drop toggle", *FRENCH_ACTIONS.values()]
    return sorted(_words(texts))


def _words(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in re.findall(TOKEN, text)}


def word_level_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer: ids 0 to 2 are padding, end of sequence and unknown word; one token per word."""
    words = [PAD, EOS, UNK, *environment_words()]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNK))
    tokenizer.pre_tokenizer = Split(Regex(TOKEN), behavior="removed", invert=True)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, unk_token=UNK)
