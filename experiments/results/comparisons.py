"""Families of training runs that differ in one thing: actions, distractors, model, prompt length, variant, score."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from experiments.results.labels import distractors
from experiments.results.training import Group


class Comparison(NamedTuple):
    """One thing that runs may differ in."""

    value: Callable[[Group], Any]  # what a group has of it, sortable
    differing: tuple[str, ...]  # settings that go with it
    unit: str  # the legend's text, "{}" being the value
    across_agents: bool = False


SIZES = ("mini", "small", "base", "large", "xl", "xxl")
COMPARISONS = {
    "actions": Comparison(lambda group: len(group.rl["action_space"]), ("action_space",), "{} actions"),
    "distractors": Comparison(
        lambda group: distractors(group.rl["name_environment"], group.rl["num_dists"]),
        ("name_environment", "num_dists"),
        "{} distractors",
    ),
    "model_size": Comparison(lambda group: _by_size(group.rl["name_model"]), ("model_path",), "{0[1]}"),
    "prompt_length": Comparison(lambda group: group.rl["nbr_obs"], ("nbr_obs",), "{} observations"),
    "variants": Comparison(
        lambda group: group.agent, ("pretrained", "load_embedding", "use_action_heads"), "{}", across_agents=True
    ),
    "score_rule": Comparison(lambda group: group.rl["score_rule"], ("score_rule",), "score: {}"),
}


def _by_size(model: str) -> tuple[int, str]:
    """Sorts models by the size that their name tells."""
    words = re.split(r"[^a-z0-9]+", model.lower())
    return max((SIZES.index(word) for word in words if word in SIZES), default=len(SIZES)), model


def families(groups: Sequence[Group], name: str) -> list[list[Group]]:
    """The groups that differ in nothing else than the named comparison, each family sorted by its value.

    A family has at least two values; groups without a config.yaml belong to none.
    """
    comparison = COMPARISONS[name]
    found: dict[tuple, list[Group]] = {}
    for group in groups:
        if not group.rl:
            continue
        rest = tuple((key, value) for key, value in group.settings.items() if key not in comparison.differing)
        # GoToLocal, GoToLocalS8N4 and GoToLocalS8N16 are one level with other numbers
        base = re.sub(r"S8N\d+$", "", group.level) if "name_environment" in comparison.differing else ""
        found.setdefault((comparison.across_agents or group.agent, base, *rest), []).append(group)
    several = [family for family in found.values() if len({comparison.value(group) for group in family}) > 1]
    return [sorted(family, key=comparison.value) for family in several]
