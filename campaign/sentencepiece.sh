#!/bin/bash
# The sentencepiece model that DRRN reads through, one per seed for all experiments.
#SBATCH --job-name=sentencepiece
#SBATCH --array=1-2                 # seeds
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=campaign/logs/%x_%A_%a.log
#GLAM hours: 0.2
. slurm/environment.sh
srun python experiments/make_sentencepiece.py experiment=q1_drrn rl_script_args.seed="$SLURM_ARRAY_TASK_ID" "$@"
