# What is particular to your cluster: copy to slurm/site.sh (which git ignores) and edit. Batch scripts source it, and
# campaign/submit.py reads it; before calling sbatch yourself do `. slurm/site.sh`.

# Read by sbatch, for every job.
#export SBATCH_ACCOUNT=myproject
#export SBATCH_PARTITION=gpu
#export SBATCH_CONSTRAINT=a100
#export SBATCH_QOS=normal

# For jobs without a GPU, used by campaign/submit.py.
#export GLAM_CPU_ACCOUNT=myproject-cpu
#export GLAM_CPU_PARTITION=cpu
#export GLAM_CPU_QOS=normal

# Where runs write (default: storage/ of the repository). All nodes must see it.
#export GLAM_STORAGE=${GLAM_STORAGE:-$SCRATCH/glam}

# Models: downloaded once on a node with network, then read without.
#export HF_HOME=$SCRATCH/huggingface
#export HF_HUB_OFFLINE=1

# How python gets onto the PATH of a job; without this function it is .venv of the repository, which `make install` makes.
#glam_activate() {
#  module purge
#  module load cuda/12.4 python/3.11
#  . "$HOME/glam/bin/activate" # or: conda activate glam
#}
