"""Command-line overrides that hydra cannot read: name them, and quote them so that it can."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser, create_functions
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError, OmegaConfBaseException

_PARSER = OverridesParser.create()
_FUNCTIONS = frozenset(create_functions().functions)  # range, choice, ...
_MERGING = "Error merging override "
_CLOSING = {"[": "]", "{": "}", "(": ")"}
_ASSIGNMENT = re.compile(r"\s*([+~]*[\w.$/@-]+)(?:\s*[=:]|\s)\s*(.*?)\s*")
# quoted texts and interpolations as a whole, everything else by characters
_TOKEN = re.compile(r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|\$\{[^{}]*\}|.""")


def explain_unreadable(error: BaseException, arguments: Sequence[str]) -> str | None:
    """One line that names the override behind an error of hydra, with the spelling that works, quoted for the shell.

    Covers overrides that cannot be parsed, several values outside a sweep, broken interpolations, overrides without a
    key and groups whose value is no name.

    Args:
        arguments: of the command line; `-m` among them asks for a sweep.

    Returns:
        None for any other error.
    """
    multirun = not {"-m", "--multirun"}.isdisjoint(arguments)
    text, reason = str(error), ""
    if isinstance(error, OverrideParseException):
        override, problem = error.override, "hydra cannot read it"
        evaluation = re.search(r"^\w+ while evaluating .*", text, re.MULTILINE)
        reason = f" ({evaluation[0]})" if evaluation else ""
    elif ambiguous := re.match(r"Ambiguous value for argument '(.*)'$", text, re.MULTILINE):
        override, problem = ambiguous[1], "it holds several values, but this is no sweep (-m)"
    elif isinstance(error.__cause__, GrammarParseError) and text.startswith(_MERGING):
        override, problem = text.removeprefix(_MERGING), "its interpolation is broken"
    elif re.match("Config group override|Could not (override|delete) ''", text):
        override, problem = next(filter(_names_nothing, arguments), ""), "it names no key, or no file of a group"
    else:
        return None
    if not override.isprintable():
        return f"override {override!r}: {problem}{reason}, give it without line breaks and control characters"
    found = list(_spellings(override, multirun))
    spellings = [shlex.quote(text) + (f" (a {kind})" if len(found) > 1 else "") for text, kind in found]
    return f"override {override or repr(override)}: {problem}{reason}, give {' or '.join(spellings) or 'KEY=VALUE'}"


def _spellings(override: str, multirun: bool) -> Iterator[tuple[str, str]]:
    """Overrides that hydra reads as `override` may be meant, each with the kind of its value."""
    assignment = _ASSIGNMENT.fullmatch(override)
    if assignment is None:
        return
    key, value = assignment.groups()
    parsed = _parsed(override)
    if parsed is not None and isinstance(parsed.value(), str):  # quoted already
        value = parsed.value()
    plain = f"{key}={value}"
    if plain != override and _kind(plain, value):  # a.b: 3
        yield plain, "value"
        return
    try:
        OmegaConf.create([value])
        text = value
    except OmegaConfBaseException:  # an interpolation without its end
        text = value.replace("${", r"\${")
    candidates = [f"{key}={_quote(text)}"]
    if multirun or value.startswith(("[", "{")):
        candidates.insert(0, f"{key}={_quote_items(value)}")
    elif "," in value and "(" not in value:
        candidates.append(f"{key}=[{_quote_items(value)}]")
    for candidate in dict.fromkeys(candidates):
        kind = _kind(candidate, text)
        if kind is not None and (multirun or kind != "sweep"):
            yield candidate, kind


def _parsed(override: str) -> Override | None:
    try:
        return _PARSER.parse_override(override)
    except HydraException:
        return None


def _kind(override: str, text: str) -> str | None:
    """The kind of value that hydra reads; None where it cannot read it, or reads another text than `text`."""
    parsed = _parsed(override)
    if parsed is None or parsed.is_sweep_override():
        return None if parsed is None else "sweep"
    value = parsed.value()
    if isinstance(value, str):
        return "text" if value == text else None
    return "list" if isinstance(value, list) else "mapping" if isinstance(value, dict) else "value"


def _names_nothing(override: str) -> bool:
    """Whether it has no key, or its key may be a group of configurations and its value is no name of one."""
    parsed = _parsed(override)
    if parsed is None or parsed.is_sweep_override():
        return False
    return not parsed.key_or_group or ("." not in parsed.key_or_group and not isinstance(parsed.value(), str | list))


def _quote(text: str) -> str:
    return QuotedString(text, Quote.double).with_quotes()


def _quote_items(value: str) -> str:
    """Close the brackets of `value`, and quote the items of its lists, mappings and sweeps that hydra cannot read."""
    done, item, closing = "", "", [""]
    for token in _TOKEN.findall(value):
        before = item.strip()
        container = token in ("[", "{") and (not before or (closing[-1] == "}" and before.endswith(":")))
        if container or (token == "(" and before in _FUNCTIONS):
            done, item = done + item + token, ""
            closing.append(_CLOSING[token])
        elif token in (",", closing[-1]):
            done, item = done + _quote_item(item, closing[-1]) + token, ""
            if token != ",":
                closing.pop()
        else:
            item += token
    return done + _quote_item(item, closing[-1]) + "".join(reversed(closing))


def _quote_item(item: str, closing: str) -> str:
    name, colon, value = item.partition(":") if closing == "}" else ("", "", item)
    value = value.strip()
    parsed = _parsed(f"key={value}")
    return name + colon + (_quote(value) if parsed is None or parsed.is_sweep_override() else value)
