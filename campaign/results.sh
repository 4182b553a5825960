#!/bin/bash
# Tables and figures. First argument: how the names of the experiments begin (all of them).
#SBATCH --job-name=results
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=2
#SBATCH --time=01:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=campaign/logs/%x_%j.log
#GLAM figure: sample_efficiency q1_mixed
#GLAM figure: generalisation q1_mixed
#GLAM figure: actions actions
#GLAM figure: distractors distractors
#GLAM figure: input_type input_type
#GLAM figure: model_size model_size
#GLAM figure: pretraining pretraining
#GLAM figure: prompt_length prompt_length
#GLAM figure: policy_evolution policy_evolution
#GLAM figure: cloning actions_6
#GLAM figure: no_distractors zero_shot_no_distractors
#GLAM figure: twosome_tomato_salad twosome_tomato_salad
#GLAM figure: twosome_tomato_lettuce_salad twosome_tomato_lettuce_salad
#GLAM figure: twosome_food_preparation twosome_food_preparation
#GLAM figure: twosome_entertainment twosome_entertainment
#GLAM figure: twosome_crossover twosome_food_preparation twosome_entertainment
#GLAM needs: *
#GLAM hours: 0.1
. slurm/environment.sh
srun python experiments/test_results.py --logs "${GLAM_STORAGE:-storage}"/logs* --runs "${1:-}*" --seeds 1 2 \
    --output "${GLAM_STORAGE:-storage}/results/${1:-all}" "${@:2}"
