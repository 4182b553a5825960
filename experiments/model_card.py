"""The model card of a checkpoint, with which `hf upload USER/NAME models/ID/last` publishes it as it is."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from experiments.atomic_files import write_atomically
from experiments.checkpoint import CARD, MANIFEST, read_trainer
from experiments.experiment_paths import ExperimentPaths
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
    method, paper = METHODS[rl["method"]]
    base, licence = base_model(str(llm["model_path"]))
    adapters = (checkpoint / "adapter_config.json").is_file()
    data = ModelCardData(
        base_model=base,
        license=licence,
        library_name="peft" if adapters else "transformers",
        pipeline_tag="text-generation",
        tags=["reinforcement-learning", "ppo", method.lower()],
        model_name=name,
        eval_results=[_result(facts) for facts in tests] or None,
    )
    progress = trainer["progress"]
    start = "pretrained weights" if llm["pretrained"] else "random weights"
    trained = f"adapters (LoRA, r={llm['lora']['r']})" if adapters and llm["lora"] else "all weights"
    score = f"`{rl['score_rule']}` of the token log-probabilities"
    score += ", calibrated by `calibration.json`" if rl.get("calibration", "none") != "none" else ""
    facts = {
        "base model": f"{base}, {start}",
        "licence": licence or "see the base model's",
        "method": f"{method} (arXiv {paper}): PPO, actions scored by {score}",
        "trained": trained,
        "level": rl["name_environment"],
        "seed": rl["seed"],
        "training": f"{progress['frames']:,} frames, {progress['episodes']:,} episodes, {progress['update']:,} updates",
        "value head": "`heads.safetensors`, keys `value.*`: an MLP on the last hidden state",
        "command": f"`{_command(sys.argv if trained_by is None else trained_by)}`",
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
            f"```python\n{_loading(llm['model_type'], base if adapters else None)}\n```\n",
            "`optimizer.pt`, `trainer.json` and `states.json` are for resuming the training.\n",
        ]
    )
    write_atomically(checkpoint / CARD, card)


def refresh_card(checkpoint: Path, paths: ExperimentPaths) -> None:
    """Write the card again, with the tests of this checkpoint that there are now.

    It stays as it is where the manifest lists it, as older ones do, and, with a warning, where the folder cannot be
    written or a training that runs has just replaced it.
    """
    try:
        if CARD not in json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["files"]:
            _refresh(checkpoint, paths)
    except (OSError, StorageError) as error:
        logger.warning("%s: the model card could not be refreshed (%s)", checkpoint, error)


def _refresh(checkpoint: Path, paths: ExperimentPaths) -> None:
    trainer = read_trainer(checkpoint)
    made_by = ("trained", trainer["update"])
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(paths.logs.glob("test/*/episodes/*.json"))]
    tests = [facts for facts in found if (facts["agent"], facts["checkpoint_update"]) == made_by]
    trained_by = json.loads((paths.logs / "provenance.json").read_text(encoding="utf-8"))["command"]
    write_card(checkpoint, trainer, paths.id, tests, trained_by)


def base_model(model_path: str) -> tuple[str, str | None]:
    """Name and licence of a base model; where it is a folder, its own card's, if it has one."""
    folder = Path(model_path).expanduser()
    if not folder.exists():
        return model_path, None
    card = folder / CARD
    data = ModelCard.load(card).data if card.is_file() else ModelCardData()
    base = data.base_model if isinstance(data.base_model, str) else None
    return base or folder.resolve().stem, data.license


def _command(arguments: Sequence[str]) -> str:
    script, *overrides = arguments
    return shlex.join(["python", f"experiments/{Path(script).name}", *overrides])


def _result(facts: Mapping[str, Any]) -> EvalResult:
    level = facts["config"]["rl_script_args"]["name_environment"]
    return EvalResult(
        task_type="reinforcement-learning",
        dataset_type=level,
        dataset_name=f"{level}, {facts['test']}",
        metric_type="success_rate",
        metric_value=facts["results"]["success_rate"],
    )


def _results(tests: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rows = []
    for facts in tests:
        results, rl = facts["results"], facts["config"]["rl_script_args"]
        episodes = results["episodes"]
        success = wilson(round(results["success_rate"] * episodes), episodes)
        renamed = ", renamed actions" if rl["modified_action_space"] else ""
        rows.append((rl["name_environment"], facts["test"] + renamed, rl["language"], episodes, success))
    return _table(("level", "test", "language", "episodes", "success [95% interval]"), rows)


def _table(header: Sequence[str], rows: Any) -> Iterator[str]:
    yield "| " + " | ".join(header) + " |"
    yield "|" + "---|" * len(header)
    for row in rows:
        yield "| " + " | ".join(map(str, row)) + " |"


def _loading(model_type: str, base: str | None) -> str:
    auto = AUTO[model_type]
    if base is None:
        return f'from transformers import {auto}, AutoTokenizer\n\nmodel = {auto}.from_pretrained("THIS")'
    return (
        f"from peft import PeftModel\nfrom transformers import {auto}, AutoTokenizer\n\n"
        f'model = PeftModel.from_pretrained({auto}.from_pretrained("{base}"), "THIS")'
    ) + '\ntokenizer = AutoTokenizer.from_pretrained("THIS")'
