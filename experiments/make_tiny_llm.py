"""Make a tiny language model on the spot, without network, and warm-start it by cloning the bot.

    python experiments/make_tiny_llm.py experiment=demo

It is written to `lamorel_args.llm_args.model_path`, in Hugging Face format; `rl_script_args.tiny_llm` holds its sizes
and how long it imitates the bot on the configured level. With `tiny_llm.clone_steps=0` the weights stay random.
With `prompter=environment` its vocabulary is what the level writes in `tiny_llm.vocabulary_episodes` random episodes.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from experiments.atomic_files import sync_folder
from experiments.configuration import Config
from experiments.device import check_gpu
from experiments.environments import bot_can_play, check_environment
from experiments.errors import UserError
from experiments.experiment_paths import make_writable_folder
from experiments.hydra_script import hydra_script

logger = logging.getLogger("glam")


def make_tiny_llm(config: Config) -> None:
    """Build, warm-start and save the model; an existing folder is replaced only when the new model is complete."""
    rl, tiny = config.rl, config.rl.tiny_llm
    check_environment(rl)
    if tiny.clone_steps > 0 and not bot_can_play(rl):
        raise UserError(
            f"rl_script_args.tiny_llm.clone_steps={tiny.clone_steps}: the bot to imitate plays BabyAI's levels only, "
            f"set it to 0 for {rl.name_environment}"
        )
    check_gpu(config)
    target = Path(str(config.lamorel.llm_args.model_path)).expanduser()
    if target.exists() and not (target / "config.json").exists():
        raise UserError(f"lamorel_args.llm_args.model_path={target} exists and holds no model: choose another folder")
    make_writable_folder(target.parent, "lamorel_args.llm_args.model_path")

    from experiments.seeding import seed_everything
    from experiments.tiny_llm.cloning import CloningUpdater, bot_demonstrations, clone
    from experiments.tiny_llm.models import ARCHITECTURES, save_tiny_model
    from experiments.tiny_llm.vocabulary import word_level_tokenizer, written_texts
    from lamorel import Caller

    if ARCHITECTURES.get(tiny.architecture) != config.lamorel.llm_args.model_type:
        pairs = ", ".join(f"{name} with {kind}" for name, kind in ARCHITECTURES.items())
        raise UserError(f"rl_script_args.tiny_llm.architecture={tiny.architecture}: model_type must fit, give {pairs}")
    seed_everything(rl)
    demonstrations = bot_demonstrations(rl, tiny.clone_episodes) if tiny.clone_steps > 0 else []
    folder = target.with_name(f".{target.name}.new")
    shutil.rmtree(folder, ignore_errors=True)
    texts = written_texts(rl, tiny.vocabulary_episodes) if rl.prompter == "environment" else None
    save_tiny_model(
        folder, tiny.architecture, d_model=tiny.d_model, layers=tiny.layers, heads=tiny.heads,
        init_scale=tiny.init_scale, seed=rl.seed, tokenizer=word_level_tokenizer(texts),
    )  # fmt: skip
    if demonstrations:
        tree = OmegaConf.merge(config.lamorel_tree, {"llm_args": {"model_path": str(folder)}})
        with Caller(tree, custom_updater=CloningUpdater(tiny.clone_lr)) as caller:
            losses = clone(
                caller, demonstrations, steps=tiny.clone_steps, batch_size=tiny.clone_batch_size, seed=rl.seed
            )
            shutil.rmtree(folder)
            caller.save(str(folder))
        (folder / "optimizer.pt").unlink()  # a model to start from, not a run to resume
        logger.info(
            "warm start: %d pairs, loss %.2f -> %.2f nats per action",
            len(demonstrations), np.mean(losses[:5]), np.mean(losses[-5:]),
        )  # fmt: skip
    sync_folder(folder)
    # renamed, as a kill while it is removed would leave a part of it in its place
    replaced = target.with_name(f".{target.name}.old")
    shutil.rmtree(replaced, ignore_errors=True)
    if target.exists():
        target.rename(replaced)
    folder.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)
    logger.info("tiny %s: %s", tiny.architecture, target)


main = hydra_script(make_tiny_llm, model_exists=False)

if __name__ == "__main__":
    main()
