"""Word-level tokenizers: of babyai_text's own vocabulary, English and French, or of what any environment writes."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedTokenizerFast

from babyai_text.description import LANGUAGES
from experiments.agents.random_agent import RandomAgent
from experiments.configuration import RLScriptArgs
from experiments.playing import play_episodes
from experiments.prompters.french_prompter import ACTIONS as FRENCH_ACTIONS
from experiments.prompters.french_prompter import FrenchPrompter
from experiments.prompters.glam_prompter import GlamPrompter

PAD, EOS, UNK, BOS = "<pad>", "</s>", "<unk>", "<s>"
TOKEN = r"[^\W\d]+|\d+|[^\w\s]"  # a word, a number, or a punctuation mark; white space only separates
FIRST_EPISODE = 600_000_000  # of those that are played for their words: far from the numbers of test episodes
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


def word_level_tokenizer(texts: Iterable[str] | None = None) -> PreTrainedTokenizerFast:
    """The tokenizer: ids 0 to 2 are padding, end of sequence and unknown word; one token per word.

    Args:
        texts: whose words it knows, in the place of babyai_text's; it then has a beginning of sequence, id 3, too.
    """
    bos = {} if texts is None else {"bos_token": BOS}
    words = [PAD, EOS, UNK, *bos.values(), *(environment_words() if texts is None else sorted(_words(texts)))]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNK))
    tokenizer.pre_tokenizer = Split(Regex(TOKEN), behavior="removed", invert=True)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, unk_token=UNK, **bos)


def written_texts(rl: RLScriptArgs, episodes: int) -> set[str]:
    """The prompts and actions that the configured environment writes in `episodes` episodes of the random policy."""
    numbers = range(FIRST_EPISODE, FIRST_EPISODE + episodes)
    played = play_episodes(rl, RandomAgent(), numbers, with_transitions=True, label="texts of random episodes")
    states = [transition.view.text for episode in played for transition in episode.transitions]
    return {text for state in states for text in (state.prompt, *state.candidates)}
