"""Scores of every text family of transformers, against one unpadded forward each."""

import re
from pathlib import Path

import pytest
from model_zoo import FAMILIES, largest_difference, make_model

from lamorel.config import LLMArgs
from lamorel.ways import Ways

README = Path(__file__).resolve().parents[2] / "lamorel" / "README.md"
NATS = 1e-4  # as lamorel/README.md promises


def documented() -> dict[tuple[str, str], str]:
    """(model type, family) to the way that README.md's table of families gives."""
    ways = {}
    for way, model_type, names in re.findall(r"^\| (\w+) \| (causal|seq2seq) \| (.+) \|$", README.read_text(), re.M):
        ways |= {(model_type, name): way for name in names.split(", ")}
    return ways


def test_the_table_of_families_is_complete() -> None:
    assert set(documented()) == set(FAMILIES)


@pytest.mark.slow
@pytest.mark.parametrize(("model_type", "family"), FAMILIES)
def test_every_family_is_scored_exactly(model_type: str, family: str) -> None:
    way = documented()[model_type, family]
    if way == "untried":
        with pytest.raises(Exception):  # noqa: B017, PT011 (each family in its own way)
            largest_difference(model := make_model(model_type, family), Ways(model, LLMArgs(), pad_id=0))
        return
    model = make_model(model_type, family)
    ways = Ways(model, LLMArgs(), pad_id=0)
    assert ways.way == way
    assert largest_difference(model, ways) < NATS
