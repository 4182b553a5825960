"""Steps per second of the text environments in one process: BabyAI-GoToLocal-v0 against minigrid without text, and
those of TWOSOME against what is demanded of them.

    python benchmarks/env_throughput.py [--steps 3000] [--rounds 7]

With and without text take turns, so that a busy machine slows both down alike; the figures are medians over the rounds.
Random actions, resets included. Exit status 1 when the ratio is below 0.6 or an environment too slow.
"""

import argparse
import statistics
import sys
import time

import gymnasium as gym
import numpy as np

import babyai_text
import overcooked_text  # noqa: F401 (registers its tasks)
import virtualhome_text  # noqa: F401 (registers its tasks)
from babyai_text.quiet import silence

LEVEL = "BabyAI-GoToLocal-v0"
LEAST_RATIO = 0.6
LEAST_STEPS = {  # per second
    "OvercookedText-TomatoSalad-v0": 2_000,  # macro-actions
    "OvercookedText-TomatoLettuceSalad-v0": 2_000,
    "VirtualHomeText-FoodPreparation-v0": 10_000,
    "VirtualHomeText-Entertainment-v0": 10_000,
}


def steps_per_second(env: gym.Env, actions: list[int]) -> float:
    """Play `actions`, resetting where an episode ends."""
    env.reset(seed=0)
    start = time.perf_counter()
    for action in actions:
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()
    return len(actions) / (time.perf_counter() - start)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000, help="steps per round and environment")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()

    # both get the same actions and the same seeds, hence the same episodes
    actions = np.random.default_rng(0).integers(0, 6, args.steps).tolist()
    plain = gym.make(LEVEL, disable_env_checker=True)
    silence(plain.unwrapped)  # or its "Sampling rejected" lines would count against it
    with_text = babyai_text.make(LEVEL)
    rounds = [(steps_per_second(plain, actions), steps_per_second(with_text, actions)) for _ in range(args.rounds)]

    ratio = statistics.median(text / bare for bare, text in rounds)
    print(f"minigrid without text  {statistics.median(bare for bare, _ in rounds):8.0f} steps/s")
    print(f"babyai_text, with text {statistics.median(text for _, text in rounds):8.0f} steps/s")
    print(f"ratio                  {ratio:8.2f} (at least {LEAST_RATIO})")
    quick = [measure(level, least, args.steps, args.rounds) for level, least in LEAST_STEPS.items()]
    return 0 if ratio >= LEAST_RATIO and all(quick) else 1


def measure(level: str, least: int, steps: int, rounds: int) -> bool:
    """Print the speed of random actions, offered or not; whether it is at least `least`."""
    env = gym.make(level)
    actions = np.random.default_rng(0).integers(0, env.action_space.n, steps).tolist()
    speed = statistics.median(steps_per_second(env, actions) for _ in range(rounds))
    print(f"{level:38} {speed:8.0f} steps/s (at least {least})")
    return speed >= least


if __name__ == "__main__":
    sys.exit(main())
