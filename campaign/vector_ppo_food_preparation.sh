#!/bin/bash
# PPO on the observation vector in VirtualHome, food preparation, 50,000 decisions.
#SBATCH --job-name=vector_ppo_food_preparation
#SBATCH --array=1-2                 # seeds
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=2
#SBATCH --time=04:00:00
#SBATCH --signal=USR1@600           # seconds before the time limit: longer than an update
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=campaign/logs/%x_%A_%a.log
#GLAM figure: twosome_food_preparation
#GLAM hours: 0.1
. slurm/environment.sh
srun slurm/launch_lamorel.py experiments/train_symbolic_ppo.py experiment=vector_ppo_food_preparation \
    rl_script_args.seed="$SLURM_ARRAY_TASK_ID" "$@"
