"""Signals that ask a run to stop: the update is finished and saved, and the same command goes on."""

import importlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from hydra import compose, initialize_config_dir

from experiments import make_sentencepiece, make_tiny_llm, show_episodes, stopping, train_symbolic_ppo
from experiments.checkpoint import CheckpointStore
from experiments.configuration import parse_config
from experiments.run_log import RunLog
from experiments.stopping import STOPPED, Stopped, finishing_steps, listen_for_stop, stop_signal
from experiments.train_language_agent import train
from experiments.training_run import TrainingRun
from lamorel.distributed import late_signals
from lamorel.distributed.children import ignore_signal
from tests.experiments.conftest import ROOT, make_config, script_environment
from tests.experiments.test_drrn_training import assert_same_run as assert_same_drrn
from tests.experiments.test_drrn_training import drrn
from tests.experiments.test_training import assert_same_run, elsewhere, paths_of

__all__ = ["drrn"]  # a fixture

HANDLED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
LONGER = ["rl_script_args.num_steps=320", "rl_script_args.checkpoint_every=4"]  # 10 updates


@pytest.fixture
def listening():
    """This process handles signals as a script does."""
    before = {number: signal.getsignal(number) for number in (*HANDLED, signal.SIGALRM)}
    listen_for_stop()
    yield
    listen_for_stop()  # forgets what came, for the tests that follow
    sys.unraisablehook = stopping._State.other_hook
    for number, handler in before.items():
        signal.signal(number, handler)


def record_of(overrides):
    return json.loads((paths_of(overrides).logs / "run.json").read_text())


def call_before(monkeypatch, owner, name, action):
    """Have `action(owner's instance)` called before every call of a method."""
    original = getattr(owner, name)

    def wrapped(self, *arguments, **keywords):
        action(self)
        return original(self, *arguments, **keywords)

    monkeypatch.setattr(owner, name, wrapped)


def raises(*numbers, update=None):
    """An action that sends signals to this process, in one update of a TrainingRun or always."""

    def action(owner):
        if update is None or owner.progress.update + 1 == update:
            for number in numbers:
                signal.raise_signal(number)

    return action


def assert_same_symbolic(one, other):
    for name in ("network.safetensors", "states.json", "vocabulary.json"):
        assert (one.models / "last" / name).read_bytes() == (other.models / "last" / name).read_bytes()


@pytest.mark.parametrize(
    ("agent", "job", "same"),
    [
        ("small", train, assert_same_run),
        ("drrn", train, assert_same_drrn),
        ("symbolic", train_symbolic_ppo.train, assert_same_symbolic),
    ],
)
def test_every_agent_stops_after_its_update_and_goes_on_exactly(request, tmp_path, listening, agent, job, same):
    settings = ["rl_script_args.checkpoint_every=4"]
    settings += ["rl_script_args.symbolic_ppo=true"] if agent == "symbolic" else []
    run = [*request.getfixturevalue(agent), *settings]  # 3 updates
    straight = elsewhere(run, tmp_path)
    job(make_config(straight))
    with pytest.MonkeyPatch.context() as patched:
        call_before(patched, TrainingRun, "record", raises(signal.SIGUSR1, signal.SIGTERM, update=2))
        with pytest.raises(Stopped, match="stopped by SIGUSR1 after update 2: the same command goes on from there"):
            job(make_config(run))
    assert (record_of(run)["state"], record_of(run)["update"]) == ("stopped", 2)
    listen_for_stop()
    job(make_config(run))
    same(paths_of(run), paths_of(straight))
    assert record_of(run)["state"] == "done"


def test_a_signal_while_a_checkpoint_is_written_costs_no_further_update(symbolic, listening, monkeypatch):
    run = [*symbolic, *LONGER, "rl_script_args.symbolic_ppo=true"]
    saved = []
    call_before(monkeypatch, CheckpointStore, "_promote", raises(signal.SIGTERM))
    call_before(monkeypatch, TrainingRun, "checkpoint_now", lambda owner: saved.append(owner.progress.update))
    with pytest.raises(Stopped, match="after update 4"):
        train_symbolic_ppo.train(make_config(run))
    assert saved == [4]


def test_signals_before_the_first_update_and_on_the_way_out(symbolic, listening, monkeypatch):
    """The first raises at once, the others, which come while things are let go of, do nothing."""
    run = [*symbolic, "rl_script_args.symbolic_ppo=true"]
    call_before(monkeypatch, RunLog, "open", raises(signal.SIGTERM))
    call_before(monkeypatch, RunLog, "close", raises(*HANDLED))
    with pytest.raises(Stopped, match="stopped by SIGTERM: the same command goes on") as stopped:
        train_symbolic_ppo.train(make_config(run))
    assert stopped.value.status == STOPPED
    assert record_of(run)["state"] == "stopped"
    with CheckpointStore(paths_of(run).models).locked():  # nobody holds it any more
        pass


def test_ctrl_c_does_not_wait_for_the_update(symbolic, listening, monkeypatch):
    run = [*symbolic, *LONGER, "rl_script_args.symbolic_ppo=true"]
    call_before(monkeypatch, TrainingRun, "record", raises(signal.SIGINT, update=6))
    with pytest.raises(Stopped, match="stopped by SIGINT") as stopped:
        train_symbolic_ppo.train(make_config(run))
    assert stopped.value.status == 130
    assert record_of(run)["update"] == 5
    assert json.loads((paths_of(run).logs / "status.json").read_text())["i"] == 4


def test_a_run_that_is_complete_is_done(symbolic, listening, monkeypatch):
    run = [*symbolic, "rl_script_args.symbolic_ppo=true"]
    call_before(monkeypatch, TrainingRun, "record", raises(signal.SIGTERM, update=3))
    train_symbolic_ppo.train(make_config(run))
    assert record_of(run)["state"] == "done"


@pytest.mark.parametrize("handler", [signal.SIG_IGN, ignore_signal])
def test_what_is_ignored_stays_ignored(listening, handler):
    signal.signal(signal.SIGTERM, handler)
    listen_for_stop()
    signal.raise_signal(signal.SIGTERM)
    with finishing_steps():
        signal.raise_signal(signal.SIGTERM)
        assert stop_signal() is None


def test_a_signal_that_nobody_has_looked_at_is_there_for_the_next(listening):
    with finishing_steps():
        signal.raise_signal(signal.SIGUSR1)
    with finishing_steps():
        assert stop_signal() == "SIGUSR1"
    with pytest.raises(Stopped):
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("job", "overrides"),
    [
        (make_tiny_llm.make_tiny_llm, ["rl_script_args.tiny_llm.clone_episodes=100000"]),
        (make_sentencepiece.make_sentencepiece, ["lamorel_args.distributed_setup_args.n_llm_processes=0"]),
        (
            show_episodes.show_episodes,
            ["rl_script_args.random_agent=true", f"rl_script_args.shown_episodes={list(range(2000))}"],
        ),
    ],
)
def test_other_scripts_stop_at_once_and_leave_nothing_half_written(small, tmp_path, listening, job, overrides):
    places = [
        f"lamorel_args.llm_args.model_path={tmp_path / 'made' / 'model'}",
        f"rl_script_args.spm_path={tmp_path / 'made' / 'spm.model'}",
    ]
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        config = parse_config(compose("base", overrides=[*small, *places, *overrides]), model_exists=False)
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGTERM))
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    with pytest.raises(Stopped):
        job(config)
    left = [*(tmp_path / "made").glob("[!.]*"), *tmp_path.rglob("*.html")]
    assert left == []


def test_a_script_ends_with_the_status_whatever_a_library_makes_of_the_signal(small, tmp_path):
    """What drops every exception, and what makes another error of it."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, signal, sys, time
            from experiments import hydra_script

            def job(config):
                try:
                    os.kill(os.getpid(), signal.SIGTERM)
                    time.sleep(1)
                except BaseException:
                    if os.environ["DROPS"] == "no":
                        raise ValueError("in a library") from None
                time.sleep(100)

            hydra_script.UNWIND_S = 0.5 if os.environ["DROPS"] == "yes" else 50
            hydra_script.hydra_script(job)()
            """
        )
    )
    for drops, said in (("yes", []), ("no", ["stopped by SIGTERM: the same command goes on"])):
        environment = {**script_environment(), "DROPS": drops, "PYTHONPATH": f"{ROOT}:{ROOT / 'babyai-text'}"}
        command = [sys.executable, str(script), *small]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == STOPPED
        assert done.stderr.splitlines()[-1:] == said


@pytest.mark.parametrize(
    "call",
    [
        "sys.argv += ['--logs', '.', '--output', 'o']; report.make_report = library; test_results.script()",
        "clm_behavioral_cloning.clone = library; clm_behavioral_cloning.main()",
    ],
)
def test_scripts_without_hydra_likewise(tmp_path, call):
    code = textwrap.dedent(
        f"""
        import signal, sys
        from experiments import clm_behavioral_cloning, test_results
        from experiments.results import report

        def library(*_):
            try:
                signal.raise_signal(signal.SIGTERM)
            except BaseException:
                raise ImportError("in a library") from None

        {call}
        """
    )
    environment = {**script_environment(), "PYTHONPATH": f"{ROOT}:{ROOT / 'babyai-text'}"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (STOPPED, "stopped by SIGTERM: the same command goes on\n")


@pytest.mark.parametrize("number", HANDLED)
def test_a_signal_in_a_destructor_comes_again_after_it(listening, monkeypatch, capsys, number):
    """There python drops what is raised, with a traceback."""

    class Dropping:
        def __del__(self):
            signal.raise_signal(number)

    monkeypatch.setattr(stopping._State, "other_hook", lambda unraisable: pytest.fail("of what was dropped"))
    with pytest.raises(Stopped, match=f"stopped by {signal.Signals(number).name}"):  # noqa: PT012 (moments differ)
        Dropping()
        time.sleep(10)
    assert capsys.readouterr() == ("", "")
    with finishing_steps():
        listen_for_stop()
        Dropping()
        if number != signal.SIGINT:
            assert stop_signal() == signal.Signals(number).name  # nothing was raised there
        else:
            with pytest.raises(Stopped):
                time.sleep(10)


@pytest.mark.parametrize("number", HANDLED)
def test_a_signal_during_an_import_comes_again_after_it(listening, monkeypatch, tmp_path, number):
    """torch's C++ code drops what is raised while it imports Python modules, or aborts."""
    (tmp_path / "signalled.py").write_text(f"import signal\nsignal.raise_signal({int(number)})\ncomplete = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "signalled", raising=False)
    with pytest.raises(Stopped, match=f"stopped by {signal.Signals(number).name}"):  # noqa: PT012 (moments differ)
        module = importlib.import_module("signalled")
        assert module.complete
        time.sleep(10)
    assert sys.modules["signalled"].complete


def test_an_import_that_never_ends_is_interrupted(listening, monkeypatch, tmp_path):
    (tmp_path / "endless.py").write_text("import signal, time\nsignal.raise_signal(signal.SIGTERM)\ntime.sleep(10)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "endless", raising=False)
    monkeypatch.setattr(late_signals, "_PATIENCE_S", 0.2)
    start = time.monotonic()
    with pytest.raises(Stopped, match="stopped by SIGTERM"):
        importlib.import_module("endless")
    assert 0.2 <= time.monotonic() - start < 5


def test_what_others_drop_is_told_as_before(listening, monkeypatch):
    told = []
    monkeypatch.setattr(stopping._State, "other_hook", told.append)

    class Dropping:
        def __del__(self):
            raise ValueError("of no interest")

    Dropping()
    assert [str(unraisable.exc_value) for unraisable in told] == ["of no interest"]


@pytest.mark.parametrize("stopped", [False, True])
def test_signals_while_the_interpreter_ends_change_no_status(small, tmp_path, stopped):
    """It calls what libraries have registered, gives signal handlers up, then frees what is left."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import atexit, os, signal, sys
            from experiments.hydra_script import hydra_script

            def send(kill=os.kill, process=os.getpid(), numbers=(signal.SIGTERM, signal.SIGUSR1), write=os.write):
                for number in numbers:
                    kill(process, number)
                write(1, b"sent ")

            class Held:
                def __del__(self, send=send):
                    send()

            sys.held = Held()
            atexit.register(send)
            hydra_script(lambda config: {"signal.raise_signal(signal.SIGTERM)" if stopped else None})()
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_IGN  # a process that goes on hears it
            """
        )
    )
    environment = {**script_environment(), "PYTHONPATH": f"{ROOT}:{ROOT / 'babyai-text'}"}
    command = [sys.executable, str(script), *small]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    said = "stopped by SIGTERM: the same command goes on\n" if stopped else ""
    assert (done.returncode, done.stdout, done.stderr) == (STOPPED if stopped else 0, "sent sent ", said)


@pytest.mark.slow
@pytest.mark.parametrize("number", HANDLED)
@pytest.mark.parametrize("backend", ["sync", "process"])
def test_a_script_that_is_stopped_goes_on_exactly(small, tmp_path, number, backend):
    """The signal comes to every process of the run, as from SLURM, or Ctrl-C on a terminal."""
    # 20 updates: seconds of them are left when this process has seen the first
    run = [*small, *LONGER, "rl_script_args.num_steps=640", f"rl_script_args.vector_backend={backend}"]
    straight = elsewhere(run, tmp_path)
    train(make_config(straight))
    command = [sys.executable, str(ROOT / "experiments" / "train_language_agent.py"), *run]
    process = subprocess.Popen(
        command, env=script_environment(), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not (paths_of(run).logs / "run.json").exists() or record_of(run)["update"] < 1:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else STOPPED), errors
    assert "Traceback" not in errors
    update = record_of(run)["update"]
    assert (record_of(run)["state"], 1 <= update < 20) == ("stopped", True)
    assert errors.splitlines()[-1].startswith(f"stopped by {number.name}")
    train(make_config(run))
    assert_same_run(paths_of(run), paths_of(straight))
