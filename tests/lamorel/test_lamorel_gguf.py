"""A GGUF file as `model_path`: read as plain weights, trained, saved as a plain model."""

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import TinyModel, make_tokenizer
from tiny_gguf import write_llama, write_t5

import lamorel.loading
from lamorel import BaseUpdater
from lamorel.config import LamorelConfigError
from lamorel.convert import convert

CONTEXTS, CANDIDATES = ["turn left go"], [["left", "right", "turn left"]]
LORA = {"r": 2, "alpha": 4, "target_modules": ["q_proj", "v_proj"]}
needs_gguf = pytest.mark.skipif(importlib.util.find_spec("gguf") is None, reason="the package gguf is not installed")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TinyModel]:
    """A file of a Llama, with tied embeddings, and one of a T5 1.1; each in a folder of its own."""
    folder = tmp_path_factory.mktemp("gguf")
    for name in ("llama", "t5"):
        (folder / name).mkdir()
    words = ["\u2581", *(f"\u2581{word}" for word in ("turn", "left", "right", "go")), *"abcdefghijklmnopqrstuvwxyz"]
    return {
        "llama": TinyModel("llama", "causal", write_llama(folder / "llama" / "tiny.Q8_0.gguf", make_tokenizer())),
        "t5": TinyModel("t5", "seq2seq", write_t5(folder / "t5" / "tiny.Q8_0.gguf", words)),
    }


@pytest.fixture
def llama_file(files: dict[str, TinyModel]) -> TinyModel:
    return files["llama"]


def expected_scores(tiny: TinyModel, dtype: torch.dtype = torch.float32) -> list[float]:
    """Those of Hugging Face's own loading, one sequence at a time."""
    cls = {"seq2seq": transformers.AutoModelForSeq2SeqLM, "causal": transformers.AutoModelForCausalLM}[tiny.model_type]
    where = {"pretrained_model_name_or_path": tiny.folder.parent, "gguf_file": tiny.folder.name}
    model, tokenizer = (
        cls.from_pretrained(**where, dtype=dtype).eval(),
        transformers.AutoTokenizer.from_pretrained(**where),
    )
    [context], *candidates = (
        tokenizer(texts, add_special_tokens=False)["input_ids"] for texts in (CONTEXTS, *([c] for c in CANDIDATES[0]))
    )
    scores = []
    for [ids] in candidates:
        with torch.no_grad():
            if tiny.model_type == "seq2seq":
                decoder_ids = torch.tensor([[model.config.decoder_start_token_id, *ids[:-1]]])
                logits = model(input_ids=torch.tensor([context]), decoder_input_ids=decoder_ids).logits[0]
            else:
                logits = model(input_ids=torch.tensor([context + ids[:-1]])).logits[0, len(context) - 1 :]
        scores.append(logits.float().log_softmax(-1)[range(len(ids)), ids].sum().item())
    return scores


@needs_gguf
@pytest.mark.parametrize("family", ["llama", "t5"])
def test_scores_are_those_of_hugging_face_and_are_saved(
    files: dict[str, TinyModel], family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny, expected = files[family], expected_scores(files[family])
    # a file of this name in the working folder, where transformers looks first
    (tmp_path / tiny.folder.name).write_bytes(b"another")
    monkeypatch.chdir(tmp_path)
    with tiny.caller() as caller:
        assert caller.score(CONTEXTS, CANDIDATES)[0].tolist() == pytest.approx(expected, abs=1e-4)
        caller.save(tmp_path / "saved")
    assert not {"quantization_config", "gguf_file"} & set(json.loads((tmp_path / "saved" / "config.json").read_text()))
    with TinyModel(family, tiny.model_type, tmp_path / "saved").caller() as caller:
        assert caller.score(CONTEXTS, CANDIDATES)[0].tolist() == pytest.approx(expected, abs=1e-4)
        caller.load(tmp_path / "saved")


@needs_gguf
def test_precision(llama_file: TinyModel) -> None:
    with llama_file.caller(dtype="bf16") as caller:
        assert {p.dtype for p in caller._worker.model.parameters()} == {torch.bfloat16}
        [scores] = caller.score(CONTEXTS, CANDIDATES)
    assert scores.tolist() == pytest.approx(expected_scores(llama_file, torch.bfloat16), abs=0.2)


@needs_gguf
def test_the_folder_of_a_file(llama_file: TinyModel, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(llama_file.folder.parent, tmp_path / "models"))
    tiny = TinyModel("llama", "causal", folder)
    with llama_file.caller() as one, tiny.caller() as other:
        torch.testing.assert_close(one.score(CONTEXTS, CANDIDATES), other.score(CONTEXTS, CANDIDATES))
        other.save(folder)
    with tiny.caller() as caller:  # the plain model, which is beside the file now
        assert caller._worker.model.name_or_path == str(folder)


def test_which_file_is_meant(tmp_path: Path) -> None:
    for name in ("one.Q4_1.gguf", "two.Q8_0.gguf"):
        (tmp_path / name).write_bytes(b"")
    tiny = TinyModel("llama", "causal", tmp_path)
    assert refusal(tiny) == (
        f"lamorel_args.llm_args.model_path: {tmp_path} holds several GGUF files (one.Q4_1.gguf, two.Q8_0.gguf): give "
        "the path of one"
    )
    (tmp_path / "three").write_bytes(b"")  # a file of another kind
    assert "three is a file, but no GGUF file" in refusal(TinyModel("llama", "causal", tmp_path / "three"))
    tiny = TinyModel("llama", "causal", tmp_path / "three.gguf")
    assert f"GGUF file {tiny.folder} does not exist" in refusal(tiny)
    assert "GGUF file three.gguf does not exist" in refusal(TinyModel("llama", "causal", Path("three.gguf")))
    tiny.folder.with_name("big-00001-of-00002.gguf").write_bytes(b"")
    tiny = TinyModel("llama", "causal", tmp_path / "big-00001-of-00002.gguf")
    assert "is a part of a model" in refusal(tiny)


@pytest.mark.parametrize("pretrained", [True, False])
def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pretrained: bool) -> None:
    monkeypatch.setattr(lamorel.loading, "is_gguf_available", lambda: False)
    (tmp_path / "tiny.gguf").write_bytes(b"")
    for path in (tmp_path, tmp_path / "tiny.gguf"):
        said = refusal(TinyModel("llama", "causal", path), pretrained=pretrained)
        assert said.startswith(
            f"lamorel_args.llm_args.model_path {path}: to read tiny.gguf, the package gguf is needed"
        )
        assert "pip install gguf, or convert" in said
        assert "gguf_file='tiny.gguf'" in said


def refusal(tiny: TinyModel, **llm_args: Any) -> str:
    """The one line that says why the model cannot be used."""
    with pytest.raises(LamorelConfigError) as caught:
        tiny.caller(**llm_args)
    [line] = str(caught.value).splitlines()
    return line


@needs_gguf
@pytest.mark.parametrize("kept", [0, 3, 20, 2000, -2000])
def test_a_damaged_file(llama_file: TinyModel, tmp_path: Path, kept: int) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(llama_file.folder.read_bytes()[: kept or None] if kept else b"")
    said = refusal(TinyModel("llama", "causal", damaged))
    assert said.startswith(f"lamorel_args.llm_args.model_path {damaged}: its configuration cannot be read: give")


@needs_gguf
def test_random_weights_of_its_architecture(llama_file: TinyModel) -> None:
    with llama_file.caller() as one, llama_file.caller(pretrained=False) as other:
        shapes = [{name: p.shape for name, p in c._worker.model.named_parameters()} for c in (one, other)]
        assert shapes[0] == shapes[1]
        assert not torch.equal(one.score(CONTEXTS, CANDIDATES)[0], other.score(CONTEXTS, CANDIDATES)[0])


class Climb(BaseUpdater):
    """Raises the score of the first candidate."""

    def setup(self) -> None:
        parameters = [p for p in self._llm_module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(parameters, lr=0.1)

    def perform_update(self, contexts: Any, candidates: Any, _current_batch_ids: Any, **kwargs: Any) -> float:
        [output] = self._llm_module(["__score"], contexts=contexts, candidates=candidates, require_grad=True)
        self.optimizer.zero_grad()
        (-output["__score"][0]).backward()
        self.optimizer.step()
        return output["__score"][0].item()


@needs_gguf
@pytest.mark.parametrize("lora", [None, LORA])
def test_training_and_resuming(llama_file: TinyModel, tmp_path: Path, lora: Any) -> None:
    # another file beside it: an adapter names the one that it was made for
    folder = Path(shutil.copytree(llama_file.folder.parent, tmp_path / "models"))
    shutil.copy(llama_file.folder, folder / "other.gguf")
    tiny = TinyModel("llama", "causal", folder / llama_file.folder.name)
    with tiny.caller(updater=Climb(), lora=lora) as caller:
        first = caller.update(CONTEXTS, CANDIDATES)[0]
        caller.save(tmp_path / "saved")
        [scores] = caller.score(CONTEXTS, CANDIDATES)
        assert scores[0] > first
        following = caller.update(CONTEXTS, CANDIDATES)
    with tiny.caller(updater=Climb(), lora=lora) as caller:
        caller.load(tmp_path / "saved")
        assert caller.update(CONTEXTS, CANDIDATES) == following
    with TinyModel("llama", "causal", tmp_path / "saved").caller() as caller:
        torch.testing.assert_close(caller.score(CONTEXTS, CANDIDATES), [scores])
    if lora is not None:
        adapter = json.loads((tmp_path / "saved" / "adapter_config.json").read_text())
        assert adapter["base_model_name_or_path"] == str(tiny.folder)


@needs_gguf
def test_quantised_again(llama_file: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lamorel.placement.check_quantization", lambda _: None)  # which needs a GPU
    said = refusal(llama_file, load_in_8bit=True)
    assert said.startswith("lamorel_args.llm_args.load_in_8bit cannot be combined with the GGUF file")


@needs_gguf
def test_a_file_is_converted_once(llama_file: TinyModel, tmp_path: Path) -> None:
    convert(str(llama_file.folder), tmp_path / "plain")
    converted = TinyModel("llama", "causal", tmp_path / "plain")
    with converted.caller() as caller:
        torch.testing.assert_close(
            caller.score(CONTEXTS, CANDIDATES)[0].tolist(), expected_scores(llama_file), rtol=0, atol=1e-4
        )
    with pytest.raises(LamorelConfigError, match="exists"):
        convert(str(llama_file.folder), tmp_path / "plain")
    assert [entry.name for entry in tmp_path.iterdir()] == ["plain"]
