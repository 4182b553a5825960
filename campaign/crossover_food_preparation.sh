#!/bin/bash
# An agent trained on the other household task in food preparation.
# First argument: the overlays of its training (twosome_entertainment).
#SBATCH --job-name=crossover_food_preparation
#SBATCH --array=1-2                 # seeds
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gres=gpu:1
#SBATCH --time=04:00:00
#SBATCH --signal=USR1@120           # seconds before the time limit
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=campaign/logs/%x_%A_%a.log
#GLAM figure: twosome_crossover twosome_entertainment
#GLAM needs: $1
#GLAM hours: 1
. slurm/environment.sh
srun slurm/launch_lamorel.py experiments/post-training_tests.py \
    "experiment=[${1:-twosome_entertainment},crossover_food_preparation]" \
    rl_script_args.seed="$SLURM_ARRAY_TASK_ID" "${@:2}"
