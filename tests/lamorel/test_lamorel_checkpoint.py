"""Saving and loading: bit for bit, in place, and never half."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from test_lamorel_updates import Value, losses

from lamorel import BaseUpdater
from lamorel.checkpoint import CheckpointError

CONTEXTS = ["you see the red ball", "a", "turn left and right; the ball is ahead of you"]
CANDIDATES = [["turn left", "drop"], ["go forward", "x"], ["pick up", "turn right"]]
LORA = {
    "t5": {"r": 2, "alpha": 4, "target_modules": ["q", "v"]},
    "llama": {"r": 2, "alpha": 4, "target_modules": ["q_proj", "v_proj"]},
}


class Learner(BaseUpdater):
    """Adam on all trained parameters, made in setup."""

    def setup(self) -> None:
        self.optimizer = torch.optim.Adam([p for p in self._llm_module.parameters() if p.requires_grad], lr=1e-3)

    def perform_update(self, contexts: Any, candidates: Any, _current_batch_ids: Any, **kwargs: Any) -> None:
        self.optimizer.zero_grad()
        weights = torch.tensor([1.0, -1.0, 2.0])
        self.accumulate(losses, ["__score", "value"], contexts, candidates, weights=weights)
        self.optimizer.step()


class LateLearner(Learner):
    """Adam made in the first update, as upstream's examples do."""

    def setup(self) -> None:
        pass

    def perform_update(self, *args: Any, **kwargs: Any) -> None:
        if not hasattr(self, "optimizer"):
            super().setup()
        super().perform_update(*args, **kwargs)


class OwnState(Learner):
    """Keeps its state itself, under another name."""

    def setup(self) -> None:
        super().setup()
        self.adam = self.__dict__.pop("optimizer")
        self.updates = 0

    def perform_update(self, *args: Any, **kwargs: Any) -> None:
        self.updates += 1
        self.optimizer = self.adam
        super().perform_update(*args, **kwargs)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        self.adam.load_state_dict(state["adam"])


def weights(caller: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in caller._worker._llm.module.state_dict().items()}


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("learner", [Learner, LateLearner, OwnState])
@pytest.mark.parametrize("lora", [False, True])
def test_the_next_update_is_repeated_bit_for_bit(tiny_pair: Any, tmp_path: Path, learner: Any, lora: bool) -> None:
    options = {"functions": {"value": Value()}, "lora": LORA[tiny_pair.family] if lora else None}
    with tiny_pair.caller(updater=learner(), **options) as caller:
        start = weights(caller)
        caller.update(CONTEXTS, CANDIDATES)
        caller.save(tmp_path / "last")
        saved = weights(caller)
        caller.update(CONTEXTS, CANDIDATES)
        expected = weights(caller)
    options["functions"] = {"value": Value()}
    with tiny_pair.caller(updater=learner(), **options) as caller:
        assert_equal(weights(caller), start)
        caller.load(tmp_path / "last")
        assert_equal(weights(caller), saved)
        caller.save(tmp_path / "again")  # before any update: nothing may be lost on the way
        caller.update(CONTEXTS, CANDIDATES)
        assert_equal(weights(caller), expected)
        caller.load(tmp_path / "again")
        caller.update(CONTEXTS, CANDIDATES)
        assert_equal(weights(caller), expected)


def test_loading_keeps_the_tensors(t5: Any, tmp_path: Path) -> None:
    with t5.caller(updater=Learner(), functions={"value": Value()}) as caller:
        caller.save(tmp_path)
        before = {name: p.data_ptr() for name, p in caller._worker._llm.module.named_parameters()}
        caller.load(tmp_path)
        after = {name: p.data_ptr() for name, p in caller._worker._llm.module.named_parameters()}
    assert before == after
    assert all(address % 64 == 0 for address in after.values())  # torch's own alignment, not that of a mapped file


def test_hugging_face_reads_the_folder(tiny: Any, tmp_path: Path) -> None:
    auto = {"seq2seq": transformers.AutoModelForSeq2SeqLM, "causal": transformers.AutoModelForCausalLM}
    with tiny.caller(updater=Learner(), functions={"value": Value()}) as caller:
        caller.update(CONTEXTS, CANDIDATES)
        caller.save(tmp_path / "made" / "here")
        expected = {name: t.clone() for name, t in caller._worker._llm.module._LLM_model.state_dict().items()}
    model = auto[tiny.model_type].from_pretrained(tmp_path / "made" / "here")
    assert_equal(model.state_dict(), expected)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "made" / "here")
    assert tokenizer("turn left")["input_ids"]
    torch.load(tmp_path / "made" / "here" / "optimizer.pt", weights_only=True)


def test_a_caller_without_updater_reads_a_training_checkpoint(t5: Any, tmp_path: Path) -> None:
    with t5.caller(updater=Learner(), functions={"value": Value()}) as caller:
        caller.update(CONTEXTS, CANDIDATES)
        caller.save(tmp_path)
        expected = caller.score(CONTEXTS, CANDIDATES, ["value"])
    with t5.caller(functions={"value": Value()}) as caller:
        caller.load(tmp_path)
        for found, output in zip(caller.score(CONTEXTS, CANDIDATES, ["value"]), expected, strict=True):
            assert_equal(found, output)


class WideValue(Value):
    def initialize(self) -> None:
        self.linear = torch.nn.Linear(self.llm_config.hidden_size, 2)


def test_a_checkpoint_of_another_shape_leaves_everything_as_it_was(t5: Any, tiny_models: Any, tmp_path: Path) -> None:
    with t5.caller(updater=Learner(), functions={"value": Value()}) as caller:
        caller.update(CONTEXTS, CANDIDATES)
        caller.save(tmp_path / "good")
    cases = [
        ({"functions": {"value": WideValue()}}, r"good: tensor value.linear.weight has shape \(1, 32\), but \(2, 32\)"),
        ({"functions": {"other": Value()}}, "has no tensor other.linear.weight"),
        ({}, "has a tensor value.linear.*, which the live model does not have"),
        ({"functions": {"value": Value()}, "lora": LORA["t5"]}, "holds no adapter.*lamorel_args.llm_args.lora"),
    ]
    for options, message in cases:
        with t5.caller(updater=Learner(), **options) as caller:
            before = weights(caller)
            with pytest.raises(CheckpointError, match=message):
                caller.load(tmp_path / "good")
            assert_equal(weights(caller), before)
            assert not caller._worker._updater.optimizer.state
    with tiny_models["t5-relu"].caller(functions={"value": Value()}) as caller:
        before = weights(caller)
        with pytest.raises(CheckpointError, match="tensor"):
            caller.load(tmp_path / "good")
        assert_equal(weights(caller), before)


def test_an_optimizer_of_other_groups_leaves_everything_as_it_was(t5: Any, tmp_path: Path) -> None:
    class HeadOnly(Learner):
        def setup(self) -> None:
            self.optimizer = torch.optim.Adam(self._llm_module.module._module_functions.parameters())

    with t5.caller(updater=HeadOnly(), functions={"value": Value()}) as caller:
        caller.update(CONTEXTS, CANDIDATES)
        caller.save(tmp_path)
    with t5.caller(updater=Learner(), functions={"value": Value()}) as caller:
        before = weights(caller)
        with pytest.raises(CheckpointError, match=r"parameters per group are \[2\]"):
            caller.load(tmp_path)
        assert_equal(weights(caller), before)
        (tmp_path / "optimizer.pt").unlink()
        with pytest.raises(CheckpointError, match=r"has no optimizer\.pt, but Learner has state"):
            caller.load(tmp_path)
        with pytest.raises(CheckpointError, match="is not a checkpoint"):
            caller.load(tmp_path / "nowhere")
        assert_equal(weights(caller), before)


def test_an_optimizer_in_an_updaters_own_state_is_checked_by_its_name(t5: Any, tmp_path: Path) -> None:
    class Named(OwnState):
        def setup(self) -> None:
            self.updates, self.adam = 0, torch.optim.Adam(self._llm_module.parameters())

    class OfTheHead(Named):
        def setup(self) -> None:
            self.updates, self.adam = 0, torch.optim.Adam(self._llm_module.module._module_functions.parameters())

    with t5.caller(updater=OfTheHead(), functions={"value": Value()}) as caller:
        caller.save(tmp_path)
        caller.load(tmp_path)
    with t5.caller(updater=Named(), functions={"value": Value()}) as caller:
        before = weights(caller)
        with pytest.raises(CheckpointError, match=r"parameters per group are \[2\], but \[\d+\] in the live adam"):
            caller.load(tmp_path)
        assert_equal(weights(caller), before)


def test_trained_weights_beside_an_adapter_are_not_silently_dropped(t5: Any, tmp_path: Path) -> None:
    with t5.caller(lora=LORA["t5"]) as caller:
        caller._worker._llm.module._LLM_model.get_input_embeddings().weight.requires_grad_(True)
        with pytest.raises(CheckpointError, match=r"shared.* is trained but is no part of the adapter"):
            caller.save(tmp_path)


DAMAGE = ["heads.safetensors", "model.safetensors", "optimizer.pt", "config.json"]


@pytest.mark.parametrize("name", DAMAGE)
@pytest.mark.parametrize("damage", ["empty", "cut", "noise"])
def test_a_damaged_checkpoint_leaves_everything_as_it_was(t5: Any, tmp_path: Path, name: str, damage: str) -> None:
    with t5.caller(updater=Learner(), functions={"value": Value()}) as caller:
        caller.update(CONTEXTS, CANDIDATES)
        caller.save(tmp_path)
    path = tmp_path / name
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "noise": b"\xff\x00noise" * 100}[damage])
    assert_not_loaded(t5, tmp_path, r"cannot be read, it is damaged or incomplete: load another checkpoint \(.")


def test_a_missing_tensor_is_not_made_up(t5: Any, tmp_path: Path) -> None:
    with t5.caller(updater=Learner(), functions={"value": Value()}) as caller:
        caller.save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    name = next(name for name in tensors if "SelfAttention.q" in name)
    del tensors[name]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert_not_loaded(t5, tmp_path, f"has no tensor {name}")


def test_a_state_that_the_updater_refuses_leaves_the_model_as_it_was(t5: Any, tmp_path: Path) -> None:
    class Refuses(OwnState):
        def load_state_dict(self, state: dict[str, Any]) -> None:
            raise ValueError("not mine")

    with t5.caller(updater=Refuses(), functions={"value": Value()}) as caller:
        caller.update(CONTEXTS, CANDIDATES)
        caller.save(tmp_path)
        caller.update(CONTEXTS, CANDIDATES)
        before = weights(caller)
        with pytest.raises(ValueError, match="not mine"):
            caller.load(tmp_path)
        assert_equal(weights(caller), before)


def assert_not_loaded(tiny: Any, folder: Path, message: str) -> None:
    with tiny.caller(updater=Learner(), functions={"value": Value()}) as caller:
        caller.update(CONTEXTS, CANDIDATES)
        before = weights(caller)
        steps = [state["step"].item() for state in caller._worker._updater.optimizer.state.values()]
        with pytest.raises(CheckpointError, match=message) as caught:
            caller.load(folder)
        assert "\n" not in str(caught.value)
        assert str(folder) in str(caught.value)
        assert_equal(weights(caller), before)
        assert [state["step"].item() for state in caller._worker._updater.optimizer.state.values()] == steps
