#!/bin/bash
# PPO on the observation vector in VirtualHome, entertainment, 200,000 decisions.
#SBATCH --job-name=vector_ppo_entertainment
#SBATCH --array=1-2                 # seeds
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=2
#SBATCH --time=04:00:00
#SBATCH --signal=USR1@600           # seconds before the time limit: longer than an update
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=campaign/logs/%x_%A_%a.log
#GLAM figure: twosome_entertainment
#GLAM hours: 0.2
. slurm/environment.sh
srun slurm/launch_lamorel.py experiments/train_symbolic_ppo.py experiment=vector_ppo_entertainment \
    rl_script_args.seed="$SLURM_ARRAY_TASK_ID" "$@"
