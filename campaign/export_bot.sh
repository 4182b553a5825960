#!/bin/bash
# What the bot sees and does, 420,000 transitions.
# First argument: the overlays of the training (actions_6).
#SBATCH --job-name=export_bot
#SBATCH --array=1-2                 # seeds
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=1
#SBATCH --time=04:00:00
#SBATCH --signal=USR1@120           # seconds before the time limit
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=campaign/logs/%x_%A_%a.log
#GLAM figure: cloning actions_6
#GLAM hours: 0.5
. slurm/environment.sh
srun slurm/launch_lamorel.py experiments/post-training_tests.py \
    "experiment=[${1:-actions_6},bot,export_trajectories]" rl_script_args.seed="$SLURM_ARRAY_TASK_ID" "${@:2}"
