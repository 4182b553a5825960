"""Numbers that are not finite: a step is skipped and counted, too many in a row end the run, its checkpoint intact."""

import functools
import json
import logging
import math
import re
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments import llm_side, training_run
from experiments.agents.drrn.drrn_agent import DRRNAgent, DRRNConfig
from experiments.agents.drrn.drrn_policy import DRRNPolicy
from experiments.agents.drrn.network import DRRN
from experiments.agents.drrn.replay_memory import Transition
from experiments.agents.ppo.advantages import Advantages
from experiments.agents.ppo.llm_ppo_agent import LLMPPOAgent
from experiments.agents.ppo.ppo_updater import PPOUpdater
from experiments.agents.ppo.symbolic_ppo_agent import SymbolicPPOAgent
from experiments.checkpoint import CheckpointStore
from experiments.episodes import EpisodeCounter
from experiments.errors import UserError
from experiments.llm_side import open_llm_agent
from experiments.nonfinite import DivergedError, NonFiniteError, SkippedSteps, check_policy
from experiments.run_log import LOSS_COLUMNS
from experiments.stopping import Stopped
from experiments.symbolic_side import open_symbolic_agent
from experiments.train_language_agent import train
from lamorel import Caller
from tests.experiments import spoilt_updates
from tests.experiments.conftest import make_config, run_script
from tests.experiments.test_details import corridor_agent
from tests.experiments.test_drrn import ARGS, NoEnvs, TablePolicy
from tests.experiments.test_launched import LLM_PROCESSES, launch
from tests.experiments.test_training import assert_same_run, elsewhere, paths_of
from tests.lamorel.launching import Launch, lamorel_args

NAN, INF = math.nan, math.inf


# -- counting ----------------------------------------------------------------------------------------------------------


def test_steps_are_counted_in_a_row(caplog):
    skipping = SkippedSteps(3)
    skipping.update = 7
    outcomes = [(1.0, 2.0), (NAN, 2.0), (1.0, INF), (0.0, 0.0), (INF, NAN), (1.0, NAN)]
    taken = [skipping.taken(loss, norm, step) for step, (loss, norm) in enumerate(outcomes, start=1)]
    assert taken == [True, False, False, True, False, False]
    assert skipping.in_a_row == 2
    assert caplog.messages[:2] == [
        "gradient step 2 of update 7 is skipped, the loss is nan (1 in a row)",
        "gradient step 3 of update 7 is skipped, the gradient's norm is inf (2 in a row)",
    ]
    again = SkippedSteps(3)
    again.set_state(skipping.get_state())
    again.update = 8
    with pytest.raises(DivergedError, match=r"^3 gradient steps in a row .* from gradient step 5 of update 7 on"):
        again.taken(-INF, 1.0, 1)


def test_good_steps_of_one_part_do_not_excuse_another(caplog):
    skipping = SkippedSteps(3)
    for step in (1, 2):
        assert skipping.taken(1.0, 1.0, step, "critic")
        assert not skipping.taken(NAN, 1.0, step, "actor")
    assert caplog.messages[-1] == "gradient step 2 is skipped, the loss is nan (2 in a row of the actor)"
    again = SkippedSteps(3)
    again.set_state(json.loads(json.dumps(skipping.get_state())))
    assert again.taken(1.0, 1.0, 3, "critic")
    assert again.in_a_row == 2
    with pytest.raises(DivergedError, match=r"^3 gradient steps of the actor in a row .* from gradient step 1 on"):
        again.taken(NAN, 1.0, 3, "actor")
    assert skipping.taken(1.0, 1.0, 3, "actor")
    assert skipping.in_a_row == 0


def test_a_checkpoint_from_before_skipping():
    with_state, skipping = corridor_agent(), SkippedSteps(3)
    state = with_state.get_state()
    del state["skipping"]
    with_state.skipping.taken(NAN, 1.0, 1)
    with_state.set_state(state)
    assert with_state.skipping.get_state() == skipping.get_state()


# -- one gradient step -------------------------------------------------------------------------------------------------


def copied(tensors):
    """{name: tensor}, apart from what will be changed."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def adam_state(optimizer):
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": value for i, entries in state.items() for name, value in entries.items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


LORA = "lamorel_args.llm_args.lora={r: 2, alpha: 4, target_modules: [q, v]}"


@contextmanager
def llm_learner(small, *overrides):
    """The agent, its weights by name and its optimizer."""
    with open_llm_agent(make_config([*small, *overrides])) as agent:
        worker = agent.caller._worker
        yield agent, lambda: dict(worker._llm.module.state_dict()), worker._updater.optimizer


@contextmanager
def symbolic_learner(symbolic, *overrides):
    config = make_config([*symbolic, "rl_script_args.symbolic_ppo=true", *overrides])
    with open_symbolic_agent(config) as agent:
        yield agent, lambda: agent.policy.network.state_dict(), agent.optimizer


@pytest.mark.parametrize("learner", ["llm", pytest.param("lora", marks=pytest.mark.slow), "symbolic"])
def test_a_poisoned_step_changes_nothing(request, learner):
    """One sample of the minibatch is NaN; the run is that of one that never saw it."""
    opened = {
        "llm": lambda: llm_learner(request.getfixturevalue("small")),
        "lora": lambda: llm_learner(request.getfixturevalue("small"), LORA),
        "symbolic": lambda: symbolic_learner(request.getfixturevalue("symbolic")),
    }[learner]
    found = []
    for poisoned in (True, False):
        with opened() as (agent, weights, optimizer):
            rollout = agent.collect_rollout()
            samples = rollout.samples(Advantages(torch.linspace(-1, 2, 32).reshape(8, 4), rollout.values + 1))
            start = copied(weights())
            if poisoned:  # at first, when Adam has no state yet
                assert_skipped(agent, samples, "advantages")
                assert same(weights(), start)
                assert not adam_state(optimizer)
            agent._minibatch_step(samples)
            before, adam_before = copied(weights()), copied(adam_state(optimizer))
            assert not same(before, start)
            if poisoned:
                assert_skipped(agent, samples, "returns")
                assert same(weights(), before)
                assert same(adam_state(optimizer), adam_before)
            agent._minibatch_step(samples)
            assert not same(weights(), before)
            found.append({**copied(weights()), **copied(adam_state(optimizer))})
    assert same(*found)


def assert_skipped(agent, samples, column):
    values = getattr(samples, column).clone()
    values[5] = NAN
    report = agent._minibatch_step(samples._replace(**{column: values}))
    assert not math.isfinite(report["loss"])
    assert not math.isfinite(report["grad_norm"])


def test_an_infinite_loss_of_a_finite_gradient_is_skipped(small, monkeypatch):
    original = PPOUpdater._sample_losses
    with llm_learner(small) as (agent, weights, _):
        rollout = agent.collect_rollout()
        samples = rollout.samples(Advantages(torch.ones(8, 4), rollout.values + 1))
        before = copied(weights())

        def infinite(*args, **rows):  # a constant has no gradient
            losses, terms = original(*args, **rows)
            return losses + INF, terms

        with monkeypatch.context() as patch:
            patch.setattr(PPOUpdater, "_sample_losses", infinite)
            report = agent._minibatch_step(samples)
        assert math.isnan(report["grad_norm"])
        assert same(weights(), before)


def test_a_poisoned_step_of_drrn(monkeypatch):
    """Q of the action taken is 1.5; a target of NaN comes from the reward, one of infinity from the next state."""
    policy = TablePolicy({(1, "a"): 1.5, (2, "a"): INF})
    nothing = np.array([], dtype=np.uint16)
    reward = Transition(np.array([1]), "a", NAN, 1, nothing, [])
    following = Transition(np.array([1]), "a", 0.0, 1, np.array([2]), ["a"])
    good = Transition(np.array([1]), "a", 2.0, 1, nothing, [])
    agent = DRRNAgent(NoEnvs(), [], policy, DRRNConfig(8, 20.0, True, 10, ARGS), seed=1)
    batch = []
    monkeypatch.setattr(agent.memory, "sample", lambda count, generator: batch)
    for bad in (reward, following):
        batch[:] = [good, bad]
        factor, adam = policy.network.factor.item(), copied(adam_state(agent.optimizer))
        loss, norm = agent._gradient_step()
        assert not (math.isfinite(loss) and math.isfinite(norm))
        assert policy.network.factor.item() == factor
        assert same(adam_state(agent.optimizer), adam)
        batch[:] = [good]
        agent._gradient_step()
        assert policy.network.factor.item() > factor


# -- what an update reports --------------------------------------------------------------------------------------------


def scripted(steps, *, target_kl=None):
    """A PPO agent whose gradient steps report (loss, grad_norm, approx_kl, ratio_error); an update has six."""
    agent = corridor_agent()
    object.__setattr__(agent.config, "target_kl", target_kl)
    reports = iter(steps)
    names = ("loss", "grad_norm", "approx_kl", "ratio_error")
    agent._minibatch_step = lambda samples: dict(zip(names, next(reports), strict=True))
    return agent


def test_means_leave_skipped_steps_out():
    """Means of (2, 4, 6): 4; of the norms (1, 2, 3): 2. Neither the KL of NaN nor that of infinity ends the update."""
    agent = scripted(
        [
            (NAN, NAN, NAN, NAN),
            (2.0, 1.0, 0.01, 0.0),
            (3.0, INF, INF, INF),
            (4.0, 2.0, 0.04, 0.2),
            (6.0, 3.0, 0.07, 0.3),
        ],
        target_kl=0.05,
    )
    stats = agent.update(agent.collect_rollout())
    assert stats == pytest.approx(
        {
            "loss": 4.0, "grad_norm": 2.0, "approx_kl": 0.04, "ratio_error": 0.5 / 3, "first_ratio_error": 0.0,
            "gradient_steps": 3, "skipped_gradient_steps": 2,
        }
    )  # fmt: skip


def test_an_update_of_skipped_steps_has_no_losses():
    agent = scripted([(NAN, NAN, NAN, NAN)] * 6)
    assert agent.update(agent.collect_rollout()) == {"gradient_steps": 0, "skipped_gradient_steps": 6}


def test_statistics_stay_where_no_step_is_taken(symbolic, monkeypatch):
    monkeypatch.setattr(SymbolicPPOAgent, "_minibatch_step", poisoned(SymbolicPPOAgent._minibatch_step))
    with symbolic_learner(symbolic) as (agent, weights, _):
        before = copied(weights())  # of the normalisation, too
        assert agent.update(agent.collect_rollout())["skipped_gradient_steps"] == 6
        assert same(weights(), before)


# -- runs --------------------------------------------------------------------------------------------------------------


def poisoned(step, when=lambda update, number: True):
    """`_minibatch_step`, with NaN in the first sample of every minibatch that is chosen by update and number."""
    counts = {}

    @functools.wraps(step)
    def poisoned_step(self, samples):
        update = self.skipping.update
        counts[id(self), update] = number = counts.get((id(self), update), 0) + 1
        if when(update, number):
            samples.advantages[0] = NAN
        return step(self, samples)

    return poisoned_step


@pytest.fixture
def poison(monkeypatch):
    """poison(when): chosen minibatches of the LLM's runs are NaN from here on."""
    original = LLMPPOAgent._minibatch_step
    return lambda when: monkeypatch.setattr(LLMPPOAgent, "_minibatch_step", poisoned(original, when))


def limit(steps):
    return f"rl_script_args.max_skipped_gradient_steps={steps}"


def test_too_many_skipped_steps_end_a_run_that_can_go_on(small, tmp_path, poison):
    straight = elsewhere(small, tmp_path)
    train(make_config(straight))
    poison(lambda update, number: update >= 2)
    with pytest.raises(UserError) as error:
        train(make_config([*small, limit(8)]))  # six of update 2, whose checkpoint is put off, and two of update 3
    assert str(error.value) == (
        "update 3 in BabyAI-GoToRedBallNoDists-v0: 8 gradient steps in a row were skipped, from gradient step 1 of "
        "update 2 on: the loss is nan; the same command goes on from the checkpoint of update 1, which is intact; if "
        "it ends here again, give a lower rl_script_args.lr and another name_experiment, or a larger "
        "rl_script_args.max_skipped_gradient_steps"
    )
    paths = paths_of(small)
    assert CheckpointStore(paths.models).newest() == paths.models / "last"
    poison(lambda update, number: False)
    train(make_config(small))
    assert_same_run(paths, paths_of(straight))


def test_an_update_without_steps_is_an_empty_row_and_a_put_off_checkpoint(small, poison, caplog, monkeypatch):
    poison(lambda update, number: update == 2)
    saved = []
    save = CheckpointStore.save
    monkeypatch.setattr(
        CheckpointStore,
        "save",
        lambda self, trainer, *rest: saved.append(trainer["update"]) or save(self, trainer, *rest),
    )
    with caplog.at_level(logging.INFO):
        train(make_config([*small, "rl_script_args.num_steps=128", "rl_script_args.checkpoint_every=2"]))
    assert saved == [3, 4]  # that of update 2 is made up for
    paths = paths_of(small)
    log = pd.read_csv(paths.logs / "log.csv")
    assert log[list(LOSS_COLUMNS)].isna().all(axis=1).tolist() == [False, True, False, False]
    line = next(message for message in caplog.messages if message.startswith("update 2 |"))
    assert "| skipped 6 |" in line
    assert "entropy" not in line
    assert sum("skipped" in message for message in caplog.messages if message.startswith("update")) == 1
    events = EventAccumulator(str(paths.logs))
    events.Reload()
    assert [event.value for event in events.Scalars("skipped_gradient_steps")] == [0, 6, 0, 0]
    assert [event.step for event in events.Scalars("loss")] == [1, 3, 4]


@pytest.mark.slow
@pytest.mark.parametrize("steps", [3, 4])
def test_a_resumed_run_counts_on(small, tmp_path, poison, steps):
    """Three in a row, over the end of an update."""
    poison(lambda update, number: (update, number) in {(1, 5), (1, 6), (2, 1), (3, 4)})
    straight = [*elsewhere(small, tmp_path), limit(steps)]
    parts = [[*small, limit(steps), f"rl_script_args.num_steps={frames}"] for frames in (32, 96)]
    if steps == 3:
        train(make_config(parts[0]))
        for run in (straight, parts[1]):
            with pytest.raises(UserError, match=r"^update 2 .* 3 gradient steps .* from gradient step 5 of update 1"):
                train(make_config(run))
        return
    for run in (straight, *parts):
        train(make_config(run))
    assert_same_run(paths_of(small), paths_of(straight))


def test_a_stop_among_skipped_steps_keeps_the_checkpoint(small, poison, monkeypatch):
    poison(lambda update, number: update == 2)
    updates = []
    advance = training_run.TrainingRun.advance
    monkeypatch.setattr(training_run.TrainingRun, "advance", lambda self: updates.append(1) or advance(self))
    monkeypatch.setattr(training_run, "stop_signal", lambda: "SIGTERM" if len(updates) == 2 else None)
    with pytest.raises(
        Stopped, match="SIGTERM after update 2: the same command goes on from the checkpoint of update 1"
    ):
        train(make_config(small))
    assert '"update": 1' in (paths_of(small).models / "last" / "trainer.json").read_text()


def test_what_a_user_sees(small, tmp_path):
    """A learning rate with which the first step overflows the weights."""
    run = run_script("train_language_agent.py", [*small, "rl_script_args.lr=1e30", limit(3)], tmp_path)
    assert run.returncode == 2
    [error] = re.findall("^error: .*", run.stderr, flags=re.MULTILINE)
    assert "update 1 in BabyAI-GoToRedBallNoDists-v0: 3 gradient steps in a row were skipped, from" in error
    assert "the same command goes on from its start; if it ends here again, give a lower rl_script_args.lr" in error
    assert "Traceback" not in run.stderr
    assert len(re.findall("^gradient step . of update 1 is skipped, the", run.stderr, flags=re.MULTILINE)) == 3


@pytest.mark.slow
def test_two_llm_processes_decide_alike(tiny_models, tmp_path):
    """A share of one process is NaN, or infinite with a finite gradient: no process takes the step, all stay equal."""
    args = {"llm_args": {"model_type": "seq2seq", "model_path": str(tiny_models / "t5")}}
    with Caller(args, *spoilt_updates.extras()) as caller:
        expected = spoilt_updates.run_updates(caller, spoilt=False)
    model = SimpleNamespace(config=lambda: args)
    launched = Launch.of(tmp_path / "two", lamorel_args(model, 2), script=Path(spoilt_updates.__file__))
    process = launched.start(launched.command())
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    found = torch.load(launched.folder / "results.pt")
    assert [len(shares) for shares in found["reports"]] == [2, 2, 2, 2, 1, 1]
    for nan, infinite in zip(found["reports"][::2], found["reports"][1::2], strict=True):
        assert sum(math.isnan(share["loss"]) for share in nan) == 1
        assert sum(share["spoilt"] for share in infinite) == 1
        assert all(math.isnan(share["grad_norm"]) for share in (*nan, *infinite))
    for step in range(3):
        assert found[f"unchanged {step}"]
        weights = found[f"weights {step}"]
        assert len(weights.unique(dim=0)) == 1  # in both processes
        torch.testing.assert_close(weights, expected[f"weights {step}"], rtol=1e-4, atol=1e-5)
    assert (found["weights 2"] - found["weights 0"]).abs().max() > 1e-3


@pytest.mark.slow
def test_what_a_user_sees_of_several_processes(small, tmp_path):
    overrides = [*small, LLM_PROCESSES, "rl_script_args.lr=1e30", limit(3)]
    run = launch("train_language_agent.py", overrides, tmp_path)
    assert run.returncode == 2, run.stderr
    assert run.stderr.count("error: update 1 in BabyAI-GoToRedBallNoDists-v0: 3 gradient steps in a row") == 1
    assert "Traceback" not in run.stderr


# -- what is acted on and learnt from ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("log_probs", "value", "said"),
    [
        ([NAN, -1.0], 0.0, r"log-probabilities \[nan, -1.0\]"),
        ([INF, -1.0], 0.0, r"log-probabilities \[inf, -1.0\]"),
        ([-INF, -INF], 0.0, r"log-probabilities \[-inf, -inf\]"),
        ([-1.0, -1.0], NAN, "the value nan"),
    ],
)
def test_a_policy_that_is_none(log_probs, value, said):
    good = [[-0.5, -1.0], [0.0, -INF]]  # of the second state one candidate is never chosen, or not there
    check_policy(np.array(good), np.zeros(2), ["first", "second"])
    check_policy(np.array(good), None, ["first", "second"])
    with pytest.raises(DivergedError, match=f"in 1 of 3 states, e.g. {said} in the state 'third'"):
        check_policy(np.array([*good, log_probs]), np.array([0.0, 0.0, value]), ["first", "second", "third"])


def test_no_agent_acts_without_a_policy(small, symbolic, vocabulary, monkeypatch):
    drrn = DRRNPolicy(DRRN(len(vocabulary), 4, 5), vocabulary)
    with llm_learner(small) as (llm, _, _), symbolic_learner(symbolic) as (baseline, _, _):
        llm.observations = states = llm._first_observations()
        networks = (llm.caller._worker.model, baseline.policy.network, drrn.network)
        with torch.no_grad():
            for network in networks:
                next(network.parameters()).fill_(NAN)
        monkeypatch.setattr(llm.envs, "step", None)  # never called
        monkeypatch.setattr(baseline.envs, "step", None)
        prompt = re.escape(repr(states[0].prompt))
        with pytest.raises(DivergedError, match=f"in the state {prompt}"):
            llm.collect_rollout()
        with pytest.raises(DivergedError, match="in the state 'go to the red ball'"):
            baseline.collect_rollout()
        with pytest.raises(DivergedError, match=f"in the state {prompt}"):
            drrn.decide(drrn.encode(states))


@pytest.mark.parametrize("reward", [NAN, INF, -INF])
def test_rewards_must_be_numbers(reward):
    counter = EpisodeCounter(0.99, [0.0, 0.0], [4, 16], [0.0, 0.0], [4, 16])
    with pytest.raises(
        NonFiniteError, match=f"^environment 1 of .*name_environment gave the reward {reward} in step 17"
    ):
        counter.step(np.array([1.0, reward]), *np.zeros((2, 2), dtype=bool), np.ones(2, dtype=int))


def test_an_environment_of_a_reward_that_is_no_number(small, monkeypatch):
    make_envs = llm_side.make_envs
    wrapper = functools.partial(gym.wrappers.TransformReward, func=lambda reward: NAN)
    monkeypatch.setattr(llm_side, "make_envs", lambda rl, **more: make_envs(rl, **more, wrapper=wrapper))
    with pytest.raises(UserError) as error:
        train(make_config(small))
    assert str(error.value) == (
        "update 1 in BabyAI-GoToRedBallNoDists-v0: environment 0 of rl_script_args.name_environment gave the reward "
        "nan in step 1 of its episode: mend this environment, or choose another; the same command goes on from its "
        "start"
    )


def test_returns_that_overflow():
    agent = corridor_agent()
    rollout = agent.collect_rollout()
    rollout.rewards[:] = 3e38
    with pytest.raises(NonFiniteError, match=r"^returns overflow: rewards .* as large as 3e\+38 times"):
        agent.update(rollout)
