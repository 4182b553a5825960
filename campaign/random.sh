#!/bin/bash
# The uniformly random policy, without LLM.
# First argument: a training's overlays and a test's (q1_mixed,generalisation).
#SBATCH --job-name=random
#SBATCH --array=1-2                 # seeds
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=1
#SBATCH --time=04:00:00
#SBATCH --signal=USR1@120           # seconds before the time limit
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=campaign/logs/%x_%A_%a.log
#GLAM figure: generalisation q1_mixed,generalisation q1_mixed,generalisation_pickup_seq_pickup
#GLAM figure: generalisation q1_mixed,synonym_actions_1 q1_mixed,french
#GLAM figure: cloning actions_6
#GLAM figure: twosome_tomato_salad twosome_tomato_salad
#GLAM figure: twosome_tomato_lettuce_salad twosome_tomato_lettuce_salad
#GLAM figure: twosome_food_preparation twosome_food_preparation
#GLAM figure: twosome_entertainment twosome_entertainment
#GLAM figure: twosome_crossover twosome_food_preparation twosome_entertainment
#GLAM hours: 0.5
. slurm/environment.sh
srun slurm/launch_lamorel.py experiments/post-training_tests.py \
    "experiment=[${1:-q1_mixed,generalisation},random]" rl_script_args.seed="$SLURM_ARRAY_TASK_ID" "${@:2}"
