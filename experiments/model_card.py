"""The model card of a checkpoint, with which `hf upload USER/NAME models/ID/last` publishes it as it is."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from yaml import YAMLError

from experiments.atomic_files import write_atomically
from experiments.checkpoint import CARD, MANIFEST, read_trainer
from experiments.experiment_paths import ExperimentPaths
from experiments.provenance import command_line
from experiments.results.intervals import wilson
from experiments.storage import StorageError

logger = logging.getLogger("glam")

METHODS = {"glam": ("GLAM", "2302.02662"), "twosome": ("TWOSOME", "2401.14151")}
AUTO = {"causal": "AutoModelForCausalLM", "seq2seq": "AutoModelForSeq2SeqLM"}


def write_card(
    checkpoint: Path,
    trainer: Mapping[str, Any],
    name: str,
    tests: Sequence[Mapping[str, Any]] = (),
    trained_by: Sequence[str] | None = None,
) -> None:
    """Write `README.md` into a checkpoint's folder.

    Args:
        trainer: what its trainer.json holds, or will hold.
        name: experiment id.
        tests: the facts of tests of this checkpoint (`post_training_tests`).
        trained_by: the command line of the training; None: this process's.
    """
    rl, llm = trainer["config"]["rl_script_args"], trainer["config"]["lamorel_args"]["llm_args"]
    method, paper = METHODS[rl.get("method", "glam")]  # checkpoints of version 0.3 know no other
    base, licence = base_model(str(llm["model_path"]))
    adapter = _adapter(checkpoint)
    data = ModelCardData(
        base_model=base,
        license=licence,
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-generation",
        tags=["reinforcement-learning", "ppo", method.lower()],
        model_name=name,
        eval_results=[_result(facts) for facts in tests] or None,
    )
    progress = trainer["progress"]
    start = "pretrained weights" if llm["pretrained"] else "random weights"
    trained = f"adapters (LoRA, r={adapter['r']})" if adapter else "all weights"
    policy = "action heads" if rl["use_action_heads"] else f"actions scored by `score_rule={rl['score_rule']}`"
    policy += ", calibrated by `calibration.json`" if rl.get("calibration", "none") != "none" else ""
    facts = {
        "base model": f"{base}, {start}",
        "licence": licence or "see the base model's",
        "method": f"{method} (arXiv {paper}): PPO, {policy}",
        "trained": trained,
        "level": rl["name_environment"],
        "seed": rl["seed"],
        "training": f"{progress['frames']:,} frames, {progress['episodes']:,} episodes, {progress['update']:,} updates",
        "value head": "`heads.safetensors`, keys `value.*`: an MLP on the last hidden state",
        "command": f"`{command_line(sys.argv if trained_by is None else trained_by)}`",
    }
    card = "\n".join(
        [
            f"---\n{data.to_yaml()}\n---\n",
            f"# {name}\n",
            f"A language model trained online as a policy by {method}.\n",
            *_table(("", ""), facts.items()),
            "\n## Results\n",
            *(_results(tests) if tests else ["Not tested yet: `experiments/post-training_tests.py` adds its results."]),
            "\n## Loading it\n",
            f"```python\n{_loading(llm['model_type'], base if adapter else None)}\n```\n",
            "`optimizer.pt`, `trainer.json` and `states.json` are for resuming the training.\n",
        ]
    )
    write_atomically(checkpoint / CARD, card)


def refresh_card(checkpoint: Path, paths: ExperimentPaths) -> None:
    """Write the card again, with the tests of this checkpoint that there are now.

    It stays as it is if the manifest lists it, as older ones do. It also stays, with a warning, if the folder cannot be
    written, a running training has just replaced it, or a file of results cannot be read.
    """
    try:
        if CARD not in json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["files"]:
            _refresh(checkpoint, paths)
    except (OSError, StorageError, ValueError, KeyError) as error:
        logger.warning("%s: the model card could not be refreshed (%r)", checkpoint, error)


def _refresh(checkpoint: Path, paths: ExperimentPaths) -> None:
    trainer = read_trainer(checkpoint)
    made_by = ("trained", trainer["update"])
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(paths.logs.glob("test/*/episodes/*.json"))]
    tests = [facts for facts in found if (facts["agent"], facts["checkpoint_update"]) == made_by]
    trained_by = json.loads((paths.logs / "provenance.json").read_text(encoding="utf-8"))["command"]
    write_card(checkpoint, trainer, paths.id, tests, trained_by)


def base_model(model_path: str) -> tuple[str, str | None]:
    """Name of the model that a `model_path` holds, and the licence that its card names, if it has one.

    A folder's name is the model's: `base_model` in its card is the model that it was made from. An adapter's is that of
    the model whose weights it adapts.
    """
    path = Path(model_path).expanduser()
    if not path.exists():
        return model_path, None
    if adapter := _adapter(path):
        return base_model(adapter["base_model_name_or_path"])
    real = path.resolve()
    return real.stem if real.is_file() else real.name, _licence(path / CARD)


def _adapter(folder: Path) -> dict[str, Any] | None:
    """peft's configuration of the adapter in a folder, None where there is none."""
    path = folder / "adapter_config.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _licence(card: Path) -> str | None:
    if not card.is_file():
        return None
    try:
        return ModelCard.load(card, ignore_metadata_errors=True).data.license
    except (ValueError, YAMLError):  # somebody else's file: no reason to lose a checkpoint
        return None


def _result(facts: Mapping[str, Any]) -> EvalResult:
    rl = facts["config"]["rl_script_args"]
    level, test = rl["name_environment"], f"{_test(facts)}, {rl['language']}"
    return EvalResult(
        task_type="reinforcement-learning",
        dataset_type=level,
        dataset_config=test,  # results that differ in the name alone are put under the first one's
        dataset_name=f"{level}, {test}",
        metric_type="success_rate",
        metric_value=facts["results"]["success_rate"],
    )


def _test(facts: Mapping[str, Any]) -> str:
    renamed = facts["config"]["rl_script_args"]["modified_action_space"]
    return facts["test"] + (", renamed actions" if renamed else "")


def _results(tests: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rows = []
    for facts in tests:
        results, rl = facts["results"], facts["config"]["rl_script_args"]
        episodes = results["episodes"]
        success = wilson(round(results["success_rate"] * episodes), episodes)
        rows.append((rl["name_environment"], _test(facts), rl["language"], episodes, success))
    return _table(("level", "test", "language", "episodes", "success [95% interval]"), rows)


def _table(header: Sequence[str], rows: Any) -> Iterator[str]:
    yield "| " + " | ".join(header) + " |"
    yield "|" + "---|" * len(header)
    for row in rows:
        yield "| " + " | ".join(map(str, row)) + " |"


def _loading(model_type: str, base: str | None) -> str:
    auto = AUTO[model_type]
    imports, model = f"from transformers import {auto}, AutoTokenizer\n\n", f'{auto}.from_pretrained("THIS")'
    if base is not None:
        imports = f"from peft import PeftModel\n{imports}"
        model = f'PeftModel.from_pretrained({auto}.from_pretrained("{base}"), "THIS")'
    return f'{imports}model = {model}\ntokenizer = AutoTokenizer.from_pretrained("THIS")'
