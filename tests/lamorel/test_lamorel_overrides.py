"""Overrides that hydra cannot read are named, and given as hydra can read them."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, RangeSweep
from hydra.errors import HydraException
from omegaconf import OmegaConf

from lamorel.overrides import explain_unreadable


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conf")
    OmegaConf.save({"defaults": ["_self_", {"machine": "cpu"}], "a": {"b": "x", "seed": 1}}, folder / "base.yaml")
    (folder / "machine").mkdir()
    (folder / "machine" / "cpu.yaml").write_text("{}\n")
    return folder


def composed(folder: Path, overrides: Sequence[str]) -> Any:
    with initialize_config_dir(str(folder), version_base="1.3"):
        return compose("base", overrides=list(overrides))


def resolved(tree: Any) -> Any:
    return OmegaConf.to_container(tree, resolve=True)


def explained(folder: Path, override: str, *flags: str) -> str:
    with pytest.raises((HydraException, ValueError)) as caught:
        composed(folder, ["a.seed=2", override])
    text = explain_unreadable(caught.value, [*flags, "a.seed=2", override])
    assert text is not None
    assert "\n" not in text
    assert text.startswith(f"override {override or repr(override)}: ")
    return text


def spellings(text: str) -> list[str]:
    """The overrides that a message gives, as a shell would hand them on."""
    words = shlex.split(text.rpartition(", give ")[2])
    return [word for word in words if re.match(r"[+~]*a\.", word)]


TEXTS = (
    "lr=1e-5", "models/run(1)/last", "run(1)", "(x)", "{tiny", "a}b", "x]", "it's", "'abc", '"abc', "x='y'", 'x="y"',
    ",", "~/folder", "a#b", "50% (of all)", "a: b = c", "é", "=", "x=\\", 'x="\\', "a\\=b=c", "$(pwd)", "a;b", "a & b",
    "a=`b`", "int(x)", "[]]",
)  # fmt: skip


@pytest.mark.parametrize("value", TEXTS)
@pytest.mark.parametrize("key", ["a.b", "+a.new", "++a.b"])
def test_a_text_is_quoted(folder: Path, key: str, value: str) -> None:
    assert OmegaConf.select(composed(folder, [given(folder, f"{key}={value}")]), key.lstrip("+")) == value


def given(folder: Path, override: str) -> str:
    [spelling] = spellings(explained(folder, override))
    return spelling


@pytest.mark.parametrize("value", ["${x", "${a b}", '"${x"', "see ${"])
def test_an_interpolation_without_its_end_is_a_text(folder: Path, value: str) -> None:
    assert composed(folder, [given(folder, f"a.b={value}")]).a.b == value.strip('"')


def test_an_interpolation_inside_a_text_is_resolved(folder: Path) -> None:
    assert composed(folder, [given(folder, "a.b=run(${a.seed})")]).a.b == "run(1)"


def test_a_deletion_keeps_its_prefix(folder: Path) -> None:
    assert given(folder, "~a.b=x=y") == '~a.b="x=y"'


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("[x=1, y]", ["x=1", "y"]),
        ("[x,y", ["x", "y"]),
        ("[[x=1],'a, b'", [["x=1"], "a, b"]),
        ("[${a.seed},c=d]", [1, "c=d"]),
        ("{sight: 2, name: x=1}", {"sight": 2, "name": "x=1"}),
        ("{u: [x(1), y], v: {w: d=e}}", {"u": ["x(1)", "y"], "v": {"w": "d=e"}}),
        ("x=1,2", ["x=1", 2]),  # after the text
        ("x,y", ["x", "y"]),
    ],
)
def test_items_are_quoted(folder: Path, value: str, expected: Any) -> None:
    text = explained(folder, f"a.b={value}")
    found = [resolved(composed(folder, [given]))["a"]["b"] for given in spellings(text)]
    value = value.replace("${a.seed}", "1")
    assert found == ([expected, value] if value[0] in "[{" else [value, expected])
    assert f"(a {'mapping' if value[0] == '{' else 'list'})" in text
    assert "(a text)" in text


def test_sweeps(folder: Path) -> None:
    parser = OverridesParser.create()
    sweep, text = spellings(explained(folder, "a.b=lr=1,lr=2", "-m"))
    read = parser.parse_override(sweep).value()
    assert isinstance(read, ChoiceSweep)
    assert [getattr(item, "text", item) for item in read.list] == ["lr=1", "lr=2"]
    assert parser.parse_override(text).value() == "lr=1,lr=2"
    sweep, _ = spellings(explained(folder, "a.seed=range(1,3", "--multirun"))
    read = parser.parse_override(sweep).value()
    assert isinstance(read, RangeSweep)
    assert (read.start, read.stop) == (1, 3)
    assert spellings(explained(folder, "a.seed=range(1,3")) == ['a.seed="range(1,3"']  # no sweep
    assert "mismatch type argument stop" in explained(folder, "a.seed=range(1,x)", "-m")


@pytest.mark.parametrize("override", ["a.seed =3", "a.seed: 3", "a.seed 3"])
def test_another_sign_than_equals(folder: Path, override: str) -> None:
    assert given(folder, override) == "a.seed=3"


@pytest.mark.parametrize("override", ["", "a.seed", "=3", "+=3", "=x", "~=3", "~", "a[b]=3", "1a=3", "a..b=3"])
def test_without_a_key(folder: Path, override: str) -> None:
    assert explained(folder, override).endswith("give KEY=VALUE")


def test_groups_and_control_characters(folder: Path) -> None:
    assert explained(folder, "machine=1").endswith("no file of a group, give 'machine=\"1\"'")
    with pytest.raises(HydraException) as caught:
        composed(folder, ["a.b=x\ny"])
    assert explain_unreadable(caught.value, []) == (
        r"override 'a.b=x\ny': hydra cannot read it, give it without line breaks and control characters"
    )


def test_other_errors_are_none(folder: Path) -> None:
    with pytest.raises(HydraException) as caught:
        composed(folder, ["a.c=1"])
    assert explain_unreadable(caught.value, ["a.c=1"]) is None
    assert explain_unreadable(ValueError("a=b"), ["=3"]) is None
