"""What a launched script and the same script in one process both do, to be compared: `run_jobs(caller, folder)`.

As a script it makes its Caller, runs the jobs and leaves their results in the file `$RESULTS`.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lamorel import BaseModuleFunction, BaseUpdater, Caller, lamorel_init

CONTEXTS = ["you see the red ball", "a", "turn left and right; the ball is ahead of you", "goal: pick up", "ball"]
CANDIDATES = [["turn left", "turn right", "drop"], ["go forward", "drop"], ["toggle", "pick up"], ["x", "yz"], ["a"]]
WEIGHTS = torch.tensor([1.0, -2.0, 0.5, 3.0, 0.1])


class Value(BaseModuleFunction):
    """A value head on the root position; adds what it is given."""

    context_only = True

    def initialize(self) -> None:
        self.linear = torch.nn.Linear(self.llm_config.hidden_size, 1)

    def forward(self, forward_outputs: Any, minibatch: Any, tokenized_contexts: Any, **kwargs: Any) -> torch.Tensor:
        if "wrong" in kwargs:
            raise kwargs["wrong"]
        states = forward_outputs.get("decoder_hidden_states")
        states = forward_outputs["hidden_states"] if states is None else states
        return self.linear(states[-1][:, 0]) + kwargs.get("offset", torch.zeros(1)).sum()


class AllWeights(BaseModuleFunction):
    """Every parameter of the process that answers, one row per context."""

    context_only = True
    updater: Any = None

    def forward(self, forward_outputs: Any, minibatch: Any, tokenized_contexts: Any, **kwargs: Any) -> torch.Tensor:
        parameters = self.updater[0]._llm_module.parameters()
        return torch.cat([p.detach().flatten() for p in parameters]).expand(len(tokenized_contexts), -1)


class Learner(BaseUpdater):
    """One optimizer step per update, `way` says how."""

    def perform_update(self, contexts: Any, candidates: Any, _current_batch_ids: Any, **kwargs: Any) -> Any:
        if "trainable" in kwargs:
            self._llm_module.module._LLM_model.requires_grad_(kwargs["trainable"])
        parameters = list(self._llm_module.parameters())
        if kwargs["optimizer"] == "sgd":
            optimizer: Any = torch.optim.SGD(parameters, lr=0.05)
        else:
            if not hasattr(self, "optimizer"):
                self.optimizer = torch.optim.Adam(parameters, lr=1e-3, eps=1e-3)
            optimizer = self.optimizer
        if kwargs["way"] == "control":
            return {"contexts": contexts, "candidates": candidates, "ids": _current_batch_ids, "note": kwargs["note"]}
        weights = kwargs["weights"][_current_batch_ids]
        optimizer.zero_grad()
        if kwargs["way"] == "accumulate":
            self.tokens_per_chunk = 20
            self.accumulate(losses, ["__score", "value"], contexts, candidates, weights=weights)
            optimizer.step()
        elif kwargs["way"] == "plain":
            self._plain(contexts, candidates, weights).mean().backward()
            optimizer.step()
        elif kwargs["way"] == "decided":  # by a number of the whole batch: a step, or none
            own = self.accumulate(losses, ["__score", "value"], contexts, candidates, weights=weights)
            ids = torch.tensor(_current_batch_ids, dtype=torch.float64)
            means = self._llm_module.mean_over_batch(torch.stack([own.double().mean(), ids.mean()]))
            if means[0] > kwargs["limit"]:
                optimizer.step()
            else:
                optimizer.zero_grad()
            return {"ids": list(_current_batch_ids), "means": means}
        elif kwargs["way"] == "minibatches":  # more of them where the share is larger
            for i in range(0, len(contexts), 2):
                some = self._plain(contexts[i : i + 2], candidates[i : i + 2], weights[i : i + 2])
                (some.sum() / len(contexts)).backward()
            optimizer.step()
        else:  # as many backward passes as there are contexts in the share
            for i in range(len(contexts)):
                self._plain(contexts[i : i + 1], candidates[i : i + 1], weights[i : i + 1]).mean().backward()
                torch.nn.utils.clip_grad_norm_(parameters, 0.1)
                optimizer.step()
                optimizer.zero_grad()
        return {"ids": list(_current_batch_ids), "weights": weights}

    def _plain(self, contexts: Any, candidates: Any, weights: torch.Tensor) -> torch.Tensor:
        keys = ["__score", "value"]
        outputs = self._llm_module(keys, contexts=contexts, candidates=candidates, require_grad=True)
        return losses(outputs, weights)


def losses(outputs: Any, weights: torch.Tensor) -> torch.Tensor:
    policy = torch.stack([output["__score"].log_softmax(0)[0] for output in outputs])
    values = torch.stack([output["value"][0, 0] for output in outputs])
    return 0.01 * (weights * policy + (values - weights) ** 2)


def extras() -> tuple[Learner, dict[str, BaseModuleFunction]]:
    """Updater and functions."""
    updater, weights = Learner(), AllWeights()
    weights.updater = (updater,)
    return updater, {"value": Value(), "all_weights": weights}


def all_weights(caller: Caller) -> torch.Tensor:
    """(12, parameters): with so many equal contexts every LLM process answers for some."""
    outputs = caller.custom_module_fns(["all_weights"], ["a"] * 12)
    return torch.cat([output["all_weights"] for output in outputs])


def run_jobs(caller: Caller, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"scores": caller.score(CONTEXTS, CANDIDATES)}
    reverse = caller.score(CONTEXTS[::-1], CANDIDATES[::-1], ["value", "__tokens"], offset=torch.ones(3))
    found["reversed scores"] = reverse[::-1]
    found["functions"] = caller.custom_module_fns(["value"], CONTEXTS, offset=torch.full((100_000,), 1e-5))
    found["generated"] = caller.generate(CONTEXTS, max_new_tokens=4, num_beams=2, num_return_sequences=2)
    found["nothing"] = caller.score([], [])
    found["arrays"] = caller.score(np.array(CONTEXTS), [np.array(group) for group in CANDIDATES])
    found["empty groups"] = caller.score(CONTEXTS, [[], *CANDIDATES[1:4], []])
    found["accelerator"] = (caller.accelerator.process_index, caller.accelerator.num_processes)
    found["control"] = [
        caller.update([text] * 6, groups, optimizer="sgd", way="control", note="save")
        for text, groups in ((None, [[None]] * 6), ("", [[""]] * 6), ("a", None))
    ]
    try:
        caller.score(CONTEXTS, CANDIDATES, ["value"], wrong=KeyError("mine"))
    except KeyError as error:
        found["error"] = (str(error), str(error.__cause__))
    found["weights at first"] = all_weights(caller)
    caller.save(folder / "start")
    for way in ("accumulate", "plain", "minibatches"):
        for size in (5, 1):
            results = _update(caller, size, "sgd", way)
            found[f"sgd {way} {size}"] = all_weights(caller)
            found[f"sgd {way} {size} ids"] = sorted(i for result in results for i in result["ids"])
            caller.load(folder / "start")
    for size in (5, 2, 1):
        dropped = _update(caller, size, "sgd", "decided", limit=float("inf"))
        found[f"means {size}"] = [result["means"] for result in dropped]
        mean = dropped[0]["means"][0].item()  # that of no process's share alone
        _update(caller, size, "sgd", "decided", limit=mean + 1e-4)
        found[f"dropped {size}"] = all_weights(caller)
        _update(caller, size, "sgd", "decided", limit=mean - 1e-4)
        found[f"decided {size}"] = all_weights(caller)
        caller.load(folder / "start")
    _update(caller, 1, "sgd", "plain", trainable=False)
    found["frozen"] = all_weights(caller)
    _update(caller, 5, "sgd", "plain", trainable=True)
    found["thawed"] = all_weights(caller)
    caller.load(folder / "start")
    _update(caller, 5, "sgd", "uneven")
    found["uneven"] = all_weights(caller)
    caller.load(folder / "start")
    for size in (1, 5, 2, 5):
        _update(caller, size, "adam", "accumulate")
    found["adam"] = all_weights(caller)
    caller.save(folder / "adam")
    _update(caller, 5, "adam", "plain")
    found["further"] = all_weights(caller)
    caller.load(folder / "adam")
    found["loaded"] = all_weights(caller)
    _update(caller, 5, "adam", "plain")
    found["further once more"] = all_weights(caller)
    return found


def _update(caller: Caller, size: int, optimizer: str, way: str, **more: Any) -> list[Any]:
    kwargs = {"weights": WEIGHTS[:size], "optimizer": optimizer, "way": way, **more}
    return caller.update(CONTEXTS[:size], CANDIDATES[:size], **kwargs)


def run_as_one_of_two(caller: Caller, rank: int, folder: Path) -> dict[str, Any]:
    """What two RL processes do with the same LLM processes: `rank` 0 has the first two contexts, 1 the others."""
    own = slice(0, 2) if rank == 0 else slice(2, 5)
    found: dict[str, Any] = {}
    for _ in range(3 + 10 * rank):  # as many calls as each likes
        found["scores"] = caller.score(CONTEXTS[own], CANDIDATES[own])
    # Larger than what a connection holds: neither may wait for the other to read first.
    large = torch.full((1_000_000,), 1e-6)
    found["functions"] = caller.custom_module_fns(["value"], CONTEXTS[own], offset=large)
    kwargs = {"weights": WEIGHTS[own], "optimizer": "sgd", "way": "accumulate"}
    found["results"] = caller.update(CONTEXTS[own], CANDIDATES[own], **kwargs)
    found["updated"] = all_weights(caller)
    caller.save(folder / "together")
    caller.load(folder / "together")
    return found


def main(lamorel_args: Any) -> None:
    lamorel_init()
    results = Path(os.environ["RESULTS"])
    rank = int(os.environ.get("RANK", "0"))
    with Caller(lamorel_args, *extras()) as caller:
        if lamorel_args.distributed_setup_args.n_rl_processes == 1:
            found = run_jobs(caller, results.parent)
        else:
            found = run_as_one_of_two(caller, rank, results.parent)
    torch.save(found, results.with_name(f"results_{rank}.pt"))


if __name__ == "__main__":
    import hydra

    hydra.main(version_base="1.3", config_path=None)(lambda config: main(config.lamorel_args))()
