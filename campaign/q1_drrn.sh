#!/bin/bash
# DRRN on the mixed tasks, 1.5 million frames.
#SBATCH --job-name=q1_drrn
#SBATCH --array=1-2                 # seeds
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=2
#SBATCH --time=20:00:00
#SBATCH --signal=USR1@600           # seconds before the time limit: longer than an update
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=campaign/logs/%x_%A_%a.log
#GLAM figure: sample_efficiency
#GLAM needs: sentencepiece
#GLAM hours: 6
. slurm/environment.sh
srun slurm/launch_lamorel.py experiments/train_language_agent.py experiment=q1_drrn \
    rl_script_args.seed="$SLURM_ARRAY_TASK_ID" "$@"
