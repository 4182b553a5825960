"""A script in which something goes wrong; `rl_script_args.job` says what. Processes leave their ids in its folder."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from lamorel import BaseModelInitializer, BaseModuleFunction, BaseUpdater, Caller, lamorel_init

FOLDER = Path(os.environ["RESULTS"]).parent
RANK = os.environ.get("RANK", "0")
CONTEXTS, CANDIDATES = ["a", "b", "c", "d"], [["x"]] * 4


class Slow(BaseModuleFunction):
    """Takes its time, in every process or in one."""

    def forward(self, forward_outputs: Any, minibatch: Any, tokenized_contexts: Any, **kwargs: Any) -> torch.Tensor:
        if kwargs.get("rank", RANK) == RANK:
            time.sleep(kwargs["seconds"])
        return torch.zeros(len(tokenized_contexts), 1)


class Unused(BaseModuleFunction):
    """A head that no loss reads."""

    def initialize(self) -> None:
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, forward_outputs: Any, minibatch: Any, tokenized_contexts: Any, **kwargs: Any) -> torch.Tensor:
        return self.weight.expand(len(tokenized_contexts), 1)


class Troubled(BaseUpdater):
    def perform_update(self, contexts: Any, candidates: Any, _current_batch_ids: Any, **kwargs: Any) -> Any:
        if kwargs.get("rank") == RANK:
            time.sleep(kwargs.get("seconds", 0))
            if kwargs.get("fail"):
                raise ZeroDivisionError("in the updater")
        if kwargs.get("hidden"):
            self.kept_elsewhere = torch.optim.Adam(self._llm_module.parameters())
        outputs = self._llm_module(["__score"], contexts=contexts, candidates=candidates, require_grad=True)
        torch.stack([output["__score"].sum() for output in outputs]).mean().backward()
        if kwargs.get("averages") == RANK:
            self._llm_module.mean_over_batch(torch.zeros(2))
        return "done"


class Initializer(BaseModelInitializer):
    def __init__(self, failing_rank: str | None) -> None:
        self.failing_rank = failing_rank

    def initialize_model(self, model: Any) -> Any:
        if self.failing_rank == RANK:
            raise ValueError("no such weights")
        return model


def say(text: object) -> None:
    """What the test reads."""
    with open(FOLDER / "said", "a") as file:
        file.write(f"{text}\n")


def say_and_wait(text: str) -> None:
    """Until every process has said it: who ends first has the others ended."""
    say(text)
    while (FOLDER / "said").read_text().splitlines().count(text) < int(os.environ["WORLD_SIZE"]):
        time.sleep(0.01)


def attempt(call: Any) -> None:
    """Says how a call fails, and after how many seconds."""
    start = time.monotonic()
    try:
        call()
    except Exception as error:
        cause = str(error.__cause__).strip().splitlines()[:1]
        say(f"{type(error).__name__} after {time.monotonic() - start:.0f} s: {error} / {cause}")


def start_children(*methods: str) -> list[Any]:
    """Processes that a script starts before its Caller: some wait for work, others have done theirs and are stopped."""
    _, pipe = multiprocessing.Pipe()
    program = [sys.executable, "-c", "import time; time.sleep(600)"]
    waiting: list[Any] = []
    for method in methods:
        context = multiprocessing.get_context(method)
        waiting += [context.Process(target=pipe.recv, daemon=daemon) for daemon in (True, False)]
    stopped: Any = multiprocessing.get_context("fork").Process(target=pipe.recv)
    for worker in (*waiting, stopped):
        worker.start()
    waiting += [subprocess.Popen(program), subprocess.Popen(program, start_new_session=True)]
    (FOLDER / f"children_{RANK}").write_text(" ".join(str(child.pid) for child in waiting))
    stopped.terminate()
    stopped.join()
    other = subprocess.Popen(program)
    other.terminate()
    other.wait()
    return waiting


def main(config: Any) -> None:
    job = config.rl_script_args.job
    print("every process prints this")
    if job == "no caller":
        if RANK != "0":
            time.sleep(300)
        return
    if job == "fails early":
        say_and_wait("failing")
        sys.exit("error: not like this")
    failing = "2" if job == "initializer" else None
    methods = {"children_and_close": ["fork"], "children_and_failure": ["fork", "spawn"]}
    children = start_children(*methods[job]) if job in methods else []
    made = []
    functions = {"slow": Slow()} | ({"unused": Unused()} if job == "unused_head" else {})
    attempt(lambda: made.append(Caller(config.lamorel_args, Troubled(), functions, Initializer(failing))))
    try:
        if made:
            JOBS[job](made[0])
    finally:
        for child in children:
            child.kill()


def loop(caller: Caller) -> None:
    say("looping")
    try:
        while True:
            caller.custom_module_fns(["slow"], CONTEXTS, seconds=0.3)
    finally:
        say("finally")


def updates(caller: Caller) -> None:
    say("looping")
    while True:
        caller.update(CONTEXTS, CANDIDATES, rank="2", seconds=2)


def late_answer(caller: Caller) -> None:
    attempt(lambda: caller.custom_module_fns(["slow"], CONTEXTS, seconds=30, rank="2"))
    attempt(lambda: caller.score(CONTEXTS, CANDIDATES))


def late_exchange(caller: Caller) -> None:
    attempt(lambda: caller.update(CONTEXTS, CANDIDATES, rank="2", seconds=30))


def failed_update(caller: Caller) -> None:
    attempt(lambda: caller.update(CONTEXTS, CANDIDATES, rank="2", fail=True))
    attempt(lambda: caller.score(CONTEXTS, CANDIDATES))
    caller.close()
    say("closed")


def mean_of_one(caller: Caller) -> None:
    attempt(lambda: caller.update(CONTEXTS, CANDIDATES, averages="2"))
    attempt(lambda: caller.score(CONTEXTS, CANDIDATES))
    caller.close()
    say("closed")


def unused_head(caller: Caller) -> None:
    attempt(lambda: caller.update(CONTEXTS, CANDIDATES))


def hidden_optimizer(caller: Caller) -> None:
    attempt(lambda: caller.update(CONTEXTS[:1], CANDIDATES[:1], hidden=True))
    caller.close()
    attempt(lambda: Caller(caller_config()))


def closes_early(caller: Caller) -> None:
    """Of two RL processes the second closes, while the first wants to update, and goes on for longer than allowed."""
    caller.score(CONTEXTS, CANDIDATES)
    if RANK == "1":
        attempt(caller.close)
        say("closed")
        return
    attempt(lambda: caller.update(CONTEXTS, CANDIDATES))
    deadline = time.monotonic() + 60
    while "closed" not in (FOLDER / "said").read_text().splitlines() and time.monotonic() < deadline:
        caller.score(CONTEXTS, CANDIDATES)


def children_and_close(caller: Caller) -> None:
    caller.score(CONTEXTS, CANDIDATES)
    start = time.monotonic()
    caller.close()
    say(f"closed after {time.monotonic() - start:.0f} s")


def children_and_failure(caller: Caller) -> None:
    caller.score(CONTEXTS, CANDIDATES)
    raise ZeroDivisionError("in the script")


def caller_config() -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.load(FOLDER / "config.yaml").lamorel_args


def checkpoint_on_sigterm(caller: Caller) -> None:
    class StopError(Exception):
        pass

    def stop(*_: Any) -> None:
        raise StopError

    signal.signal(signal.SIGTERM, stop)
    try:
        say("looping")
        while True:
            caller.custom_module_fns(["slow"], CONTEXTS, seconds=1)
    except StopError:
        caller.save(FOLDER / "checkpoint")
        say(f"saved {(FOLDER / 'checkpoint' / 'model.safetensors').is_file()}")


RUNNING = (loop, updates, late_answer, late_exchange, checkpoint_on_sigterm)
ENDING = (failed_update, mean_of_one, unused_head, hidden_optimizer, closes_early)
JOBS = {job.__name__: job for job in (*RUNNING, *ENDING, children_and_close, children_and_failure)}

if __name__ == "__main__":
    import hydra

    (FOLDER / f"pid_{RANK}").write_text(str(os.getpid()))
    if os.environ.get("EARLY_ACCELERATOR"):
        from accelerate import Accelerator

        accelerator = Accelerator()
        say_and_wait(f"accelerate sees {accelerator.num_processes}")
    lamorel_init()
    hydra.main(version_base="1.3", config_path=None)(main)()
