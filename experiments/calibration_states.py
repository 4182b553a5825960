"""The states over which an LLM's scores are calibrated: those of a policy that knows nothing."""

from __future__ import annotations

from experiments.agents.random_agent import RandomAgent
from experiments.configuration import RLScriptArgs
from experiments.playing import play_episodes
from experiments.prompters import TextState
from experiments.substitutions import NO_MODIFICATION

EPISODES = range(500_000_000, 500_000_016)  # numbers that no test reaches: they determine the reset seeds
STATES = 256


def calibration_states(rl: RLScriptArgs, test: str = NO_MODIFICATION) -> list[TextState]:
    """At most `STATES` evenly spaced states of episodes of the uniform policy, with a test's wording."""
    played = play_episodes(rl, RandomAgent(), EPISODES, test, with_transitions=True, label="calibration")
    states = [transition.view.text for episode in played for transition in episode.transitions]
    return states[:: -(-len(states) // STATES)]
