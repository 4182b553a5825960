"""Results do not depend on the number of LLM processes: everything is compared with the same calls in one process."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lamorel import Caller
from tests.lamorel.launched_jobs import CONTEXTS, WEIGHTS, extras, run_jobs
from tests.lamorel.launching import Launch, lamorel_args


@pytest.fixture(scope="module")
def in_process(tiny_models: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with Caller(tiny_models["t5"].config(), *extras()) as caller:
        return run_jobs(caller, tmp_path_factory.mktemp("in_process"))


@pytest.fixture(scope="module", params=[1, 2, 3], ids=lambda n: f"{n} LLM processes")
def launched(request: Any, tiny_models: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    launch = Launch.of(tmp_path_factory.mktemp("launched"), lamorel_args(tiny_models["t5"], request.param))
    # One of them without our launcher, as it is to make no difference.
    process = launch.start(launch.torchrun(2) if request.param == 1 else launch.command())
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert (output, errors) == ("", "")
    found = torch.load(launch.folder / "results_0.pt", weights_only=False)
    return found | {"folder": launch.folder, "n_llm": request.param}


def test_scores_functions_and_texts(launched: dict[str, Any], in_process: dict[str, Any]) -> None:
    for name in ("scores", "functions"):
        torch.testing.assert_close(launched[name], in_process[name], rtol=0, atol=1e-4)
    torch.testing.assert_close([o["__score"] for o in launched["reversed scores"]], in_process["scores"])
    assert [o["__tokens"].tolist() for o in launched["reversed scores"]] == [
        o["__tokens"].tolist() for o in in_process["reversed scores"]
    ]
    for found, expected in zip(launched["generated"], in_process["generated"], strict=True):
        assert [beam["text"] for beam in found] == [beam["text"] for beam in expected]
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one["tokens_probability"], other["tokens_probability"])
    assert launched["nothing"] == []
    torch.testing.assert_close(launched["arrays"], in_process["scores"], rtol=0, atol=1e-4)
    assert [len(scores) for scores in launched["empty groups"]] == [0, 2, 2, 2, 0]
    assert launched["accelerator"] == (0, launched["n_llm"] + 1)


def test_control_messages_reach_every_llm_process(launched: dict[str, Any]) -> None:
    """Six contexts without a text, or with the same one, are divided evenly among one, two or three processes."""
    expected: list[tuple[Any, Any]] = [(None, [None]), ("", [""]), ("a", None)]
    for results, (context, group) in zip(launched["control"], expected, strict=True):
        assert len(results) == launched["n_llm"]
        assert sorted(i for result in results for i in result["ids"]) == list(range(6))
        for result in results:
            size = 6 // launched["n_llm"]
            assert (len(result["ids"]), result["contexts"]) == (size, [context] * size)
            assert result["candidates"] == (None if group is None else [group] * size)
            assert result["note"] == "save"


def test_an_exception_comes_with_its_traceback(launched: dict[str, Any], in_process: dict[str, Any]) -> None:
    text, cause = launched["error"]
    assert text == in_process["error"][0] == "'mine'"
    assert "(LLM process " in cause
    assert 'raise kwargs["wrong"]' in cause


@pytest.mark.parametrize("way", ["accumulate", "plain", "minibatches"])
@pytest.mark.parametrize("size", [5, 1])
def test_one_step_of_gradient_descent(
    launched: dict[str, Any], in_process: dict[str, Any], way: str, size: int
) -> None:
    [expected] = in_process[f"sgd {way} {size}"].unique(dim=0)
    start = in_process["weights at first"][0]
    assert (expected - start).abs().max() > 1e-3
    for found in launched[f"sgd {way} {size}"]:
        assert (found - expected).norm() <= 1e-4 * (expected - start).norm()  # a wrong weight of a share is over 10 %
        assert (found - expected).norm() <= 1e-6 * expected.norm()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert launched[f"sgd {way} {size} ids"] == list(range(size))


@pytest.mark.parametrize("size", [5, 2, 1])
def test_processes_decide_by_a_mean_over_the_batch(
    launched: dict[str, Any], in_process: dict[str, Any], size: int
) -> None:
    """With 3 processes and batches of 2 and 1 some have no share."""
    [expected] = in_process[f"means {size}"]
    assert expected[1] == (size - 1) / 2  # of the positions 0 .. size - 1
    for found in launched[f"means {size}"]:
        assert torch.equal(found, launched[f"means {size}"][0])
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    start = in_process["weights at first"][0]
    for found in launched[f"dropped {size}"]:
        assert torch.equal(found, launched["weights at first"][0])
    [decided] = in_process[f"decided {size}"].unique(dim=0)
    for found in launched[f"decided {size}"]:
        assert (found - decided).norm() <= 1e-4 * (decided - start).norm()


def test_parameters_that_an_updater_freezes_and_thaws(launched: dict[str, Any], in_process: dict[str, Any]) -> None:
    for name in ("frozen", "thawed"):
        [expected] = in_process[name].unique(dim=0)
        for found in launched[name]:  # LLM processes without a share, too
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert not torch.equal(in_process["thawed"], in_process["frozen"])


def test_processes_stay_equal(launched: dict[str, Any], in_process: dict[str, Any]) -> None:
    for name in ("weights at first", "adam", "uneven", "loaded", "further"):
        assert len(launched[name].unique(dim=0)) == 1, name
    torch.testing.assert_close(launched["adam"], in_process["adam"], rtol=1e-4, atol=1e-5)
    assert (launched["adam"] - launched["weights at first"]).abs().max() > 1e-3
    assert torch.equal(launched["loaded"], launched["adam"])
    assert torch.equal(launched["further once more"], launched["further"])
    assert not torch.equal(launched["uneven"], launched["weights at first"])


def test_a_checkpoint_is_as_in_process(launched: dict[str, Any], tiny_models: Any) -> None:
    with Caller(tiny_models["t5"].config(), *extras()) as caller:
        caller.load(launched["folder"] / "adam")
        scores = caller.score(CONTEXTS, [["drop"]] * 5)
        assert len(scores) == 5
        state = caller._worker._updater._pending_optimizer_state
        assert state["state"][0]["step"] == 4
    assert Path(launched["folder"] / "adam" / "model.safetensors").is_file()


def test_two_rl_processes(tiny_models: Any, in_process: dict[str, Any], tmp_path: Path) -> None:
    launch = Launch.of(tmp_path, lamorel_args(tiny_models["t5"], n_llm=2, n_rl=2))
    process = launch.start(launch.command())
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert (output, errors) == ("", "")
    one, other = (torch.load(tmp_path / f"results_{rank}.pt", weights_only=False) for rank in (0, 1))
    torch.testing.assert_close(one["scores"] + other["scores"], in_process["scores"], rtol=0, atol=1e-4)
    torch.testing.assert_close(one["functions"] + other["functions"], in_process["functions"], rtol=0, atol=1e-4)
    # The batch was that of both, in the order of their ranks, and both were told the whole result.
    assert sorted(i for result in one["results"] for i in result["ids"]) == list(range(5))
    torch.testing.assert_close(other["results"], one["results"])
    for result in one["results"]:
        assert torch.equal(result["weights"], WEIGHTS[result["ids"]])
    expected = in_process["sgd accumulate 5"][0]
    for found in (*one["updated"], *other["updated"]):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
