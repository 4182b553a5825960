"""The uniformly random policy."""

from experiments.agents.random_agent.random_agent import RandomAgent

__all__ = ["RandomAgent"]
