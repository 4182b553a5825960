"""Intervals, changes, indices and names of the result tables against numbers worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from experiments.results import paper
from experiments.results.comparisons import COMPARISONS, families
from experiments.results.curves import mean_curve
from experiments.results.intervals import bootstrap_over_seeds, change_percent, published_interval
from experiments.results.labels import agent_kind, agent_label, distinguish, distractors, training_settings, variant
from experiments.results.labels import test_settings as recorded_settings
from experiments.results.rows import ACTIONS, PAPER, SYNONYMS, RowKey, row_name, row_order
from experiments.results.sample_efficiency import index, training_table
from experiments.results.training import Group
from tests.experiments.conftest import make_config
from tests.experiments.fabricated_runs import MIXED, configuration


def test_seeds_of_unequal_size_have_the_same_weight():
    # one seed of 2 episodes (mean 0.5), one of 200 (mean 0): the mean of the means is 0.25, of all episodes 1/202
    estimate = bootstrap_over_seeds([np.array([0.0, 1.0]), np.zeros(200)])
    assert estimate.value == 0.25
    # the first seed's resampled mean is 0, 0.5 or 1 with probability 1/4, 1/2, 1/4, the second's always 0
    assert (estimate.low, estimate.high) == (0.0, 0.5)


def test_constant_seeds_have_no_width_even_when_they_differ():
    """Between the seeds lies 0.4, but nothing varies inside them: episodes are resampled, seeds are not."""
    estimate = bootstrap_over_seeds([np.full(7, 0.2), np.full(30, 0.6)])
    assert estimate.value == pytest.approx(0.4)
    assert estimate.low == pytest.approx(0.4)
    assert estimate.high == pytest.approx(0.4)


def test_bootstrap_against_drawing_episodes_one_by_one():
    seeds = [np.repeat([0.0, 0.3, 1.0], [60, 30, 10]), np.repeat([0.0, 1.0], [20, 30])]
    generator = np.random.default_rng(5)
    means = [np.mean([generator.choice(s, size=len(s)).mean() for s in seeds]) for _ in range(4000)]
    estimate = bootstrap_over_seeds(seeds)
    assert estimate.low == pytest.approx(np.quantile(means, 0.005), abs=0.012)
    assert estimate.high == pytest.approx(np.quantile(means, 0.995), abs=0.012)
    # the normal approximation. Variances of the means: first seed 60*0.19^2 + 30*0.11^2 + 10*0.81^2 = 9.09 over 100,
    # over 100 again: 9.09e-4; second 0.4*0.6/50 = 4.8e-3; of their mean (9.09e-4 + 4.8e-3)/4 = 1.427e-3, std 0.03778;
    # 2 * 2.576 * 0.03778 = 0.1946
    assert estimate.high - estimate.low == pytest.approx(0.1946, abs=0.02)
    assert bootstrap_over_seeds(seeds) == estimate  # the same every time


def test_published_interval():
    # 0.80 and 0.90: mean 0.85, sample variance 2 * 0.05^2 / 1 = 0.005, std 0.0707107; 2.576 * 0.0707107 / sqrt(2)
    assert published_interval([0.80, 0.90]) == pytest.approx(0.1288, abs=1e-6)
    assert published_interval([0.4, 0.4, 0.4]) == pytest.approx(0, abs=1e-12)
    assert published_interval([0.85]) is None  # one seed says nothing of its spread


def test_change_is_relative_and_gives_the_papers_numbers():
    assert change_percent(0.5, 0.4) == pytest.approx(25)
    assert change_percent(0.3, 0.0) is None
    base = paper.GENERALISATION["no change"]["LLM"]
    for row, changes in paper.GENERALISATION_CHANGE.items():
        # bar heights are read to 0.005, so a change of them to about one percent
        assert change_percent(paper.GENERALISATION[row]["LLM"], base) == pytest.approx(changes["LLM"], abs=1)


def test_sample_efficiency_skips_updates_without_episodes():
    log = pd.DataFrame({"success_rate": [np.nan, 0.0, 1.0, np.nan, 0.5]})
    # window 2, rolling means of what is there: none, 0, (0+1)/2, 1, 0.5; mean over the four: 2/4
    assert index(log, 2) == pytest.approx(0.5)
    # window 1: 0, 1, 0.5
    assert index(log, 1) == pytest.approx(0.5)
    # window 10: none, 0, 0.5, 0.5, 0.5
    assert index(log, 10) == pytest.approx(0.375)


def test_mean_curve_ends_with_the_shortest_seed_and_has_gaps():
    long = pd.DataFrame({"update": [1, 2, 3], "frames": [10, 20, 30], "success_rate": [0.2, 0.4, 0.6]})
    short = pd.DataFrame({"update": [1, 2], "frames": [10, 20], "success_rate": [np.nan, 1.0]})
    group = Group("g", "LLM", "g", {}, {}, logs={1: long, 2: short})
    curve = mean_curve(group, "success_rate", 1)
    assert curve.frames.tolist() == [10, 20]
    assert np.isnan(curve["mean"].iloc[0])  # not (0.2 + 0) / 2
    assert curve.iloc[1].tolist() == [20, pytest.approx(0.7), 0.4, 1.0]


def test_training_stands_beside_the_papers_frames():
    def table(frames, rates):
        log = pd.DataFrame({"update": [1, 2, 3], "frames": frames, "success_rate": rates})
        config = configuration(1)
        group = Group("g", "LLM", "g", config["rl_script_args"], training_settings(config, 1), logs={1: log})
        return training_table([group], window=1)[["frames", "success", "paper"]].to_numpy().tolist()

    # the value at a mark is that of the last update before it
    assert table([249_600, 600_320, 1_500_160], [0.7, 0.8, 0.9]) == [
        [250_000, 0.7, "0.80"],
        [600_000, 0.7, "0.90"],
        [1_500_000, 0.8, "about 0.9"],
    ]
    assert table([100, 200, 300_000], [0.1, 0.2, 0.3]) == [[250_000, 0.2, "0.80"], [300_000, 0.3, ""]]


def test_rows_are_named_by_what_changes():
    def name(test="no_modification_test", level=MIXED, language="english", actions=()):
        return row_name(RowKey(level, language, test, actions), MIXED)

    assert name() == "no change"
    assert name("no_meaning_words") == "invented nouns and adjectives"
    assert name(level="BabyAI-PickUpSeqPickUpLocal-v0") == "pick up A then/after pick up B"
    assert name(actions=SYNONYMS) == "synonym actions"
    assert name(actions=list(ACTIONS)[1]) == "synonym actions, second set"
    assert name(actions=("a", "b")) == "actions named a b"
    assert name(level="BabyAI-GoToFrench-v0", language="french") == "French, go to"
    assert name("other_name_same_categories", "BabyAI-GoToFrench-v0", "french") == "French, go to, other nouns"
    assert name("no_meaning_nouns", actions=SYNONYMS) == "synonym actions, invented nouns"
    assert name(level="BabyAI-GoToObj-v0") == "GoToObj"
    # trained in GoToLocal, Mixed is the new level
    assert row_name(RowKey(MIXED, "english", "no_modification_test", ()), "BabyAI-GoToLocal-v0") == "MixedTrainLocal"


def test_the_papers_rows_are_ours_in_its_order():
    assert [row_name(key, MIXED) for key in PAPER] == list(paper.GENERALISATION)
    assert sorted(set(PAPER), key=lambda key: row_order(key, MIXED)) == list(PAPER)


@pytest.mark.parametrize(
    ("pretrained", "embedding", "heads", "expected"),
    [
        (True, True, False, "LLM"),
        (True, True, True, "AFlan"),
        (False, True, True, "NPAE"),
        (False, False, True, "NPA"),
        (False, True, False, "NPE"),
        (False, False, False, "NP"),
    ],
)
def test_variants(pretrained, embedding, heads, expected):
    config = configuration(1, llm={"pretrained": pretrained}, load_embedding=embedding, use_action_heads=heads)
    assert variant(config) == expected
    assert agent_label("trained", config) == expected
    assert agent_label("zero-shot", config) == f"{expected} zero-shot"


def test_agents_without_an_llm():
    drrn = configuration(1, n_llm=0)
    assert agent_label("drrn", drrn) == agent_label("trained", drrn) == "DRRN"
    assert agent_label("trained", configuration(1, n_llm=0, symbolic_ppo=True)) == "Symbolic-PPO"
    assert agent_label("bot", drrn) == "bot"


@pytest.mark.parametrize("settings", [training_settings, recorded_settings])
def test_runs_from_before_a_key_are_those_of_its_default(settings):
    before, now = configuration(1), configuration(1, calibration="none", method="glam")
    for key in ("calibration", "method"):
        before["rl_script_args"].pop(key, None)
    assert settings(before, 1) == settings(now, 1)
    assert settings(before, 1) != settings(configuration(1, calibration="batch"), 1)


def test_settings_do_not_know_the_seed():
    def settings(seed, lr=1e-6):
        return training_settings(configuration(seed, lr=lr, llm={"model_path": f"models/tiny_seed_{seed}"}), seed)

    assert settings(1) == settings(12)
    assert settings(1) != settings(1, lr=1e-5)
    assert training_settings(configuration(1, num_steps=1), 1) == training_settings(configuration(1, num_steps=2), 1)


def test_names_differ_by_as_little_as_they_need():
    entries = [
        ("LLM", {"name_environment": "BabyAI-GoToLocal-v0", "nbr_obs": "1", "lr": "1e-6"}),
        ("LLM", {"name_environment": "BabyAI-GoToLocal-v0", "nbr_obs": "3", "lr": "1e-6"}),
        ("LLM", {"name_environment": "BabyAI-GoToLocalS8N4-v0", "nbr_obs": "3", "lr": "1e-5"}),
        ("DRRN", {"lr": "1e-4"}),
    ]
    assert distinguish(entries) == [" (GoToLocal, nbr_obs=1)", " (GoToLocal, nbr_obs=3)", " (GoToLocalS8N4)", ""]


def test_distractors():
    assert distractors("BabyAI-GoToLocalS8N16-v0", 8) == 16
    assert distractors("BabyAI-GoToLocal-v0", 8) == 8
    assert distractors(MIXED, 0) == 0


def test_families_differ_in_one_thing_only():
    def group(label, **rl):
        config = configuration(1, **rl)
        return Group(label, "LLM", label, config["rl_script_args"], training_settings(config, 1))

    groups = [
        group("16", name_environment="BabyAI-GoToLocalS8N16-v0"),
        group("4", name_environment="BabyAI-GoToLocalS8N4-v0"),
        group("8", name_environment="BabyAI-GoToLocal-v0"),
        group("8 obs 1", name_environment="BabyAI-GoToLocal-v0", nbr_obs=1),
        group("mixed", name_environment=MIXED),
        group("lr", name_environment="BabyAI-GoToLocalS8N16-v0", lr=0.5),
        Group("bare log", "x", "x", {}, {}),
    ]
    assert [[g.label for g in family] for family in families(groups, "distractors")] == [["4", "8", "16"]]
    assert [[g.label for g in family] for family in families(groups, "prompt_length")] == [["8 obs 1", "8"]]
    assert families(groups, "actions") == []
    models = [group(m, name_model=f"gflan_t5_{m}") for m in ("large", "xl", "small")]
    for model in models:
        model.settings["model_path"] = model.label
    assert [[g.label for g in family] for family in families(models, "model_size")] == [["small", "large", "xl"]]


AGENTS = ("", ",drrn", ",symbolic")
FAMILIES = [
    ("distractors", ["distractors_16", "distractors_4", "distractors_8"], AGENTS, [4, 8, 16]),
    ("actions", ["actions_9", "actions_6", "actions_3"], AGENTS, [3, 6, 9]),
    ("prompt_length", ["prompt_length_9", "prompt_length_1"], ("",), [1, 9]),
    ("model_size", ["model_size_xl", "model_size_small", "model_size_large"], ("",), ["small", "large", "xl"]),
    ("variants", ["pretraining", "pretraining,aflan", "pretraining,npae"], ("",), ["AFlan", "LLM", "NPAE"]),
]


@pytest.mark.parametrize(
    ("comparison", "overlays", "values"),
    [
        (name, [over + agent for over in overlays], values)
        for name, overlays, agents, values in FAMILIES
        for agent in agents
    ],
)
def test_the_overlays_of_a_comparison_are_one_family(comparison, overlays, values):
    """As `configs/experiment/` names the runs, paths and all; two seeds of each are one group."""
    groups = []
    for overlay in overlays:
        configs = [make_config([f"experiment=[{overlay}]", f"rl_script_args.seed={seed}"]).resolved for seed in (1, 2)]
        settings = [training_settings(config, seed) for seed, config in enumerate(configs, 1)]
        assert settings[0] == settings[1]
        label = agent_label(agent_kind(configs[0]), configs[0])
        groups.append(Group(overlay, label, overlay, configs[0]["rl_script_args"], settings[0]))
    (family,) = families(groups, comparison)
    shown = [COMPARISONS[comparison].value(group) for group in family]
    assert [value[1].rpartition("_")[2] if comparison == "model_size" else value for value in shown] == values


@pytest.mark.parametrize("agent", ["", ",npae", ",drrn", ",random", ",zero_shot"])
def test_the_overlays_of_the_tests_are_the_rows_of_one_agent(agent):
    overlays = {
        "generalisation": "no change",
        "generalisation_mixed_test": "objects not named in training",
        "generalisation_pickup_seq_pickup": "pick up A then/after pick up B",
        "synonym_actions_1": "synonym actions",
        "synonym_actions_2": "synonym actions, second set",
        "french": "French, go to",
    }
    settings, names = [], []
    for overlay in overlays:
        config = make_config([f"experiment=[q1_mixed{agent},{overlay}]"]).resolved
        rl = config["rl_script_args"]
        actions = tuple(rl["new_action_space"]) if rl["modified_action_space"] else ()
        names.append(row_name(RowKey(rl["name_environment"], rl["language"], rl["tests"][0], actions), MIXED))
        settings.append((rl["name_model"], recorded_settings(config, 1)))
    assert names == list(overlays.values())
    assert all(others == settings[0] for others in settings)
