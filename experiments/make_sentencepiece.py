"""Make the sentencepiece model that DRRN reads through, from prompts of random and of bot episodes.

    python experiments/make_sentencepiece.py rl_script_args.spm_path=storage/sentencepiece.model \\
        rl_script_args.saving_path_logs=storage/logs rl_script_args.saving_path_model=storage/models

The prompts are those of every kind of level of babyai_text, in English and in French, with every action that has a name
in both, and those of the configured level: one model serves training and all tests. Words that it has never met (the
invented ones of the tests) are read letter by letter, and letters that it has never met as bytes. The same seed and
configuration give the same file; a file that is there is never replaced by another one.
"""

from __future__ import annotations

import dataclasses
import io
import logging
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from babyai_text import LEVELS
from babyai_text.levels import TASKS
from experiments.agents.base_agent import BaseAgent
from experiments.agents.bot import BotAgent
from experiments.agents.random_agent import RandomAgent
from experiments.atomic_files import write_atomically
from experiments.configuration import Config, RLScriptArgs
from experiments.environments import check_environment, takes_task_kind
from experiments.errors import UserError
from experiments.experiment_paths import make_writable_folder
from experiments.hydra_script import hydra_script
from experiments.playing import play_episodes
from experiments.prompters.french_prompter import ACTIONS as FRENCH_ACTIONS

logger = logging.getLogger("glam")

FIRST_EPISODE = 600_000_000  # far from the numbers of test episodes
EPISODES = 3  # of each agent, level, kind of task and language
STEPS = 16  # of an episode at most
LONGEST_PROMPT = 100_000  # bytes; sentencepiece skips what is longer, and its own limit is some 4,000


def make_sentencepiece(config: Config) -> None:
    """Play, train the model and write it to `spm_path`."""
    rl = config.rl
    if not rl.spm_path:
        raise UserError("rl_script_args.spm_path='': give the file to write, e.g. storage/sentencepiece.model")
    target = Path(rl.spm_path).expanduser()
    if target.is_dir():
        raise UserError(f"rl_script_args.spm_path={target} is a folder: give the file to write")
    check_environment(rl)
    make_writable_folder(target.parent, "rl_script_args.spm_path")
    prompts = list(dict.fromkeys(generated_prompts(rl)))
    model = train_sentencepiece(prompts, rl.drrn.vocabulary)
    if target.exists() and target.read_bytes() != model:
        raise UserError(
            f"rl_script_args.spm_path={target} is there and is another file: give another path, or remove it (runs "
            "that read through it cannot go on without it)"
        )
    write_atomically(target, model)
    logger.info("sentencepiece model of %d prompts: %s", len(prompts), target)


def generated_prompts(rl: RLScriptArgs) -> Iterator[str]:
    """Prompts of short episodes, and their candidates."""
    for played, agent in players(rl):
        numbers = range(FIRST_EPISODE, FIRST_EPISODE + EPISODES)
        label = f"{agent.name} in {played.name_environment}"
        for episode in play_episodes(played, agent, numbers, with_transitions=True, label=label):
            for transition in episode.transitions:
                yield transition.prompt
                yield from transition.view.text.candidates


def players(rl: RLScriptArgs) -> Iterator[tuple[RLScriptArgs, BaseAgent]]:
    """The random agent in the configured level; it and the bot in every class of our levels, in both languages."""
    yield dataclasses.replace(rl, max_episode_steps=min(STEPS, rl.max_episode_steps or STEPS)), RandomAgent()
    known = [name.replace(" ", "_") for name in FRENCH_ACTIONS]
    ours = dataclasses.replace(
        rl, prompter="glam", action_space=known, modified_action_space=False, num_dists=8, max_episode_steps=STEPS,
        number_envs=EPISODES, vector_backend="sync", environment_options={},
    )  # fmt: skip
    levels = {level_class: level for level, (level_class, _) in LEVELS.items()}  # without those that differ in options
    for language in ("english", "french"):
        for level in levels.values():
            for kind in TASKS if takes_task_kind(level) else ["per_episode"]:
                for agent in (RandomAgent(), BotAgent()):
                    yield dataclasses.replace(ours, name_environment=level, language=language, task_kind=kind), agent


def train_sentencepiece(texts: Sequence[str], vocabulary: int) -> bytes:
    """A unigram model (Kudo 2018) of at most `vocabulary` pieces; fewer where the texts do not hold that many.

    Every word is a seed. sentencepiece's own seeds are what two different words share, so that in a language of a
    hundred words most of them would be cut.

    Raises:
        UserError: `vocabulary` is too small to hold every letter and byte.
    """
    import sentencepiece
    from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]

    words = Counter(word for text in texts for word in re.findall(r"\w+", text))
    model = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        seeds = Path(folder) / "seeds.tsv"
        seeds.write_text("".join(f"▁{word}\t{count}\n" for word, count in words.items()), encoding="utf-8")
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(texts),
                model_writer=model,
                model_type="unigram",
                vocab_size=vocabulary,
                hard_vocab_limit=False,
                seed_sentencepieces_file=str(seeds),
                character_coverage=1.0,
                byte_fallback=True,
                max_sentence_length=LONGEST_PROMPT,
                num_threads=1,  # sums in one order: the same texts give the same model
                minloglevel=2,
            )
        except RuntimeError as error:
            raise UserError(
                f"rl_script_args.drrn.vocabulary={vocabulary}: sentencepiece refuses it: {error}"
            ) from error
    proto = ModelProto.FromString(model.getvalue())
    proto.trainer_spec.ClearField("seed_sentencepieces_file")  # a path that differs every time
    return proto.SerializeToString(deterministic=True)


main = hydra_script(make_sentencepiece, agent="drrn")

if __name__ == "__main__":
    main()
