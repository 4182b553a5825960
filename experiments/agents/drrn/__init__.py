"""DRRN, the paper's text baseline: Q-values of (prompt, action) pairs from two recurrent networks."""
