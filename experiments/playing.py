"""Step environments, prompters and an agent together, episode by episode."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from babyai_text import task_of
from experiments.agents.base_agent import BaseAgent, View
from experiments.configuration import RLScriptArgs
from experiments.environments import episode_seed, make_envs, mission, missions, split_infos, split_observations
from experiments.episodes import Episode, EpisodeCounter, action_durations, sample_actions
from experiments.other_goal import OtherGoal
from experiments.prompters import TextState, make_prompters, shown_action_names
from experiments.prompters.stepping import advance_prompters, start_prompters
from experiments.stopping import Stopped, stop_signal
from experiments.substitutions import NO_MODIFICATION, OTHER_GOAL, rewording

EnvWrapper = Callable[[gym.Env], gym.Env]


class Transition(NamedTuple):
    """One decision and what came of it."""

    view: View
    chosen: int  # among the view's candidates
    log_probs: np.ndarray  # (A,) of the policy
    value: float | None  # as the agent estimates it, None where it does not
    reward: float  # raw

    @property
    def prompt(self) -> str:
        return self.view.text.prompt

    @property
    def action(self) -> str:
        return self.view.text.candidates[self.chosen]


class EpisodeResult(NamedTuple):
    """One played episode; the fields before `transitions` are a row of a test's csv."""

    episode: int
    seed: int  # of the reset; of the environment's stream with stop_rule=first_n
    mission: str
    task: str  # its kind (babyai_text.task_of)
    episode_return: float  # raw
    success: bool
    frames: int
    discounted_return: float  # by rl_script_args.return_discount per primitive step
    primitive_steps: int
    gave_up: bool  # the bot could not plan any further, which ended the episode
    changed_prompts: int  # decisions for which the test changed what the agent reads
    transitions: list[Transition]
    end: View | None = None  # the state in which it ended; kept with the transitions


@dataclass
class Slot:
    """What one environment is playing."""

    waiting: Iterator[int]  # episodes that are its to play
    episode: int | None = None
    generator: Any = None
    mission: str = ""
    transitions: list[Transition] = field(default_factory=list)
    frames: int = 0
    changed_prompts: int = 0

    def next_episode(self, seed: int, mission: str) -> None:
        """Take up the next episode; its actions have a random stream of their own, (seed, episode)."""
        self.episode = next(self.waiting, None)
        self.mission = mission
        self.transitions = []
        self.frames = self.changed_prompts = 0
        if self.episode is not None:
            self.generator = np.random.default_rng([seed, self.episode])

    def add(self, step: Transition, changed: bool, *, keep: bool) -> None:
        """Count a decision; `keep` it in the transitions."""
        self.frames += 1
        self.changed_prompts += changed
        if keep:
            self.transitions.append(step)


def play_episodes(
    rl: RLScriptArgs,
    agent: BaseAgent,
    episodes: Sequence[int],
    test: str = NO_MODIFICATION,
    *,
    with_transitions: bool = False,
    wrapper: EnvWrapper | None = None,
    render: bool = False,
    label: str | None = None,
    bar: Any = None,
) -> list[EpisodeResult]:
    """Play the given episodes, assigned to environments before they start; episode k is reset with `episode_seed`.

    PAPER-DIFF(10): in the released code the tests of a run continue one another's random streams.

    Args:
        with_transitions: keep every view, policy and action; without, the results' lists of transitions are empty.
        wrapper: put around every environment, outside the agent's own.
        render: make environments that can draw themselves do so (`make_envs`).
        label: of the progress bar; None: the test's name.
        bar: a progress bar over more than these episodes, in the place of their own.

    Returns:
        one result per episode, in their order, whatever `number_envs` is.

    Raises:
        Stopped: a signal came (`finishing_steps`); the present step was finished.
    """
    count = min(rl.number_envs, len(episodes))
    shares = [episodes[i::count] for i in range(count)]
    seeds = [[episode_seed(rl.seed, k) for k in share] for share in shares]
    player = Player(rl, agent, test, with_transitions=with_transitions, wrapper=wrapper, render=render)
    own_bar = tqdm(total=len(episodes), desc=label or test, unit="episode", disable=None) if bar is None else None
    with own_bar or nullcontext(bar) as shown:
        results = {}
        for result in player.play([Slot(iter(share)) for share in shares], [s[0] for s in seeds], seeds):
            results[result.episode] = result
            shown.update()
    return [results[k] for k in episodes]


class Player:
    """Steps environments, prompters and an agent together.

    Args:
        test: words the prompts and missions, or shows another goal.
    """

    def __init__(
        self,
        rl: RLScriptArgs,
        agent: BaseAgent,
        test: str,
        *,
        with_transitions: bool = False,
        wrapper: EnvWrapper | None = None,
        render: bool = False,
    ) -> None:
        self.rl, self.agent, self.test = rl, agent, test
        self.with_transitions, self.render = with_transitions, render
        self.wrappers = [w for w in (agent.env_wrapper, OtherGoal if test == OTHER_GOAL else None, wrapper) if w]
        self.reword = rewording(test, rl.language)
        agent.begin(rl, test)
        named_as_trained = shown_action_names(dataclasses.replace(rl, modified_action_space=False))
        self.renamed = shown_action_names(rl) != named_as_trained and not rl.symbolic_ppo

    def play(
        self, slots: Sequence[Slot], seeds: Sequence[int], episode_seeds: Sequence[Sequence[int]] | None
    ) -> Iterator[EpisodeResult]:
        """Step all environments until no slot has an episode left; yields episodes as they finish.

        Args:
            seeds, episode_seeds: as in `make_envs`.
        """
        rl, count = self.rl, len(slots)
        envs = make_envs(rl, seeds=seeds, episode_seeds=episode_seeds, wrapper=self._wrap, render=self.render)
        with closing(envs):
            prompters = make_prompters(rl)[:count]
            counter = EpisodeCounter.empty(count, rl.return_discount)
            observations, infos = envs.reset()
            states = start_prompters(prompters, observations, infos)
            for slot, goal in zip(slots, missions(observations, count), strict=True):
                slot.next_episode(rl.seed, goal)
            while active := [i for i, slot in enumerate(slots) if slot.episode is not None]:
                if (signal := stop_signal()) is not None:  # here, as no message to another process is under way
                    raise Stopped(f"stopped by {signal}: the same command goes on")
                views = self._views(states, observations, infos, slots, active)
                changed = [self._changed(view, states[view.environment]) for view in views]
                policy = self.agent.decide(views)
                uniforms = np.array([slots[i].generator.random() for i in active])
                actions = np.zeros(count, dtype=int)  # environments that are done keep stepping, unseen
                actions[active] = sample_actions(policy.log_probs, uniforms)
                sent = np.array([state.action_ids[a] for state, a in zip(states, actions, strict=True)])
                observations, rewards, terminated, truncated, infos = envs.step(sent)
                ended = terminated | truncated
                states, reached = advance_prompters(prompters, actions, observations, ended, infos)
                for row, view in enumerate(views):
                    if not view.info.get("gave_up"):  # else the bot gave up at the reset, and nothing was played
                        value = None if policy.values is None else float(policy.values[row])
                        i = view.environment
                        step = Transition(view, int(actions[i]), policy.log_probs[row], value, float(rewards[i]))
                        slots[i].add(step, changed[row], keep=self.with_transitions)
                goals = missions(observations, count)
                durations = action_durations(infos, ended)
                shown = {view.environment: view for view in views}
                for i, episode in counter.step(rewards, terminated, truncated, durations).items():
                    if i in shown:
                        yield self._result(slots[i], seeds[i], episode, self._end(shown[i], reached[i], infos))
                        slots[i].next_episode(rl.seed, goals[i])

    def _wrap(self, env: gym.Env) -> gym.Env:
        for wrapper in self.wrappers:
            env = wrapper(env)
        return env

    def _views(
        self,
        states: list[TextState],
        observations: Any,
        infos: dict[str, Any],
        slots: Sequence[Slot],
        active: list[int],
    ) -> list[View]:
        count = len(states)
        seen, rows = split_observations(observations, count), split_infos(infos, count)
        return [self._view(states[i], seen[i], rows[i], i, slots[i].frames == 0) for i in active]

    def _view(self, text: TextState, observation: Any, info: dict[str, Any], i: int, first: bool) -> View:
        worded = text._replace(prompt=self.reword(text.prompt))
        return View(worded, self.reword(mission(observation)), observation, info, i, first)

    def _changed(self, view: View, text: TextState) -> bool:
        """Whether the test changes what the agent reads in a state: the prompt, or for Symbolic-PPO the mission.

        Args:
            text: the state without word substitutions.
        """
        if self.test == NO_MODIFICATION:
            return self.renamed
        if self.test == OTHER_GOAL:
            return bool(view.info["other_goal"]) and self.rl.prompter != "environment"
        if self.rl.symbolic_ppo:
            return view.mission != mission(view.observation)
        return view.text != text

    def _end(self, before: View, reached: TextState, infos: dict[str, Any]) -> View:
        """The last view of an episode.

        Args:
            before: the view of the last decision.
        """
        i = before.environment
        if before.info.get("gave_up"):
            return before
        return self._view(reached, infos["final_obs"][i], split_infos(infos["final_info"], i + 1)[i], i, False)

    def _result(self, slot: Slot, stream_seed: int, episode: Episode, end: View) -> EpisodeResult:
        assert slot.episode is not None
        seed = stream_seed if self.rl.stop_rule == "first_n" else episode_seed(self.rl.seed, slot.episode)
        return EpisodeResult(
            episode=slot.episode,
            seed=seed,
            mission=slot.mission,
            task=task_of(slot.mission) if slot.mission else "",
            **episode._replace(frames=slot.frames)._asdict(),
            gave_up=bool(end.info.get("gave_up")),
            changed_prompts=slot.changed_prompts,
            transitions=slot.transitions,
            end=end if self.with_transitions else None,
        )
