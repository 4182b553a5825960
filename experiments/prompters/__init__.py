"""Prompters turn what an environment says into the prompt and the candidates that the LLM scores."""

from experiments.prompters.base_prompter import Prompter, TextState
from experiments.prompters.factory import make_prompters, prompter_factory, shown_action_names

__all__ = ["Prompter", "TextState", "make_prompters", "prompter_factory", "shown_action_names"]
