#!/bin/bash
# The trained agent in its level with other words in the prompt, 8 tests.
# First argument: the overlays of its training (q1_mixed).
# DRRN and Symbolic-PPO need no GPU: sbatch --gres=none.
#SBATCH --job-name=generalisation
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
#GLAM figure: generalisation q1_mixed q1_npae q1_drrn q1_symbolic
#GLAM needs: $1
#GLAM hours: 25 1
. slurm/environment.sh
srun slurm/launch_lamorel.py experiments/post-training_tests.py \
    "experiment=[${1:-q1_mixed},generalisation]" rl_script_args.seed="$SLURM_ARRAY_TASK_ID" "${@:2}"
