"""Behavioural cloning of exported trajectories (experiments/clm_behavioral-cloning.py)."""
