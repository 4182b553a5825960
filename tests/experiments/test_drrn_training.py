"""DRRN trained, saved, resumed and tested by the same tools as the LLM; the released code's defects 21 to 25."""

import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from sentencepiece import SentencePieceProcessor

from babyai_text import LEVELS
from experiments import make_sentencepiece as making
from experiments.agents.drrn.drrn_policy import DRRNPolicy
from experiments.agents.drrn.replay_memory import ReplayMemory
from experiments.drrn_side import open_drrn_agent
from experiments.errors import UserError
from experiments.experiment_paths import ExperimentPaths
from experiments.post_training_tests import run_tests
from experiments.run_log import COLUMNS
from experiments.train_language_agent import train
from experiments.training_run import TrainingRun
from tests.experiments.conftest import ROOT, SMALL, make_config, script_environment
from tests.experiments.test_kills import check_kills
from tests.experiments.test_training import elsewhere, logs_without_time, paths_of

LEVEL = "BabyAI-GoToRedBallNoDists-v0"
WORDS = """
Possible action of the agent turn left right go forward pick up drop toggle Goal to a key ball box door red green blue
purple yellow grey then after you put next open Observation Action You see wall step steps and carry locked eat dance
sleep do nothing cut think But de Actions possibles pour aller clef balle boîte porte rouge verte bleue violette jaune
grise ouvrir mettre côté puis après avoir fait Tu vois un mur pas gauche droite devant portes
"""
NO_LLM = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
loaded = [name for name in sys.modules if name.split(".")[0] == "transformers" or name == "lamorel.caller"]
assert not loaded, loaded
"""
FRENCH = ["tourner à gauche", "tourner à droite", "aller tout droit", "attraper", "lâcher", "basculer"]


@pytest.fixture
def drrn(tmp_path, spm_path):
    """Overrides of a run of seconds: 3 updates of 8 steps in 4 environments, a gradient step every 3 steps."""
    return [
        *SMALL,
        "lamorel_args.distributed_setup_args.n_llm_processes=0",
        f"rl_script_args.spm_path={spm_path}",
        "rl_script_args.name_model=drrn",
        "rl_script_args.tensorboard=false",
        "rl_script_args.drrn.embedding=8",
        "rl_script_args.drrn.hidden=8",
        "rl_script_args.drrn.batch_size=6",
        "rl_script_args.drrn.update_every=3",
        "rl_script_args.drrn.memory=40",  # it wraps round
        "rl_script_args.drrn.lr=1e-2",
        f"rl_script_args.saving_path_logs={tmp_path / 'logs'}",
        f"rl_script_args.saving_path_model={tmp_path / 'models'}",
    ]


def opened(overrides):
    config = make_config(overrides)
    paths = ExperimentPaths.of(config)
    paths.make_writable()
    return TrainingRun(config, paths, open_drrn_agent)


def assert_same_run(one, other):
    """Equal logs (but for measured time), probe probabilities and checkpoints, bit for bit."""
    pd.testing.assert_frame_equal(logs_without_time(one), logs_without_time(other), check_exact=True)
    assert (one.logs / "distrib.csv").read_text() == (other.logs / "distrib.csv").read_text()
    manifests = [json.loads((p.models / "last" / "manifest.json").read_text())["files"] for p in (one, other)]
    assert manifests[0].keys() == manifests[1].keys()
    for name in manifests[0].keys() - {"trainer.json", "optimizer.pt"}:  # paths; torch's archives name their file
        assert manifests[0][name] == manifests[1][name], name
    states = [torch.load(p.models / "last" / "optimizer.pt", weights_only=True)["state"] for p in (one, other)]
    for number, state in states[0].items():
        for name, tensor in state.items():
            assert torch.equal(tensor, states[1][number][name])


def test_what_a_run_writes(drrn):
    train(make_config(drrn))
    paths = paths_of(drrn)
    log = pd.read_csv(paths.logs / "log.csv")
    assert tuple(log.columns) == COLUMNS
    assert log.frames.tolist() == [32, 64, 96]
    assert log.entropy.between(0, math.log(6) + 1e-6).all()
    assert (log.loss > 0).all()
    assert (log.grad_norm > 0).all()
    assert log.policy_loss.isna().all()
    distrib = pd.read_csv(paths.logs / "distrib.csv")
    np.testing.assert_allclose(distrib.iloc[:, 3:].sum(axis=1), 1, atol=1e-5)
    assert not np.allclose(distrib.iloc[:11, 3:], distrib.iloc[-11:, 3:], atol=1e-4)  # it learned something
    last = paths.models / "last"
    assert {path.name for path in last.iterdir()} == {
        "manifest.json", "memory", "model.safetensors", "optimizer.pt", "sentencepiece.model", "states.json",
        "trainer.json",
    }  # fmt: skip
    assert json.loads((last / "trainer.json").read_text())["agent"] == "drrn"


def test_a_resumed_run_equals_an_uninterrupted_one(drrn, tmp_path):
    """Defects 23 and 25: weights, optimizer, memory and every random stream come back."""
    straight = elsewhere(drrn, tmp_path)
    train(make_config(straight))
    for frames in (32, 64, 96):  # one update per start; gradient steps fall due across their boundaries
        train(make_config([*drrn, f"rl_script_args.num_steps={frames}"]))
    assert_same_run(paths_of(drrn), paths_of(straight))


@pytest.mark.parametrize("overrides", [["bootstrap_timeouts=true"], ["language=french", "walls=all"]])
def test_a_resumed_run_of_other_settings(drrn, tmp_path, overrides):
    drrn = [*drrn, *(f"rl_script_args.{override}" for override in overrides), "rl_script_args.seed=3"]
    straight = elsewhere(drrn, tmp_path)
    train(make_config(straight))
    train(make_config([*drrn, "rl_script_args.num_steps=64"]))
    train(make_config(drrn))
    assert_same_run(paths_of(drrn), paths_of(straight))


def test_an_environment_that_writes_its_prompt_and_offers_changing_actions(drrn, tmp_path, monkeypatch):
    """Candidates belong to a state, in the memory as well; durations reach the discount; the same scripts do it all."""
    monkeypatch.setattr(making, "LEVELS", {})
    toy = [
        *drrn,
        "rl_script_args.env_packages=[tests.experiments.toy_text_env]",
        "rl_script_args.name_environment=ToyKitchen-v0",
        "rl_script_args.max_episode_steps=null",
        "rl_script_args.prompter=environment",
        f"rl_script_args.spm_path={tmp_path / 'toy.model'}",
    ]
    making.make_sentencepiece(make_config(toy))
    straight = elsewhere(toy, tmp_path)
    train(make_config(straight))
    train(make_config([*toy, "rl_script_args.num_steps=32"]))
    train(make_config(toy))
    one, other = paths_of(toy), paths_of(straight)
    pd.testing.assert_frame_equal(logs_without_time(one), logs_without_time(other), check_exact=True)
    with opened([*toy, "rl_script_args.num_steps=128"]) as run:
        run.resume()
        memory = run.agent.memory
        replayed = [memory._transition(number) for number in range(96 - 40, 96 - 4)]
    assert {len(transition.next_candidates) for transition in replayed} == {0, 2, 3, 4}  # 0: the episode ended
    assert {transition.duration for transition in replayed} == {1, 2}
    run_tests(make_config(toy))


@pytest.mark.slow
def test_four_kills(drrn, tmp_path):
    check_kills(drrn, tmp_path, kills=4, updates=80, same=assert_same_run)


def test_another_seed_gives_another_run(drrn):
    drrn = [*drrn, "rl_script_args.num_steps=32"]
    for seed in (1, 2):
        train(make_config([*drrn, f"rl_script_args.seed={seed}"]))
    one, two = (
        load_file(paths_of([*drrn, f"rl_script_args.seed={seed}"]).models / "last" / "model.safetensors")
        for seed in (1, 2)
    )
    assert not torch.equal(one["embedding.weight"], two["embedding.weight"])


def test_a_gradient_step_every_few_steps_of_all_environments(drrn, monkeypatch):
    """Steps 3, 6 | 9, 12, 15 | 18, 21, 24 of updates of 8; at step 3 there are 2 * 4 transitions, 6 are needed."""
    with opened(drrn) as run:
        run.resume()
        assert [int(run.agent.update(run.agent.collect_rollout())["gradient_steps"]) for _ in range(3)] == [2, 3, 3]
    with opened([*drrn, "rl_script_args.drrn.batch_size=13", "rl_script_args.name_experiment=other"]) as run:
        run.resume()
        # 13 are there after step 5 only: one step's are still waiting for their next state
        assert [int(run.agent.update(run.agent.collect_rollout())["gradient_steps"]) for _ in range(2)] == [1, 3]


def test_every_finished_episode_is_logged_in_its_own_update(drrn, monkeypatch):
    """Defect 21: the episodes of an update are those that ended in it, the newest included and no older ones."""
    with opened(drrn) as run:
        run.resume()
        agent, steps = run.agent, []
        step = agent.envs.step
        monkeypatch.setattr(agent.envs, "step", lambda actions: steps.append(step(actions)) or steps[-1])
        returns = np.zeros(4)
        for _ in range(4):
            steps.clear()
            rollout = agent.collect_rollout()
            expected = []
            for _, rewards, terminated, truncated, _ in steps:
                returns += rewards
                for i in np.flatnonzero(terminated | truncated):
                    expected.append(returns[i])
                    returns[i] = 0
            assert len(steps) == 8
            assert [episode.episode_return for episode in rollout.episodes] == expected
            assert len(expected) >= 4  # six steps at most


def test_a_new_episodes_first_observation_is_in_its_prompt(drrn, monkeypatch):
    """Defect 22: what is acted on after an end shows the new room, and nothing of the old one."""
    with opened(drrn) as run:
        run.resume()
        agent, shown = run.agent, []
        step = agent.envs.step

        def stepped(actions):
            result = step(actions)
            shown.append((result[2] | result[3], result[0]["mission"], result[4]["descriptions"]))
            return result

        monkeypatch.setattr(agent.envs, "step", stepped)
        acted = []
        decide = agent.policy.decide
        monkeypatch.setattr(agent.policy, "decide", lambda states: acted.append(states) or decide(states))
        agent.collect_rollout()
        agent.collect_rollout()
        seen = 0
        for (ended, missions, descriptions), states in zip(shown, acted[1:], strict=False):
            for i in np.flatnonzero(ended):
                sentences = "".join(f"{sentence}, " for sentence in descriptions[i])
                start = f" \n Goal of the agent: {missions[i]} \n Observation 0: {sentences}\n Action 0: "
                assert states[i].text.prompt.endswith(start)
                np.testing.assert_array_equal(states[i].pieces, agent.policy.vocabulary.encode(states[i].text.prompt))
                seen += 1
        assert seen >= 8


@pytest.mark.parametrize("bootstrap", [False, True])
def test_a_time_out_is_terminal_unless_it_is_to_be_bootstrapped(drrn, bootstrap, monkeypatch):
    """Its last state, not the next episode's first, is what it is bootstrapped from; a success never is, not even one
    on the last step, where both flags are set."""
    overrides = [*drrn, f"rl_script_args.bootstrap_timeouts={bootstrap}", "rl_script_args.drrn.memory=1000"]
    with opened(overrides) as run:
        run.resume()
        agent, steps = run.agent, []
        step = agent.envs.step

        def late_success(actions):
            observations, rewards, terminated, truncated, infos = step(actions)
            steps.append((observations, rewards, terminated, truncated | terminated, infos))
            return steps[-1]

        monkeypatch.setattr(agent.envs, "step", late_success)
        for _ in range(3):
            agent.collect_rollout()
        ends = {"success": 0, "time-out": 0, "none": 0}
        for t, (_, rewards, terminated, truncated, infos) in enumerate(steps[:-1]):
            for i in range(4):
                transition = agent.memory._transition(4 * t + i)
                assert transition.reward == pytest.approx(20 * rewards[i])
                read = agent.policy.vocabulary._pieces.decode(transition.next_pieces.tolist())
                kind = "success" if terminated[i] else "time-out" if truncated[i] else "none"
                ends[kind] += 1
                if kind == "success" or (kind == "time-out" and not bootstrap):
                    assert not len(transition.next_pieces)
                    assert transition.next_candidates == []
                    continue
                source = infos["final_info"] if kind == "time-out" else infos
                newest = "".join(f"{sentence}, " for sentence in source["descriptions"][i])
                assert f"{newest}Action " in read
                assert len(transition.next_candidates) == 6
        assert ends["success"] > 0
        assert ends["time-out"] > 4
        assert ends["none"] > 40


def test_in_french_the_scored_candidates_are_french(drrn, monkeypatch):
    """Defect 24: training and tests alike."""
    scored = []
    forward = DRRNPolicy.q_values
    monkeypatch.setattr(
        DRRNPolicy, "q_values", lambda self, p, candidates: scored.extend(candidates) or forward(self, p, candidates)
    )
    french = [*drrn, "rl_script_args.language=french", "rl_script_args.template_test=2", "rl_script_args.num_steps=32"]
    with opened(french) as run:
        run.resume()
        run.agent.collect_rollout()
        run.checkpoint_if_due()
    assert {action for row in scored for action in row} == set(FRENCH)
    scored.clear()
    train(make_config(french))
    scored.clear()
    run_tests(make_config(french))
    assert scored
    assert all(row == FRENCH for row in scored)


def test_the_files_of_a_test_hold_its_episodes_only(drrn):
    """Defect 24: substitutions and renamed actions reach the network, and every file has its own test's episodes."""
    train(make_config(drrn))
    tests = ["no_modification_test", "no_meaning_words", "other_goal_test"]
    run_tests(make_config([*drrn, f"rl_script_args.tests=[{','.join(tests)}]"]))
    renamed = "[rotate_left,rotate_right,move_ahead,take,release,switch]"
    new_names = ["rl_script_args.modified_action_space=true", f"rl_script_args.new_action_space={renamed}"]
    run_tests(make_config([*drrn, *new_names]))
    folder = paths_of(drrn).test_folder(LEVEL)
    for name in [*tests, "no_modification_test_newactions"]:
        assert len(np.load(folder / "return_per_episode" / f"{name}.npy")) == 6
    facts = json.loads((folder / "episodes" / "no_modification_test.json").read_text())
    assert (facts["agent"], facts["checkpoint_update"]) == ("drrn", 3)


def test_trajectories_are_exported(drrn):
    train(make_config(drrn))
    run_tests(make_config([*drrn, "rl_script_args.get_example_trajectories=true", "rl_script_args.num_steps=20"]))
    folder = paths_of(drrn).test_folder(LEVEL)
    assert len(np.load(folder / "trajectories_prompts_0.npy")) == 20


def test_full_segments_of_the_memory_are_written_once(drrn, monkeypatch):
    monkeypatch.setattr(ReplayMemory.__init__, "__kwdefaults__", {"segment": 10})
    overrides = [*drrn, "rl_script_args.drrn.memory=1000"]
    train(make_config([*overrides, "rl_script_args.num_steps=32"]))
    train(make_config([*overrides, "rl_script_args.num_steps=64"]))
    paths = paths_of(overrides)
    last, backup = (sorted((paths.models / name / "memory").iterdir()) for name in ("last", "backup"))
    assert [len(last), len(backup)] == [7, 4]  # 64 and 32 transitions
    same = [one.samefile(other) for one, other in zip(last, backup, strict=False)]
    assert same == [True, True, True, False]
    hashes = json.loads((paths.models / "last" / "manifest.json").read_text())["files"]
    assert len([name for name in hashes if name.startswith("memory/")]) == 7
    shutil.copytree(paths.models / "last", paths.models / "copy")
    (paths.models / "last" / "memory" / "000001.safetensors").write_bytes(b"broken")  # in backup, too: one file
    with pytest.raises(UserError, match="no complete checkpoint"):
        train(make_config(overrides))


def test_a_checkpoint_of_another_vocabulary_or_shape_is_refused(drrn, tmp_path):
    """Defect 25: one clear error, and nothing is loaded by halves."""
    train(make_config([*drrn, "rl_script_args.num_steps=32"]))
    with pytest.raises(UserError, match=r"another shape.*rl_script_args\.drrn\.embedding and \.hidden"):
        run_tests(make_config([*drrn, "rl_script_args.drrn.hidden=9"]))
    other = tmp_path / "other.model"
    other.write_bytes(making.train_sentencepiece(["other words than those", "words of another text"], 8000))
    for job in (train, run_tests):
        with pytest.raises(UserError, match=r"another sentencepiece model.*sentencepiece\.model"):
            job(make_config([*drrn, f"rl_script_args.spm_path={other}"]))
    copy = paths_of(drrn).models / "last" / "sentencepiece.model"
    run_tests(make_config([*drrn, f"rl_script_args.spm_path={copy}"]))  # its own, from wherever it is read


@pytest.mark.parametrize(
    ("job", "override", "expected"),
    [
        (train, "spm_path=nowhere", r"experiments/make_sentencepiece\.py and rl_script_args\.spm_path=nowhere"),
        (run_tests, "spm_path=", r"spm_path='': .* make it with experiments/make_sentencepiece\.py"),
        (making.make_sentencepiece, "spm_path=", "give the file to write"),
        (making.make_sentencepiece, f"spm_path={ROOT}", "is a folder: give the file to write"),
        (train, "drrn.memory=5", r"drrn\.memory=5: give at least drrn\.batch_size \+ number_envs, 10"),
        (train, "drrn.lr=0", r"rl_script_args\.drrn\.lr=0\.0: give a number above 0"),
        (train, "drrn.discount=1.1", r"rl_script_args\.drrn\.discount=1\.1: give a number above 0 and at most 1"),
        (train, "symbolic_ppo=true", r"train this agent with train_symbolic_ppo\.py"),
        (run_tests, "seed=1", "holds no checkpoint: train with the same configuration first"),
    ],
)  # fmt: skip
def test_bad_input_is_named_with_its_remedy(drrn, job, override, expected):
    with pytest.raises(UserError, match=expected):
        job(make_config([*drrn, f"rl_script_args.{override}"]))


# -- the sentencepiece model ------------------------------------------------------------------------------------------


def test_from_the_sentencepiece_model_to_the_test(drrn, tmp_path):
    """The three scripts as a user runs them; every word that the levels use is one piece of the model. Training imports
    neither transformers nor the model side of lamorel."""
    overrides = [*drrn, "rl_script_args.spm_path=storage/spm.model", "rl_script_args.num_steps=32"]
    for script, code in (
        ("make_sentencepiece.py", []),
        ("train_language_agent.py", ["-c", NO_LLM]),
        ("post-training_tests.py", []),
    ):
        # the first one is DRRN's alone, and needs no key that says so
        given = [o for o in overrides if "n_llm_processes" not in o] if script == "make_sentencepiece.py" else overrides
        command = [sys.executable, *code, str(ROOT / "experiments" / script), *given]
        result = subprocess.run(
            command, cwd=tmp_path, env=script_environment(), capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr
        assert "%|" not in result.stderr
    pieces = SentencePieceProcessor(model_file=str(tmp_path / "storage" / "spm.model"))
    words = WORDS.split()
    assert [word for word in words if len(pieces.encode(word)) > 1] == []
    for word in ("rotate", "dax", "boîte", "Ω"):
        assert pieces.unk_id() not in pieces.encode(word)
    assert pieces.get_piece_size() < 1000  # of a language this small; 8000 are allowed


def test_the_sentencepiece_model_is_the_same_every_time_and_never_replaced(drrn, tmp_path, monkeypatch):
    monkeypatch.setattr(making, "LEVELS", {"BabyAI-GoToFrench-v0": LEVELS["BabyAI-GoToFrench-v0"]})
    path = tmp_path / "folder" / "spm.model"
    overrides = [*drrn, f"rl_script_args.spm_path={path}"]
    making.make_sentencepiece(make_config(overrides))
    first = path.read_bytes()
    making.make_sentencepiece(make_config(overrides))
    assert path.read_bytes() == first
    with pytest.raises(UserError, match=r"rl_script_args\.spm_path=.*another file"):
        making.make_sentencepiece(make_config([*overrides, "rl_script_args.drrn.vocabulary=350"]))
    assert path.read_bytes() == first
    with pytest.raises(UserError, match=r"rl_script_args\.drrn\.vocabulary=100: sentencepiece refuses it"):
        making.make_sentencepiece(make_config([*overrides, "rl_script_args.drrn.vocabulary=100"]))
