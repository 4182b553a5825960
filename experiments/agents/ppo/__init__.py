"""PPO: collect a rollout, compute advantages, update. The formulas are pure functions on tensors beside the agents."""
