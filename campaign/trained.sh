#!/bin/bash
# The trained agent in its own level.
# First argument: the overlays of its training (actions_6).
# DRRN and Symbolic-PPO need no GPU: sbatch --gres=none.
#SBATCH --job-name=trained
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
#GLAM figure: cloning actions_6
#GLAM figure: twosome_tomato_salad twosome_tomato_salad twosome_tomato_salad,score_token twosome_tomato_salad,score_sum
#GLAM figure: twosome_tomato_salad vector_ppo_tomato_salad
#GLAM figure: twosome_tomato_lettuce_salad twosome_tomato_lettuce_salad
#GLAM figure: twosome_tomato_lettuce_salad vector_ppo_tomato_lettuce_salad
#GLAM figure: twosome_tomato_lettuce_salad twosome_tomato_lettuce_salad,score_token
#GLAM figure: twosome_tomato_lettuce_salad twosome_tomato_lettuce_salad,score_sum
#GLAM figure: twosome_food_preparation twosome_food_preparation
#GLAM figure: twosome_food_preparation vector_ppo_food_preparation
#GLAM figure: twosome_food_preparation twosome_food_preparation,score_token twosome_food_preparation,score_sum
#GLAM figure: twosome_entertainment twosome_entertainment
#GLAM figure: twosome_entertainment vector_ppo_entertainment
#GLAM figure: twosome_entertainment twosome_entertainment,score_token twosome_entertainment,score_sum
#GLAM figure: twosome_crossover twosome_food_preparation twosome_entertainment
#GLAM needs: $1
#GLAM hours: 3 0.2
#GLAM hours of twosome_*: 1      # 100 episodes
. slurm/environment.sh
srun slurm/launch_lamorel.py experiments/post-training_tests.py \
    "experiment=[${1:-actions_6}]" rl_script_args.seed="$SLURM_ARRAY_TASK_ID" "${@:2}"
