#!/bin/bash
# What the trained agent sees and does, 420,000 transitions.
# First argument: the overlays of the training (actions_6).
# DRRN and Symbolic-PPO need no GPU: sbatch --gres=none.
#SBATCH --job-name=export_agent
#SBATCH --array=1-2                 # seeds
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gres=gpu:1
#SBATCH --time=20:00:00
#SBATCH --signal=USR1@120           # seconds before the time limit
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=campaign/logs/%x_%A_%a.log
#GLAM figure: cloning actions_6
#GLAM needs: $1
#GLAM hours: 18 0.5
. slurm/environment.sh
srun slurm/launch_lamorel.py experiments/post-training_tests.py \
    "experiment=[${1:-actions_6},export_trajectories]" rl_script_args.seed="$SLURM_ARRAY_TASK_ID" "${@:2}"
