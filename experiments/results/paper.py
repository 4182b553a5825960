"""The numbers of the GLAM paper (arXiv 2302.02662) that our tables stand beside.

Read off its figures and text. What could not be read there (per-task rates, the intervals' lengths, the cloning table,
the curves by model size) is left out, never guessed. All are of Flan-T5-large, 32 environments, two seeds.
"""

from __future__ import annotations

LEVEL = "BabyAI-MixedTrainLocal-v0"  # the agents of GENERALISATION and TRAINING were trained here, with 8 distractors

# Success over 1,000 episodes per seed after 1.5M frames: bar heights of the generalisation figure, ±0.005. By the rows
# and columns of our table.
GENERALISATION: dict[str, dict[str, float]] = {
    "no change": {"random": 0.15, "DRRN": 0.14, "NPAE": 0.17, "LLM zero-shot": 0.11, "LLM": 0.89},
    "other nouns": {"random": 0.15, "DRRN": 0.15, "NPAE": 0.16, "LLM zero-shot": 0.09, "LLM": 0.87},
    "invented nouns and adjectives": {"random": 0.15, "DRRN": 0.16, "NPAE": 0.16, "LLM zero-shot": 0.11, "LLM": 0.77},
    "pick up A then/after pick up B": {"random": 0.05, "DRRN": 0.06, "NPAE": 0.06, "LLM zero-shot": 0.02, "LLM": 0.12},
    "synonym actions": {"random": 0.15, "DRRN": 0.17, "NPAE": 0.16, "LLM zero-shot": 0.01, "LLM": 0.12},
    "French, go to": {"random": 0.30, "DRRN": 0.31, "NPAE": 0.30, "LLM zero-shot": 0.03, "LLM": 0.01},
}

# Change against "no change" in percent, where the paper states it.
GENERALISATION_CHANGE: dict[str, dict[str, int]] = {
    "other nouns": {"LLM": -2},
    "invented nouns and adjectives": {"LLM": -13},
    "synonym actions": {"LLM": -87},
    "French, go to": {"LLM": -99},
}

# Success in training at a number of frames: the learning curves of the Mixed tasks.
TRAINING: dict[str, dict[int, str]] = {
    "LLM": {250_000: "0.80", 600_000: "0.90", 1_500_000: "about 0.9"},
    "Symbolic-PPO": {1_500_000: "just under 0.4"},
    "NPAE": {1_500_000: "under 0.2"},
    "DRRN": {1_500_000: "under 0.2"},
}

# Change of the sample-efficiency index in percent from 4 to 16 distractors (Go To Local, 400k frames).
DISTRACTORS = (4, 16)
DISTRACTORS_LEVEL = "GoToLocal"
DISTRACTORS_CHANGE: dict[str, int] = {"LLM": -14, "Symbolic-PPO": -38}
