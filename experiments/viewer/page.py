"""Played episodes as the data of a page, and the page around the data."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from experiments.agents.base_agent import View
from experiments.playing import EpisodeResult, Transition
from experiments.viewer.pictures import GridPicture


def page_data(episodes: Sequence[EpisodeResult], *, title: str, language: str, facts: dict[str, str]) -> dict[str, Any]:
    """What the page shows, JSON-able; texts and pictures that recur are stored once and referred to by number.

    Args:
        episodes: with their transitions, whose infos hold a `picture` (`Pictures`).
        title: of the page.
        language: of the prompts, english or french.
        facts: name -> value, shown as they are.
    """
    strings = Strings()
    return {
        "title": title,
        "language": {"english": "en", "french": "fr"}[language],
        "facts": facts,
        "episodes": [_episode(episode, strings) for episode in episodes],
        "strings": strings.all,  # filled by the line above
    }


class Strings:
    """Texts, each stored once."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        """The place of a text in `all`."""
        if text not in self._numbers:
            self._numbers[text] = len(self.all)
            self.all.append(text)
        return self._numbers[text]


def _episode(episode: EpisodeResult, strings: Strings) -> dict[str, Any]:
    assert episode.end is not None, "episodes are shown with their transitions"
    return {
        "episode": episode.episode,
        "seed": episode.seed,
        "mission": episode.end.mission,
        "success": episode.success,
        "gave_up": episode.gave_up,
        "return": number(episode.episode_return),
        "steps": [_step(transition, strings) for transition in episode.transitions],
        "end": _state(episode.end, strings),
    }


def _step(transition: Transition, strings: Strings) -> dict[str, Any]:
    candidates = transition.view.text.candidates
    return {
        **_state(transition.view, strings),
        "candidates": [strings.number(candidate) for candidate in candidates],
        "probabilities": [number(p) for p in np.exp(transition.log_probs[: len(candidates)], dtype=np.float64)],
        "chosen": transition.chosen,
        "value": None if transition.value is None else number(transition.value),
        "reward": number(transition.reward),
    }


def _state(view: View, strings: Strings) -> dict[str, Any]:
    return {"prompt": strings.number(view.text.prompt), "picture": _picture(view.info["picture"], strings)}


def _picture(picture: GridPicture | str | None, strings: Strings) -> dict[str, Any] | None:
    if picture is None:
        return None
    if isinstance(picture, str):
        return {"image": strings.number(picture)}
    return {
        "width": picture.width,
        "height": picture.height,
        "cells": strings.number(picture.cells),
        "visible": strings.number(picture.visible),
        "agent": list(picture.agent),
        "carried": picture.carried,
    }


def number(value: float) -> float | str:
    """Six significant digits; JSON has no NaN or infinity, so that of a broken model is its name."""
    return float(f"{value:.6g}") if math.isfinite(value) else str(float(value))


def render_page(data: dict[str, Any]) -> str:
    """The HTML file: template, style and script of this folder, and the data, without anything to load beside it.

    Texts reach the document by way of the data only, which the script shows as text and never as HTML.
    """
    folder = files(__package__)
    # "<" can only be inside a string of the JSON, where its escape means the same and ends no <script> element
    serialised = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    parts = {
        "title": html.escape(data["title"]),
        "style": folder.joinpath("page.css").read_text(encoding="utf-8"),
        "data": serialised,
        "script": folder.joinpath("page.js").read_text(encoding="utf-8"),
    }
    template = folder.joinpath("page.html").read_text(encoding="utf-8")
    return re.sub(r"@(title|style|data|script)@", lambda mark: parts[mark[1]], template)
