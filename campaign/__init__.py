"""Campaigns of the paper's experiments on a SLURM cluster."""
