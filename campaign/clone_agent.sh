#!/bin/bash
# Behavioural cloning of the trained agent: one process per GPU, 64 pairs per gradient step.
# First argument: the overlays of the training (actions_6).
#SBATCH --job-name=clone_agent
#SBATCH --array=1-2                 # seeds
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --gres=gpu:4
#SBATCH --time=20:00:00
#SBATCH --signal=USR1@600           # seconds before the time limit
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=campaign/logs/%x_%A_%a.log
#GLAM figure: cloning actions_6
#GLAM needs: export_agent:$1
#GLAM hours: 18
. slurm/environment.sh
srun slurm/launch_accelerate.py experiments/clm_behavioral-cloning.py --gradient_accumulation_steps 1 \
    --file_name trajectories --seed "$SLURM_ARRAY_TASK_ID" --experiment "${1:-actions_6}" "${@:2}"
