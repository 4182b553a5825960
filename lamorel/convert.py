"""Save a model as a plain Hugging Face folder: `python -m lamorel.convert model.gguf FOLDER`.

For GGUF files, whose weights take a minute to dequantise each time they are loaded. The folder is complete or absent.
"""

import argparse
import shutil
import sys
from pathlib import Path

import torch
from huggingface_hub import ModelCardData

from lamorel.config import LamorelConfigError, LLMArgs
from lamorel.loading import load_model, load_tokenizer, model_type_of, read_any_config


def convert(source: str, folder: Path) -> None:
    """Write the model and the tokenizer of `source` into `folder`, in fp32.

    Args:
        source: a GGUF file, or any other `llm_args.model_path`.
        folder: must not exist.

    Raises:
        LamorelConfigError: `source` cannot be loaded, or `folder` exists.
    """
    if folder.exists():
        raise LamorelConfigError(f"{folder} exists: remove it, or choose another folder")
    config = read_any_config(LLMArgs(model_path=source))
    args = LLMArgs(model_path=source, model_type=model_type_of(config))
    tokenizer = load_tokenizer(args)
    model = load_model(args, config, torch.device("cpu"))
    unfinished = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    if source.endswith(".gguf"):
        _write_card(Path(source), unfinished)
    unfinished.rename(folder)


def _write_card(source: Path, folder: Path) -> None:
    """A card with the licence that the file names, which cards of trained models take over."""
    from gguf import GGUFReader

    fields = GGUFReader(source).fields
    licence = fields["general.license"].contents() if "general.license" in fields else None
    card = ModelCardData(license=licence, library_name="transformers")
    text = f"---\n{card.to_yaml()}\n---\n\nDequantised from {source.name}: close to the published weights, not equal.\n"
    (folder / "README.md").write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m lamorel.convert", description="Save a model as a plain Hugging Face folder."
    )
    parser.add_argument("source", help="a GGUF file, or a folder or hub id of any model")
    parser.add_argument("folder", type=Path, help="where the model is written; must not exist")
    given = parser.parse_args()
    try:
        convert(given.source, given.folder)
    except LamorelConfigError as error:
        sys.exit(f"error: {error}")
    print(f"saved {given.source} in {given.folder}")


if __name__ == "__main__":
    main()
