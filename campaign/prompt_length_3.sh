#!/bin/bash
# GFlan-T5 on Go To Local with 3 observations in the prompt, 400,000 frames.
#SBATCH --job-name=prompt_length_3
#SBATCH --array=1-2                 # seeds
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --gres=gpu:4
#SBATCH --time=20:00:00
#SBATCH --signal=USR1@600           # seconds before the time limit: longer than an update
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=campaign/logs/%x_%A_%a.log
#GLAM figure: prompt_length
#GLAM repeats: actions_6
#GLAM hours: 27
. slurm/environment.sh
srun slurm/launch_lamorel.py experiments/train_language_agent.py experiment=prompt_length_3 \
    rl_script_args.seed="$SLURM_ARRAY_TASK_ID" "$@"
