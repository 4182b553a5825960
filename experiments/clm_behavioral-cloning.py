"""Behavioural cloning: python experiments/clm_behavioral-cloning.py --help (see clm_behavioral_cloning.py)."""

from experiments.clm_behavioral_cloning import main

if __name__ == "__main__":
    main()
