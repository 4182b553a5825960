#!/bin/bash
# AFlan-T5 (action heads) on Go To Local, 500,000 frames.
#SBATCH --job-name=pretraining_aflan
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
#GLAM figure: pretraining
#GLAM hours: 34
. slurm/environment.sh
srun slurm/launch_lamorel.py experiments/train_language_agent.py "experiment=[pretraining,aflan]" \
    rl_script_args.seed="$SLURM_ARRAY_TASK_ID" "$@"
