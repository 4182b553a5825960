"""What an interrupted command has done of its tests or of its export, for the same command to go on from."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from experiments.atomic_files import make_folder, write_atomically
from experiments.checkpoint import FREE_ON_RESUME, MANIFEST, CheckpointStore, flatten, is_or_begins
from experiments.configuration import Config
from experiments.experiment_paths import ExperimentPaths
from experiments.storage import writing

logger = logging.getLogger("glam")

# of what a resumed training may differ in: what changes results
OF_RESULTS = {
    f"rl_script_args.{key}" for key in ("num_steps", "number_episodes", "return_discount", "stop_rule", "zero_shot")
}
FREE = tuple(set(FREE_ON_RESUME) - OF_RESULTS)
FORMAT = 2  # of the stored content; content in another format is not resumed


class PartialResults:
    """`.STEM.partial` beside the results: there while the command that makes them is under way.

    Args:
        folder: of the results.
        stem: which results.
        source: what they depend on (`source_of`), JSON-able; those of another source are not gone on with.
    """

    def __init__(self, folder: Path, stem: str, source: dict[str, Any]) -> None:
        self.path = folder / f".{stem}.partial"
        self.source = json.loads(json.dumps(source))

    def read(self) -> Any:
        """What the last `write` kept; None where there is none, or where it cannot be gone on with, which is said."""
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            source, content = dict(stored["source"]), stored["content"]
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            logger.warning("%s cannot be read (%r): starting from the beginning", self.path, error)
            return None
        different = [k for k in sorted(source.keys() | self.source.keys()) if source.get(k) != self.source.get(k)]
        if different:
            logger.warning(
                "%s is what another command left (%s): starting from the beginning", self.path, ", ".join(different)
            )
            return None
        return content

    def write(self, content: Any) -> None:
        """Keep `content`, JSON-able, in the place of what was kept; raises StorageError."""
        make_folder(self.path.parent)
        write_atomically(self.path, json.dumps({"source": self.source, "content": content}))

    def remove(self) -> None:
        with writing(self.path):
            self.path.unlink(missing_ok=True)


def source_of(config: Config, paths: ExperimentPaths, agent: str, update: int | None) -> dict[str, Any]:
    """What played episodes depend on: agent, its weights, and every key that may change an outcome.

    Args:
        agent, update: how tables name it, and the update of its checkpoint, if it comes from one.
    """
    settings = {key: value for key, value in flatten(config.resolved).items() if not is_or_begins(key, FREE)}
    return {"agent": agent, "weights": _weights(config, paths, update), "format": FORMAT, **settings}


def _weights(config: Config, paths: ExperimentPaths, update: int | None) -> Any:
    """Tells weights from others of the same name; None where the agent has none, or they have a hub's name."""
    if update is not None:
        store = CheckpointStore(paths.models)
        for folder in (store.last, store.next, store.backup):
            try:
                content = (folder / MANIFEST).read_bytes()
                if json.loads(content)["update"] == update:
                    return {"update": update, "manifest": hashlib.sha256(content).hexdigest()}
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return {"update": update}  # a training that runs has replaced it since
    if config.agent != "llm":
        return None
    model = Path(str(config.rl.im_path if config.rl.im_learning else config.lamorel.llm_args.model_path)).expanduser()
    files = [path for path in (model, *model.glob("[!.]*")) if path.is_file()]
    return {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in sorted(files)} or None
