#!/bin/bash
# Any model as it is, without distractors; another than Flan-T5-large by overrides (docs/reproduction.md).
#SBATCH --job-name=zero_shot_no_distractors
#SBATCH --array=1-2                 # seeds
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gres=gpu:1
#SBATCH --time=10:00:00
#SBATCH --signal=USR1@120           # seconds before the time limit
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=campaign/logs/%x_%A_%a.log
#GLAM figure: no_distractors
#GLAM hours: 4
. slurm/environment.sh
srun slurm/launch_lamorel.py experiments/post-training_tests.py experiment=zero_shot_no_distractors \
    rl_script_args.seed="$SLURM_ARRAY_TASK_ID" "$@"
