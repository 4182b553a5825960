"""Every table and figure from fabricated run folders, and the names of what is missing."""

import numpy as np
import pandas as pd
import pytest

from experiments import test_results as script
from experiments.results.report import FIGURES, TABLES
from tests.experiments.fabricated_runs import (
    ACTIONS,
    MIXED,
    SYNONYMS,
    configuration,
    outcomes,
    write_test,
    write_training,
)

FRENCH = "BabyAI-GoToFrench-v0"
KITCHEN, HALL = "Household-Kitchen-v0", "Household-Hall-v0"


def report(capsys, logs, output, *options):
    """Run the script; returns its exit status, its standard output and the lines of missing things."""
    status = script.main(["--logs", *map(str, logs), "--output", str(output), *options])
    out, err = capsys.readouterr()
    return status, out, [line[2:] for line in err.splitlines() if line.startswith("- ")], err


def paper_tests(folder, config, agent, rates, episodes=40):
    """The six tests of the paper's table, with the given numbers of successes."""
    plain = {"no_modification_test": rates[0], "other_name_same_categories": rates[1], "no_meaning_words": rates[2]}
    for test, successes in plain.items():
        write_test(folder, config, agent, outcomes(successes, episodes), test=test)
    new = "BabyAI-PickUpSeqPickUpLocal-v0"
    write_test(folder, config, agent, outcomes(rates[3], episodes), level=new, tasks=("pick up seq pick up",))
    rl = config["rl_script_args"]
    renamed = config | {"rl_script_args": rl | {"modified_action_space": True, "new_action_space": SYNONYMS}}
    write_test(folder, renamed, agent, outcomes(rates[4], episodes))
    french = config | {"rl_script_args": rl | {"language": "french"}}
    write_test(folder, french, agent, outcomes(rates[5], episodes), level=FRENCH, tasks=("goto",))


def two_some(seed, **rl):
    """The configuration of a TWOSOME agent in an environment that writes its own prompts."""
    own = {
        "method": "twosome",
        "score_rule": "word",
        "prompter": "environment",
        "name_environment": KITCHEN,
        "lr": 1e-4,
    }
    return configuration(seed, llm={"model_type": "causal"}, **{**own, "name_experiment": "kitchen", **rl})


@pytest.fixture
def campaign(tmp_path):
    """Two seeds of the LLM and a random agent on Mixed, DRRN, and LLM runs with other distractors and actions."""
    logs = tmp_path / "logs"
    for seed in (1, 2):
        rising = np.linspace(0.1 * seed, 0.9, 30)
        folder, flat = logs / f"llm_seed_{seed}", [0.5, 0.1, 0.1, 0.1, 0.1, 0.1]
        write_training(folder, configuration(seed), rising, probabilities=flat, prompts=11 if seed == 1 else 2)
        paper_tests(folder, configuration(seed), "trained", [32 + 2 * seed, 34, 30, 4, 5, 0])
        paper_tests(folder, configuration(seed), "zero-shot", [4, 4, 4, 1, 0, 1])
        random = configuration(seed, n_llm=0, random_agent=True, name_model="random")
        paper_tests(logs / f"random_seed_{seed}", random, "random", [6, 6, 6, 2, 6, 12])
    write_training(logs / "drrn_seed_1", configuration(1, n_llm=0), [None, None, 0.1, None, 0.2])
    for dists, rate in ((4, 0.8), (16, 0.6)):
        level = {"name_environment": f"BabyAI-GoToLocalS8N{dists}-v0"}
        write_training(logs / f"d{dists}_seed_1", configuration(1, **level), [rate] * 12)
    level = {"name_environment": "BabyAI-GoToLocal-v0"}
    nine = [*ACTIONS, "sleep", "do_nothing", "think"]
    for actions in (ACTIONS[:3], ACTIONS, nine):
        config = configuration(1, action_space=actions, **level)
        write_training(logs / f"a{len(actions)}_seed_1", config, [0.1 * len(actions)] * 12)
    for model in ("flan_t5_small", "flan_t5_large"):
        llm = {"model_path": f"google/{model}"}
        write_training(logs / f"{model}_seed_1", configuration(1, llm=llm, name_model=model, lr=1e-5), [0.5] * 12)
    for obs in (1, 9):
        write_training(logs / f"obs{obs}_seed_1", configuration(1, nbr_obs=obs, lr=1e-4), [0.5] * 12)
    for rule in ("word", "token", "sum"):
        run = logs / f"kitchen_{rule}_seed_1"
        config = two_some(1, score_rule=rule, name_model=f"llama_{rule}")
        write_training(run, config, [0.1, 0.6])
        write_test(run, config, "trained", outcomes(6, 8), level=KITCHEN)
    write_training(logs / "npae_seed_1", configuration(1, llm={"pretrained": False}, use_action_heads=True), [0.1] * 30)
    return logs


def test_every_output(campaign, tmp_path, capsys):
    status, out, missing, _ = report(capsys, [campaign], tmp_path / "out")
    assert status == 0
    for table in (*TABLES, "sample_efficiency_change"):
        numbers = pd.read_csv(tmp_path / "out" / f"{table}.csv")
        text = (tmp_path / "out" / f"{table}.md").read_text()
        assert len(numbers) >= 1, table
        assert text in out
        assert (tmp_path / "out" / f"{table}.tex").read_text().count(r"\\") == len(text.splitlines()) - 1
    probabilities = [f"probabilities_LLM_MixedTrainLocal_nbr_obs_3_T5small_seed_{seed}" for seed in (1, 2)]
    figures = [name for name in FIGURES if name != "probabilities"]
    written = {path.stem for path in (tmp_path / "out").glob("*.png")}
    assert written.issuperset(figures)
    assert {stem for stem in written if stem.startswith("probabilities_")} == set(probabilities)
    for figure in written:
        png, pdf = ((tmp_path / "out" / f"{figure}.{kind}").read_bytes() for kind in ("png", "pdf"))
        assert png.startswith(b"\x89PNG")
        assert len(png) > 10_000, figure
        assert pdf.startswith(b"%PDF-1")
        assert len(pdf) > 8_000, figure
    assert f"missing ({tmp_path / 'out' / 'missing.md'})" not in out
    assert "no test of the paper's agents DRRN" in "".join(missing)


def test_generalisation_numbers(campaign, tmp_path, capsys):
    options = ["--runs", "llm_*", "random_*", "--tables", "generalisation", "--figures"]
    _, out, missing, _ = report(capsys, [campaign], tmp_path / "out", *options)
    table = pd.read_csv(tmp_path / "out" / "generalisation.csv").set_index(["agent", "test"])
    assert list(dict.fromkeys(table.index.get_level_values("agent"))) == ["random", "LLM zero-shot", "LLM"]
    assert table.index.get_level_values("test")[:6].tolist() == [
        "no change",
        "other nouns",
        "invented nouns and adjectives",
        "pick up A then/after pick up B",
        "synonym actions",
        "French, go to",
    ]
    ours = table.loc["LLM"]
    # 34/40 and 36/40: mean 0.875; sample std 0.05/sqrt(2) = 0.0353553; 2.576 * 0.0353553 / sqrt(2) = 0.0644
    plain = ours.loc["no change"]
    assert plain.success == pytest.approx(0.875)
    assert plain.published_99 == pytest.approx(0.0644, abs=1e-6)
    assert plain.low_99 < 0.8 < 0.95 < plain.high_99
    assert (plain.seeds, plain.episodes, plain.paper) == ("1 2", 80, 0.89)
    assert np.isnan(plain.change_percent)
    # invented words: 30/40 = 0.75 against 0.875
    invented = ours.loc["invented nouns and adjectives"]
    assert invented.change_percent == pytest.approx(-14.2857, abs=1e-3)
    assert (invented.paper, invented.paper_change_percent) == (0.77, -13)
    assert ours.loc["French, go to"].change_percent == -100
    assert table.loc[("random", "French, go to")].change_percent == pytest.approx(100)  # 12 against 6
    row = next(line for line in out.splitlines() if line.startswith("| invented nouns and adjectives"))
    *_, cell, published = (text.strip() for text in row.strip("|").split("|"))
    assert cell.startswith("0.750 [")
    assert cell.endswith("± 0.000 (-14%)")
    assert published == "0.77 (-13%)"
    assert not [line for line in missing if "has no result" in line]


def test_one_seed_has_no_published_interval(campaign, tmp_path, capsys):
    options = ["--seeds", "1", "--runs", "llm_*", "--tables", "generalisation", "--figures"]
    _, out, _, _ = report(capsys, [campaign], tmp_path / "out", *options)
    assert "one seed" in out
    assert "±" not in out.split("\n", 1)[1]
    assert pd.read_csv(tmp_path / "out" / "generalisation.csv").published_99.isna().all()


def test_per_task(campaign, tmp_path, capsys):
    """40 episodes, 8 of each task in turn; the first 34 (36) of seed 1 (2) succeed."""
    options = ["--runs", "llm_*", "--tables", "tasks", "--figures"]
    report(capsys, [campaign], tmp_path / "out", *options)
    table = pd.read_csv(tmp_path / "out" / "tasks.csv")
    assert set(table.test) == {"no change", "other nouns", "invented nouns and adjectives", "synonym actions"}
    plain = table[(table.test == "no change") & (table.agent == "LLM")].set_index("task").success
    # seed 1: failures 34..39, so two of goto (35) .. k % 5: 34->4, 35->0, 36->1, 37->2, 38->3, 39->4;
    # seed 2: failures 36..39 -> 1, 2, 3, 4. goto: 7/8 and 8/8, the sequence (4): 6/8 and 7/8, others 7/8 and 7/8
    assert plain["goto"] == pytest.approx(0.9375)
    assert plain["pick up seq go to"] == pytest.approx(0.8125)
    assert plain["open"] == pytest.approx(0.875)


def test_sample_efficiency(campaign, tmp_path, capsys):
    options = ["--tables", "sample_efficiency", "--figures", "--compare", "*(GoToLocalS8N16)", "*(GoToLocalS8N4)"]
    report(capsys, [campaign], tmp_path / "out", *options)
    table = pd.read_csv(tmp_path / "out" / "sample_efficiency.csv").set_index("run")
    assert table.loc["LLM (GoToLocalS8N4)", "sample efficiency"] == pytest.approx(0.8)
    # DRRN, window 10: 0.1, 0.1, 0.15 from the third update on, and not counted before
    assert table.loc["DRRN", "sample efficiency"] == pytest.approx(0.35 / 3)
    change = pd.read_csv(tmp_path / "out" / "sample_efficiency_change.csv")
    # asked for: 0.6 to 0.8; by itself, from 4 to 16: 0.8 to 0.6, the paper has -14%
    assert change.change_percent.tolist() == [pytest.approx(100 / 3), pytest.approx(-25)]
    assert change.paper_change_percent.isna().tolist() == [True, False]


def test_returns_trained_crossed_over_and_random(tmp_path, capsys):
    """Rows of one level stand together: random policy, the model as it was, its own agent, and the other level's."""
    logs = tmp_path / "logs"
    for seed in (1, 2):
        for name, level, other in (("kitchen", KITCHEN, HALL), ("hall", HALL, KITCHEN)):
            agent = two_some(seed, name_experiment=name, name_environment=level, name_model="llama")
            folder = logs / f"{name}_llama_seed_{seed}"
            write_training(folder, agent, [0.1, 0.6])
            write_test(folder, agent, "trained", outcomes(3, 4), level=level)
            write_test(folder, agent, "zero-shot", outcomes(1, 4), level=level)
            write_test(folder, agent, "trained", outcomes(2, 4), level=other)
            random = two_some(seed, name_experiment=name, random_agent=True, name_model="random")
            write_test(logs / f"{name}_random_seed_{seed}", random, "random", outcomes(0, 4), level=level)
    vector = two_some(1, method="glam", symbolic_ppo=True, name_model="vector_ppo")
    vector["rl_script_args"]["symbolic"] |= {"encoder": "mlp"}
    write_training(logs / "kitchen_vector_seed_1", vector, [0.1, 0.2])
    write_test(logs / "kitchen_vector_seed_1", vector, "symbolic", outcomes(4, 4), level=KITCHEN, older=True)
    _, out, missing, _ = report(capsys, [logs], tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "returns.csv")
    kitchen = table[table.level == KITCHEN]
    kitchen = kitchen.assign(mean=kitchen["mean discounted return"].str.partition(" ")[0])
    columns = ["agent", "run", "mean", "its std", "primitive steps"]
    assert list(kitchen[columns].itertuples(index=False, name=None)) == [
        ("random", "kitchen_random", "0.000", 0.0, "40.0 ± 0.0"),
        ("zero-shot", "kitchen_llama", "0.200", 0.346, "35.0 ± 8.7"),  # 0.8 / 4; 0.8 sqrt(3) / 4; (20 + 3 * 40) / 4
        ("trained", "hall_llama", "0.400", 0.4, "30.0 ± 10.0"),  # crossed over
        ("trained", "kitchen_llama", "0.600", 0.346, "25.0 ± 8.7"),
    ]  # fmt: skip
    assert set(kitchen.episodes) == {8}
    # the older file has no discounted returns; it is in the other table
    results = pd.read_csv(tmp_path / "out" / "results.csv")
    assert "symbolic" in set(results[results.level == KITCHEN].agent)
    assert {"TWOSOME (Household-Hall)", "TWOSOME (Household-Kitchen)", "Vector-PPO"} <= set(
        pd.read_csv(tmp_path / "out" / "training.csv").run
    )
    assert "discounted return" in out
    assert not [line for line in missing if "distrib.csv" in line]


def test_returns_of_other_environments_are_told_when_asked_for(campaign, tmp_path, capsys):
    options = ["--runs", "llm_seed_1", "--figures"]
    report(capsys, [campaign], tmp_path / "out", *options)
    assert not (tmp_path / "out" / "returns.csv").exists()
    report(capsys, [campaign], tmp_path / "out", *options, "--tables", "returns")
    assert len(pd.read_csv(tmp_path / "out" / "returns.csv")) == 12
    older = tmp_path / "older"
    write_test(older / "random_seed_1", configuration(1, n_llm=0, random_agent=True), "random", [True], older=True)
    _, _, missing, _ = report(capsys, [older], tmp_path / "out", "--tables", "results", "returns", "--figures")
    assert "table returns: no test that tells discounted returns" in missing
    assert not [line for line in missing if "csv" in line]


def test_other_runs_and_labels(campaign, tmp_path, capsys):
    options = ["--runs", "llm_*", "--tables", "generalisation", "--figures", "--label", "LLM=GFlan-T5"]
    _, out, _, _ = report(capsys, [campaign], tmp_path / "out", *options)
    assert "| GFlan-T5" in out
    assert "GFlan-T5, paper" in out  # the paper's column is found under the new name
    status, _, _, err = report(capsys, [campaign], tmp_path / "out", "--runs", "llm_*", "--label", "LML=x")
    assert status == 2
    assert err.startswith("error: --label LML: there is no such agent, choose of: LLM; LLM zero-shot")
    options[-1] = "LLM=LLM zero-shot"
    assert report(capsys, [campaign], tmp_path / "out", *options)[0] == 2


def test_figures_are_the_same_bytes(campaign, tmp_path, capsys):
    options = ["--runs", "llm_seed_1", "--tables", "--figures", "learning_curve", "generalisation"]
    for name in ("one", "two"):
        report(capsys, [campaign], tmp_path / name, *options)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert "generalisation.pdf" in files
    assert "learning_curve.png" in files
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_missing_things_are_named(campaign, tmp_path, capsys):
    (campaign / "notes").mkdir()
    (campaign / "empty_seed_1").mkdir()
    (campaign / "random_seed_2" / "test" / FRENCH / "episodes" / "no_modification_test.json").unlink()
    nouns = campaign / "llm_seed_1" / "test" / MIXED / "episodes" / "other_name_same_categories.csv"
    nouns.write_text("\n".join(nouns.read_text().splitlines()[:20]))  # the last row has no end
    words = nouns.with_name("no_meaning_words.json")
    words.write_text(words.read_text()[:50])
    log = campaign / "d4_seed_1" / "log.csv"
    log.write_text(log.read_text()[:-30])
    (campaign / "d16_seed_1" / "log.csv").unlink()
    (campaign / "llm_seed_2" / "distrib.csv").unlink()
    options = ["--runs", "*", "nothing_*", "--seeds", "1", "2", "3", "--strict", "--figures", "probabilities"]
    status, _, missing, _ = report(capsys, [campaign, tmp_path / "gone"], tmp_path / "out", *options)
    assert status == 1
    every = (
        "'no change', 'other nouns', 'invented nouns and adjectives', 'pick up A then/after pick up B', "
        "'synonym actions', 'French, go to'"
    )
    expected = [
        f"--runs nothing_* matches no folder of {campaign}, {tmp_path / 'gone'}",
        f"--logs {tmp_path / 'gone'}: no such folder",
        f"{campaign / 'notes'}: not the folder of a run, its name does not end in _seed_N",
        "llm: no run of seed 3",
        "drrn: no run of seed 2, 3",
        f"{campaign / 'empty_seed_1'}: no test results",
        f"{campaign / 'empty_seed_1' / 'log.csv'}: no such file",
        f"{campaign / 'd16_seed_1' / 'log.csv'}: no such file",
        f"{campaign / 'd4_seed_1' / 'log.csv'}: truncated, row 13 is torn",
        f"{campaign / 'd4_seed_1' / 'log.csv'}: truncated, it ends with update 11 of 12",
        f"{campaign / 'llm_seed_2' / 'distrib.csv'}: no such file",
        f"{nouns}: truncated, row 20 is torn",
        f"{nouns}: truncated, 18 of 40 episodes: left out",
        # one line for the seeds of an agent that lack the same tests
        "generalisation: LLM (seed 1) has no result in 'other nouns', 'invented nouns and adjectives'",
        f"generalisation: LLM (seed 3) has no result in {every}",
        "generalisation: random (seed 2) has no result in 'French, go to'",
        f"generalisation: random (seed 3) has no result in {every}",
        "generalisation: no test of the paper's agents DRRN, NPAE",
    ]
    assert [line for line in expected if line not in missing] == []
    assert any(line.startswith(f"{words}: unreadable (JSONDecodeError") for line in missing)
    assert any("no_modification_test.json: no such file" in line for line in missing)
    # agents that do not learn need no curve
    assert not any("random_seed_1" in line for line in missing)
    text = (tmp_path / "out" / "missing.md").read_text()
    assert [f"- {line}" for line in missing] == text.splitlines()[2:]


def test_nothing_is_missing(tmp_path, capsys):
    config = configuration(1, name_environment="BabyAI-GoToLocal-v0")
    write_training(tmp_path / "logs" / "a_seed_1", config, [0.5] * 3, probabilities=[1 / 6] * 6)
    write_test(tmp_path / "logs" / "a_seed_1", config, "trained", outcomes(3, 4), level="BabyAI-GoToLocal-v0")
    status, _, missing, err = report(capsys, [tmp_path / "logs"], tmp_path / "out", "--strict")
    assert (status, missing, err) == (0, [], "")
    assert "Nothing is missing." in (tmp_path / "out" / "missing.md").read_text()


def test_unfinished_training_is_named(tmp_path, capsys):
    config = configuration(1)
    write_training(tmp_path / "logs" / "a_seed_1", config, [0.5] * 3)
    path = tmp_path / "logs" / "a_seed_1" / "config.yaml"
    path.write_text(path.read_text().replace("num_steps: 300", "num_steps: 1000"))
    options = ["--figures", "--tables", "training"]
    _, _, missing, _ = report(capsys, [tmp_path / "logs"], tmp_path / "out", *options)
    assert missing == [f"{tmp_path / 'logs' / 'a_seed_1'}: trained for 300 of 1000 frames"]


def test_what_is_asked_for_by_name_and_has_nothing_to_show(tmp_path, capsys):
    write_training(tmp_path / "logs" / "a_seed_1", configuration(1, n_llm=0), [0.5] * 3)
    options = ["--tables", "tasks", "generalisation", "--figures", "distractors", "probabilities"]
    _, _, missing, _ = report(capsys, [tmp_path / "logs"], tmp_path / "out", *options)
    assert "table tasks: no test of a Mixed level among the runs" in missing
    assert "table generalisation: no test beyond 'no change' among the runs" in missing
    assert "figure distractors: no runs that differ in nothing else" in missing
    assert "figure probabilities: no run with a distrib.csv" in missing


def test_the_same_id_in_two_folders(tmp_path, capsys):
    """Another level under the same id is another run; the same seed of the same run is refused."""
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    for logs, level in ((one, "BabyAI-GoToLocalS8N4-v0"), (two, "BabyAI-GoToLocalS8N16-v0"), (three, MIXED)):
        write_training(logs / "a_seed_1", configuration(1, name_environment=level), [0.5] * 3)
        write_test(logs / "a_seed_1", configuration(1), "trained", outcomes(2, 5))
    status, _, _, _ = report(capsys, [one, two], tmp_path / "out")
    assert status == 0
    curves = pd.read_csv(tmp_path / "out" / "sample_efficiency.csv")
    assert curves.run.tolist() == ["LLM (GoToLocalS8N16)", "LLM (GoToLocalS8N4)"]
    table = pd.read_csv(tmp_path / "out" / "results.csv")
    assert table.episodes.tolist() == [5, 5]  # not pooled
    assert table.run.tolist() == ["a (trained in GoToLocalS8N16)", "a (trained in GoToLocalS8N4)"]
    write_training(tmp_path / "four" / "a_seed_1", configuration(1), [0.7] * 3)
    status, _, _, err = report(capsys, [three, tmp_path / "four"], tmp_path / "out")
    assert status == 2
    assert "are the same seed of one configuration: choose one by --logs or --runs" in err
    write_test(tmp_path / "four" / "a_seed_1", configuration(1), "trained", outcomes(3, 5))
    status, _, _, err = report(capsys, [three, tmp_path / "four"], tmp_path / "out", "--tables", "results", "--figures")
    assert status == 2
    assert "hold the same test of one agent and seed" in err


def test_tests_below_another_folder_than_the_training(tmp_path, capsys):
    """Results of other settings go to another saving_path_logs, under the same id: nothing of that is missing."""
    write_training(tmp_path / "logs" / "a_seed_1", configuration(1), [0.5] * 3)
    write_test(tmp_path / "more" / "a_seed_1", configuration(1), "trained", outcomes(2, 5))
    options = ["--strict", "--figures", "--tables", "results", "sample_efficiency"]
    status, _, missing, _ = report(capsys, [tmp_path / "logs", tmp_path / "more"], tmp_path / "out", *options)
    assert (status, missing) == (0, [])
    # alone, each lacks the other's part
    assert report(capsys, [tmp_path / "logs"], tmp_path / "out", *options)[0] == 1
    assert report(capsys, [tmp_path / "more"], tmp_path / "out", *options)[0] == 1


def test_curves_are_cut(tmp_path, capsys):
    write_training(tmp_path / "logs" / "a_seed_1", configuration(1), [0.2, 0.4, 0.9])
    path = tmp_path / "logs" / "a_seed_1" / "config.yaml"
    path.write_text(path.read_text().replace("num_steps: 300", "num_steps: 1000"))
    options = ["--figures", "--tables", "sample_efficiency", "--window", "1", "--frames", "200"]
    _, _, missing, _ = report(capsys, [tmp_path / "logs"], tmp_path / "out", *options)
    table = pd.read_csv(tmp_path / "out" / "sample_efficiency.csv")
    assert table["sample efficiency"].tolist() == [pytest.approx(0.3)]  # of 0.2 and 0.4
    assert missing == []  # as many frames as are asked for


def test_agents_trained_elsewhere_are_left_out_by_name(campaign, tmp_path, capsys):
    config = configuration(1, name_environment="BabyAI-GoToLocalS8N4-v0")
    for test in ("no_modification_test", "no_meaning_words"):
        write_test(
            campaign / "d4_seed_1", config, "trained", outcomes(5, 9), test=test, level="BabyAI-GoToLocalS8N4-v0"
        )
    _, out, _, _ = report(capsys, [campaign], tmp_path / "out", "--tables", "generalisation", "--figures")
    assert "left out: d4 (trained in GoToLocalS8N4)" in out
    options = ["--training-level", "BabyAI-GoToLocalS8N4-v0", "--tables", "generalisation", "--figures"]
    _, out, _, _ = report(capsys, [campaign], tmp_path / "out", *options)
    assert "paper" not in out  # its numbers are of Mixed
    assert "llm (trained in MixedTrainLocal)" in out
    assert "random (random, not tested in GoToLocalS8N4)" in out


def test_options_name_what_can_be_made():
    assert tuple(script.TABLES.split()) == TABLES
    assert set(script.FIGURES.split()) == set(FIGURES)


def test_two_sets_of_renamed_actions_are_two_rows(tmp_path, capsys):
    """They have one file name, and therefore lie below two folders of logs."""
    second = ["shift_left", "shift_right", "go_ahead", "take", "release", "turn"]
    for logs, names, successes in (("logs", SYNONYMS, 4), ("more", second, 1)):
        renamed = {"modified_action_space": True, "new_action_space": names}
        write_test(tmp_path / logs / "a_seed_1", configuration(1, **renamed), "zero-shot", outcomes(successes, 5))
    options = ["--tables", "results", "--figures"]
    report(capsys, [tmp_path / "logs", tmp_path / "more"], tmp_path / "out", *options)
    table = pd.read_csv(tmp_path / "out" / "results.csv")
    rates = table["success within the step limit"].str.split().str[0].astype(float)
    assert dict(zip(table.test, rates, strict=True)) == {
        "no modification, synonym actions": 0.8,
        "no modification, synonym actions, second set": 0.2,
    }
    assert table.episodes.tolist() == [5, 5]


def test_a_level_of_another_language_is_another_row(tmp_path, capsys):
    for logs, language, successes in (("logs", "french", 4), ("more", "english", 1)):
        config = configuration(1, language=language)
        write_test(tmp_path / logs / "a_seed_1", config, "zero-shot", outcomes(successes, 5), level=FRENCH)
    report(capsys, [tmp_path / "logs", tmp_path / "more"], tmp_path / "out", "--tables", "results", "--figures")
    assert pd.read_csv(tmp_path / "out" / "results.csv").test.tolist() == [
        "no modification",
        "no modification, english",
    ]


def test_a_bar_in_a_name_does_not_end_the_cell(tmp_path, capsys):
    config = configuration(1, name_model="a|b_50%")
    write_test(tmp_path / "logs" / "a_seed_1", config, "zero-shot", outcomes(4, 5))
    report(capsys, [tmp_path / "logs"], tmp_path / "out", "--tables", "results", "--figures")
    lines = (tmp_path / "out" / "results.md").read_text().splitlines()
    assert r"a\|b_50%" in lines[2]
    assert {line.replace(r"\|", "").count("|") for line in lines} == {9}  # of eight columns
    assert r"a|b\_50\%" in (tmp_path / "out" / "results.tex").read_text()


def test_options_that_lead_nowhere_are_named(campaign, tmp_path, capsys):
    for glob in ("", str(campaign / "llm_*")):
        status, _, _, err = report(capsys, [campaign], tmp_path / "out", "--runs", glob)
        assert status == 2
        assert err.startswith(f"error: --runs {glob!r}: give a glob of experiment ids")
    (tmp_path / "file").write_text("")
    status, _, _, err = report(capsys, [campaign], tmp_path / "file")
    assert status == 2
    assert err.startswith(f"error: --output: cannot write to {tmp_path / 'file'} (File exists)")


def test_empty_cells_and_files_of_two_tests_are_named(tmp_path, capsys):
    """An empty cell is no failed episode, and a csv that is not its json's is nobody's."""
    folder = tmp_path / "logs" / "a_seed_1"
    write_training(folder, configuration(1), [None, 0.5], probabilities=[1 / 6] * 6)
    plain = write_test(folder, configuration(1), "trained", outcomes(2, 5))
    words = write_test(folder, configuration(1), "trained", outcomes(2, 5), test="no_meaning_words")
    write_test(folder, configuration(1), "trained", outcomes(2, 5), test="no_meaning_nouns")
    plain.write_text(plain.read_text().replace(",1,10,", ",,10,", 1))
    words.write_text(words.read_text() + words.read_text().splitlines()[1].replace("0,", "5,", 1) + "\n")
    distrib = folder / "distrib.csv"
    distrib.write_text(distrib.read_text().replace("\n1,100,1,", "\n1,100,,", 1))
    options = ["--tables", "results", "--figures", "probabilities"]
    status, _, missing, _ = report(capsys, [tmp_path / "logs"], tmp_path / "out", *options)
    assert status == 0
    assert sorted(missing) == sorted(
        [
            f"{plain}: column success has no finite number in row 2 (''), left out",
            f"{plain}: truncated, 4 of 5 episodes: left out",
            f"{words}: 6 episodes, but its json tells of 5: left out",
            f"{distrib}: row 3 is left out, without a whole number as update and prompt",
        ]
    )
    assert pd.read_csv(tmp_path / "out" / "results.csv").test.tolist() == ["no meaning nouns"]
