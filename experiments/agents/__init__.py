"""The agents: bot and random for comparison, PPO over an LLM."""
