"""minigrid's BabyAI bot, the expert of every level."""

from experiments.agents.bot.bot_agent import BotAgent

__all__ = ["BotAgent"]
