#!/bin/bash
# TWOSOME without normalisation of scores in Overcooked, tomato-lettuce salad, 500,000 decisions.
#SBATCH --job-name=twosome_tomato_lettuce_salad_score_sum
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
#GLAM figure: twosome_tomato_lettuce_salad
#GLAM hours: 70
. slurm/environment.sh
srun slurm/launch_lamorel.py experiments/train_language_agent.py \
    "experiment=[twosome_tomato_lettuce_salad,score_sum]" rl_script_args.seed="$SLURM_ARRAY_TASK_ID" "$@"
