#!/bin/bash
# TWOSOME with scores per token in VirtualHome, food preparation, 50,000 decisions.
#SBATCH --job-name=twosome_food_preparation_score_token
#SBATCH --array=1-2                 # seeds
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gres=gpu:1
#SBATCH --time=20:00:00
#SBATCH --signal=USR1@600           # seconds before the time limit: longer than an update
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=campaign/logs/%x_%A_%a.log
#GLAM figure: twosome_food_preparation
#GLAM hours: 4
. slurm/environment.sh
srun slurm/launch_lamorel.py experiments/train_language_agent.py \
    "experiment=[twosome_food_preparation,score_token]" rl_script_args.seed="$SLURM_ARRAY_TASK_ID" "$@"
