#!/bin/bash
# GFlan-T5 with Flan-T5-xl (3 billion parameters) on Go To Local, 400,000 frames; two GPUs for each of 8 copies.
#SBATCH --job-name=model_size_xl
#SBATCH --array=1-2                 # seeds
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=64
#SBATCH --gres=gpu:8
#SBATCH --time=20:00:00
#SBATCH --signal=USR1@1800          # seconds before the time limit: longer than an update
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=campaign/logs/%x_%A_%a.log
#GLAM figure: model_size
#GLAM hours: 104
. slurm/environment.sh
srun slurm/launch_lamorel.py experiments/train_language_agent.py experiment=model_size_xl \
    lamorel_args.llm_args.parallelism.model_parallelism_size=2 rl_script_args.seed="$SLURM_ARRAY_TASK_ID" "$@"
