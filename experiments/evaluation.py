"""Play test episodes that are fixed beforehand, so that tests of different agents are paired."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from experiments.agents.base_agent import BaseAgent
from experiments.atomic_files import write_atomically
from experiments.configuration import RLScriptArgs
from experiments.environments import episode_seed, make_envs, missions, split_infos
from experiments.episodes import Episode, EpisodeCounter
from experiments.other_goal import OtherGoal
from experiments.prompters import make_prompters
from experiments.prompters.stepping import advance_prompters, start_prompters


class Transition(NamedTuple):
    """One decision, as behavioural cloning reads it."""

    prompt: str
    action: str  # the text of the chosen candidate


class EpisodeResult(NamedTuple):
    """One played episode; all but its transitions are a row of a test's csv."""

    episode: int
    seed: int  # of the reset; of the environment's stream with stop_rule=first_n
    mission: str
    episode_return: float  # raw
    success: bool
    frames: int
    transitions: list[Transition]


@dataclass
class Slot:
    """What one environment is playing."""

    waiting: Iterator[int]  # episodes that are its to play
    episode: int | None = None
    generator: Any = None
    mission: str = ""
    transitions: list[Transition] = field(default_factory=list)

    def next_episode(self, seed: int, mission: str) -> None:
        """Take up the next episode; its actions have a random stream of their own, (seed, episode)."""
        self.episode = next(self.waiting, None)
        self.mission = mission
        self.transitions = []
        if self.episode is not None:
            self.generator = np.random.default_rng([seed, self.episode])


def evaluate(rl: RLScriptArgs, agent: BaseAgent, test: str) -> list[EpisodeResult]:
    """Play one test with the configured stop rule.

    Args:
        test: `no_modification_test`, or `other_goal_test`, whose prompts name another object than the episode's goal.

    Returns:
        exactly `number_episodes` episodes, in the order of their numbers (first_n: in the order they finished).
    """
    if rl.stop_rule == "first_n":
        return _first_n(rl, agent, test)
    return play_episodes(rl, agent, range(rl.number_episodes), test)


def play_episodes(
    rl: RLScriptArgs, agent: BaseAgent, episodes: range, test: str, *, with_transitions: bool = False
) -> list[EpisodeResult]:
    """Play the given episodes, assigned to environments before they start; episode k is reset with `episode_seed`.

    Args:
        with_transitions: keep every prompt and action; without, the results' lists of transitions are empty.

    Returns:
        one result per episode, in their order, whatever `number_envs` is.
    """
    count = min(rl.number_envs, len(episodes))
    shares = [episodes[i::count] for i in range(count)]
    seeds = [[episode_seed(rl.seed, k) for k in share] for share in shares]
    slots = [Slot(iter(share)) for share in shares]
    with tqdm(total=len(episodes), desc=test, unit="episode", disable=None) as bar:
        results = {}
        played = _play(rl, agent, test, slots, seeds=[s[0] for s in seeds], episode_seeds=seeds)
        for number, result in played:
            results[number] = result if with_transitions else result._replace(transitions=[])
            bar.update()
    return [results[k] for k in episodes]


def _first_n(rl: RLScriptArgs, agent: BaseAgent, test: str) -> list[EpisodeResult]:
    """The released rule: environments keep their streams, and the first `number_episodes` to finish count.

    PAPER-DIFF(3): short episodes are over-represented. For comparison only.
    """
    seeds = [episode_seed(rl.seed, i) for i in range(rl.number_envs)]
    slots = [Slot(iter(range(i, 10**9, rl.number_envs))) for i in range(rl.number_envs)]
    finished: list[EpisodeResult] = []
    for _, episode in _play(rl, agent, test, slots, seeds=seeds, episode_seeds=None):
        finished.append(episode._replace(episode=len(finished), transitions=[]))
        if len(finished) == rl.number_episodes:
            return finished
    raise AssertionError("environments do not run out of episodes")


def _play(
    rl: RLScriptArgs,
    agent: BaseAgent,
    test: str,
    slots: Sequence[Slot],
    *,
    seeds: Sequence[int],
    episode_seeds: Sequence[Sequence[int]] | None,
) -> Iterator[tuple[int, EpisodeResult]]:
    """Step all environments until no slot has an episode left; yields (episode, result) as they finish."""
    count = len(slots)
    with closing(make_envs(rl, seeds=seeds, episode_seeds=episode_seeds, wrapper=_wrapper(agent, test))) as envs:
        prompters = make_prompters(rl)[:count]
        counter = EpisodeCounter.empty(count)
        observations, infos = envs.reset()
        states = start_prompters(prompters, observations, infos)
        for slot, mission in zip(slots, missions(observations, count), strict=True):
            slot.next_episode(rl.seed, mission)
        while active := [i for i, slot in enumerate(slots) if slot.episode is not None]:
            rows = split_infos(infos, count)
            uniforms = np.array([slots[i].generator.random() for i in active])
            actions = np.zeros(count, dtype=int)  # environments that are done keep stepping, unseen
            actions[active] = agent.act([states[i] for i in active], [rows[i] for i in active], uniforms)
            for i in active:
                slots[i].transitions.append(Transition(states[i].prompt, states[i].candidates[actions[i]]))
            sent = np.array([state.action_ids[a] for state, a in zip(states, actions, strict=True)])
            observations, rewards, terminated, truncated, infos = envs.step(sent)
            states, _ = advance_prompters(prompters, actions, observations, terminated | truncated, infos)
            goals = missions(observations, count)
            for i, episode in counter.step(rewards, terminated, truncated).items():
                if slots[i].episode is not None:
                    yield _result(slots[i], seeds[i], rl, episode)
                    slots[i].next_episode(rl.seed, goals[i])


def _result(slot: Slot, stream_seed: int, rl: RLScriptArgs, episode: Episode) -> tuple[int, EpisodeResult]:
    assert slot.episode is not None
    seed = stream_seed if rl.stop_rule == "first_n" else episode_seed(rl.seed, slot.episode)
    outcome = (episode.episode_return, episode.success, episode.frames, slot.transitions)
    return slot.episode, EpisodeResult(slot.episode, seed, slot.mission, *outcome)


def _wrapper(agent: BaseAgent, test: str) -> Any:
    if test == "other_goal_test":
        inner = agent.env_wrapper
        return OtherGoal if inner is None else lambda env: OtherGoal(inner(env))
    return agent.env_wrapper


def write_results(folder: Path, stem: str, episodes: Sequence[EpisodeResult], facts: dict[str, Any]) -> None:
    """Write a test's files: `return_per_episode/STEM.npy`, `episodes/STEM.csv` and `episodes/STEM.json`.

    Args:
        folder: logs/ID/test/ENV.
        facts: agent, test and whatever a table needs to name the row.
    """
    for name in ("return_per_episode", "episodes"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    temporary = folder / "return_per_episode" / f".{stem}.npy"
    np.save(temporary, np.array([episode.episode_return for episode in episodes]))
    temporary.replace(folder / "return_per_episode" / f"{stem}.npy")
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(EpisodeResult._fields[:-1])
    writer.writerows([*e[:4], int(e.success), e.frames] for e in episodes)
    write_atomically(folder / "episodes" / f"{stem}.csv", buffer.getvalue())
    write_atomically(folder / "episodes" / f"{stem}.json", json.dumps(facts, indent=1))
