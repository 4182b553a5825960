"""Train a language model by PPO in a text environment (GLAM), or without one the baseline DRRN.

On a laptop, in one process:
    python experiments/train_language_agent.py experiment=demo
Flan-T5 on one GPU:
    python experiments/train_language_agent.py machine=gpu lamorel_args.llm_args.model_path=google/flan-t5-small \\
        rl_script_args.name_environment=BabyAI-GoToLocal-v0 rl_script_args.number_envs=32 \\
        rl_script_args.num_steps=400000 \\
        rl_script_args.saving_path_logs=storage/logs rl_script_args.saving_path_model=storage/models
One RL process and two LLM processes, on one machine or several (lamorel_launcher/README.md):
    python -m lamorel_launcher.launch --config-path configs --config-name base \\
        rl_script_args.path=experiments/train_language_agent.py experiment=demo \\
        lamorel_args.distributed_setup_args.n_llm_processes=2
DRRN, which reads through a sentencepiece model (experiments/make_sentencepiece.py makes it, with the same options):
    python experiments/train_language_agent.py lamorel_args.distributed_setup_args.n_llm_processes=0 \\
        rl_script_args.spm_path=storage/sentencepiece.model rl_script_args.name_model=drrn \\
        rl_script_args.saving_path_logs=storage/logs rl_script_args.saving_path_model=storage/models
The same command again resumes after any interruption.
"""

from __future__ import annotations

from experiments.agents.drrn.vocabulary import check_sentencepiece_model
from experiments.configuration import Config
from experiments.device import check_gpu
from experiments.environments import check_environment
from experiments.errors import UserError
from experiments.experiment_paths import ExperimentPaths
from experiments.hydra_script import hydra_script
from lamorel import is_llm_process


def train(config: Config) -> None:
    """Train the LLM, or DRRN; resumes where a checkpoint stands."""
    if is_llm_process(config.lamorel):
        serve(config)
        return
    validate(config)
    paths = ExperimentPaths.of(config)
    paths.make_writable()

    from experiments.training_run import run_training

    if config.agent == "drrn":
        from experiments.drrn_side import open_drrn_agent

        run_training(config, paths, open_drrn_agent)
    else:
        from experiments.llm_side import open_llm_agent

        run_training(config, paths, open_llm_agent)


def serve(config: Config) -> None:
    """The part of an LLM process of a launched run: it answers the RL process until that has closed."""
    from experiments.llm_side import make_training_caller

    make_training_caller(config)


def validate(config: Config) -> None:
    """What training needs beyond a valid configuration, checked before torch is imported."""
    if config.rl.bot or config.rl.random_agent:
        name = "bot" if config.rl.bot else "random_agent"
        raise UserError(f"rl_script_args.{name}=true: this agent does not learn, run post-training_tests.py to test it")
    if config.rl.symbolic_ppo:
        raise UserError("rl_script_args.symbolic_ppo=true: train this agent with train_symbolic_ppo.py")
    if config.agent == "drrn":
        check_sentencepiece_model(config.rl)
    check_environment(config.rl)
    from experiments.run_log import check_trackers

    check_trackers(config)
    check_gpu(config)


main = hydra_script(train)

if __name__ == "__main__":
    main()
