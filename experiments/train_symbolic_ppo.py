"""Train a baseline without an LLM: Symbolic-PPO, which sees the grid's symbols instead of text, in any BabyAI level.

The published sizes, 64 environments x 40 steps per update (rl_script_args.symbolic):
    python experiments/train_symbolic_ppo.py rl_script_args.name_model=symbolic \\
        rl_script_args.name_environment=BabyAI-MixedTrainLocal-v0 rl_script_args.num_steps=1500000 \\
        rl_script_args.saving_path_logs=storage/logs rl_script_args.saving_path_model=storage/models
TWOSOME's baseline, PPO on vectors of numbers instead of text (symbolic.encoder=mlp):
    python experiments/train_symbolic_ppo.py experiment=vector_ppo_TASK
The same command again resumes after any interruption. The test of what it learned takes the same keys:
    python experiments/post-training_tests.py rl_script_args.symbolic_ppo=true ...

It has no LLM: keys of the prompt, of the LLM and of its heads are not read.
"""

from __future__ import annotations

from experiments.configuration import Config
from experiments.device import check_gpu
from experiments.environments import check_environment
from experiments.experiment_paths import ExperimentPaths
from experiments.hydra_script import hydra_script
from lamorel import is_llm_process


def train(config: Config) -> None:
    """Train the network; resumes where a checkpoint stands."""
    if is_llm_process(config.lamorel):  # the launcher started one, and nobody will ask it anything
        return
    validate(config)
    paths = ExperimentPaths.of(config)
    paths.make_writable()

    from experiments.symbolic_side import open_symbolic_agent
    from experiments.training_run import run_training

    run_training(config, paths, open_symbolic_agent)


def validate(config: Config) -> None:
    """What training needs beyond a valid configuration, checked before torch is imported."""
    check_environment(config.rl)
    from experiments.run_log import check_trackers

    check_trackers(config)
    check_gpu(config)


main = hydra_script(train, agent="symbolic")

if __name__ == "__main__":
    main()
