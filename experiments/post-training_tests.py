"""Test an agent: python experiments/post-training_tests.py experiment=... (see post_training_tests.py)."""

from experiments.post_training_tests import main

if __name__ == "__main__":
    main()
