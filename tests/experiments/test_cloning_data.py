"""The files of an export, and what behavioural cloning makes of them."""

import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import trajectories
from experiments.agents.random_agent import RandomAgent
from experiments.cloning.data import Transitions, batches, read_transitions, split
from experiments.cloning.options import parse_arguments
from experiments.environments import check_environment
from experiments.errors import UserError
from experiments.trajectories import export_trajectories
from tests.experiments.conftest import SMALL, make_config

NOTHING_ELSE = [
    "lamorel_args.llm_args.model_path=none/none", "rl_script_args.saving_path_logs=x",
    "rl_script_args.saving_path_model=x",
]  # fmt: skip


def write(folder, number, prompts, actions, name="trajectories"):
    for kind, texts in (("prompts", prompts), ("actions", actions)):
        if texts is not None:
            np.save(folder / f"{name}_{kind}_{number}.npy", np.array(texts))


@pytest.fixture
def folder(tmp_path):
    for number in (0, 1, 2, 10):
        write(tmp_path, number, [f"p{number}a", f"p{number}b"], ["go", "stop"])
    write(tmp_path, 0, ["bot"], ["wait"], name="bot_trajectories")
    return tmp_path


def test_files_are_read_in_the_order_of_their_numbers(folder):
    assert read_transitions(folder, "trajectories", "1").prompts == ["p1a", "p1b"]
    some = read_transitions(folder, "trajectories", "0-2")
    assert some.prompts == ["p0a", "p0b", "p1a", "p1b", "p2a", "p2b"]
    assert some.actions == ["go", "stop"] * 3
    assert some.where(3) == f"{folder}/trajectories_prompts_1.npy[1]"
    assert read_transitions(folder, "bot_trajectories", "all").prompts == ["bot"]
    for number in range(3, 10):
        write(folder, number, [f"p{number}"], ["go"])
    assert read_transitions(folder, "trajectories", "all").prompts[-3:] == ["p9", "p10a", "p10b"]  # 10 is not after 1


@pytest.mark.parametrize(
    ("file_id", "message"),
    [
        ("all", r"trajectories_prompts_3\.npy is missing \(there are the numbers 0-2, 10\): give others"),
        ("1-3", r"trajectories_prompts_3\.npy is missing"),
        ("7", r"trajectories_prompts_7\.npy is missing"),
        ("2-1", r"--file_id 2-1: expected a number, a range such as 0-12, or all"),
        ("x", r"--file_id x: expected a number"),
    ],
)
def test_what_is_not_there_is_named(folder, file_id, message):
    with pytest.raises(UserError, match=message):
        read_transitions(folder, "trajectories", file_id)


def test_all_are_as_many_as_were_exported(folder):
    record = folder / "bot_trajectories.json"
    record.write_text('{"transitions": 1}')
    assert len(read_transitions(folder, "bot_trajectories", "all")) == 1
    record.write_text('{"transitions": 3}')
    with pytest.raises(UserError, match=r"tells of 3 pairs, but the files hold 1: an export was interrupted"):
        read_transitions(folder, "bot_trajectories", "all")
    assert len(read_transitions(folder, "bot_trajectories", "0")) == 1
    record.write_text("{")
    with pytest.raises(UserError, match=r"bot_trajectories\.json cannot be read"):
        read_transitions(folder, "bot_trajectories", "all")


def test_an_export_is_not_whole_before_its_end(tmp_path, monkeypatch):
    """A second export, as long as the first, that ends after the first of its two files."""
    rl = make_config([*SMALL, *NOTHING_ELSE, "rl_script_args.num_steps=12", "rl_script_args.random_agent=true"]).rl
    check_environment(rl)
    monkeypatch.setattr(trajectories, "TRANSITIONS_PER_FILE", 6)
    export_trajectories(rl, RandomAgent(), tmp_path, {})
    assert len(read_transitions(tmp_path, "trajectories", "all")) == 12
    monkeypatch.setattr(trajectories, "_transitions", lambda *_: fails_after(8))
    with pytest.raises(KeyboardInterrupt):
        export_trajectories(rl, RandomAgent(), tmp_path, {})
    assert read_transitions(tmp_path, "trajectories", "0").prompts == ["prompt"] * 6  # of the second
    with pytest.raises(UserError, match=r"tells of 0 pairs, but the files hold 12: an export was interrupted"):
        read_transitions(tmp_path, "trajectories", "all")


def fails_after(count):
    yield from [(0, index, SimpleNamespace(prompt="prompt", action="drop")) for index in range(count)]
    raise KeyboardInterrupt


def test_an_export_that_is_not_whole(folder, tmp_path):
    write(folder, 3, ["only prompts"], None)
    with pytest.raises(UserError, match=r"trajectories_actions_3\.npy is missing \(there are the numbers 0-2, 10\)"):
        read_transitions(folder, "trajectories", "3")
    write(folder, 3, ["a", "b"], ["go"])
    with pytest.raises(
        UserError, match=r"trajectories_prompts_3\.npy has 2 texts, but trajectories_actions_3\.npy has"
    ):
        read_transitions(folder, "trajectories", "3")
    write(folder, 3, ["a", ""], ["go", "go"])
    with pytest.raises(UserError, match=r"trajectories_prompts_3\.npy\[1\] is empty"):
        read_transitions(folder, "trajectories", "3")
    write(folder, 3, [1, 2], ["go", "go"])
    with pytest.raises(UserError, match=r"trajectories_prompts_3\.npy is not a one-dimensional array of texts"):
        read_transitions(folder, "trajectories", "3")
    np.save(folder / "trajectories_prompts_3.npy", np.array(["a", None], dtype=object), allow_pickle=True)
    with pytest.raises(
        UserError, match=r"trajectories_prompts_3\.npy cannot be read as an array of texts.*export them"
    ):
        read_transitions(folder, "trajectories", "3")
    whole = (folder / "trajectories_prompts_0.npy").read_bytes()
    (folder / "trajectories_prompts_3.npy").write_bytes(whole[:-4])
    with pytest.raises(UserError, match="cannot be read"):
        read_transitions(folder, "trajectories", "3")
    empty = tmp_path / "empty"
    with pytest.raises(UserError, match=r"--data_dir .*empty does not exist"):
        read_transitions(empty, "trajectories", "all")
    empty.mkdir()
    with pytest.raises(UserError, match=r"empty holds no trajectories_prompts_K\.npy: export them with"):
        read_transitions(empty, "trajectories", "all")


def numbered(total):
    return Transitions([f"p{i}" for i in range(total)], [f"a{i}" for i in range(total)])


@pytest.mark.parametrize(
    ("total", "options", "learnt", "evaluated"),
    [
        # more than train_transitions: these are learnt from, the rest is for evaluation, whatever the share
        (12, {"train_transitions": 10, "eval_share": 0.5}, (0, 10), (10, 12)),
        (12, {"train_transitions": 5, "eval_share": 0.0, "eval_transitions": 3}, (0, 5), (5, 8)),
        # not more: the last share of all is held out, rounded up; 0.25 * 10 = 2.5
        (10, {"train_transitions": 10, "eval_share": 0.25}, (0, 7), (7, 10)),
        (10, {"train_transitions": 400, "eval_share": 0.01}, (0, 9), (9, 10)),
        (10, {"train_transitions": 400, "eval_share": 0.0}, (0, 10), (10, 10)),
    ],
)
def test_what_is_held_out(total, options, learnt, evaluated):
    data = numbered(total)
    parts = split(data, **{"eval_transitions": None, **options})
    for part, (start, end) in zip(parts, (learnt, evaluated), strict=True):
        assert (part.prompts, part.actions) == (data.prompts[start:end], data.actions[start:end])


def test_what_is_held_out_is_said(caplog):
    with caplog.at_level(logging.INFO, logger="experiments.cloning.data"):
        split(numbered(20), train_transitions=400, eval_share=0.1, eval_transitions=None)
    assert "20 pairs are no more than --train_transitions 400: the last 2 are held out" in caplog.text
    with pytest.raises(UserError, match="one pair only"):
        split(numbered(1), train_transitions=400, eval_share=0.1, eval_transitions=None)


def test_every_epoch_has_every_pair_once_in_an_order_of_its_own():
    found = list(batches(10, 4, seed=3, epochs=2))
    assert [len(batch) for batch in found] == [4, 4, 2, 4, 4, 2]
    first, second = ([i for batch in found[start : start + 3] for i in batch] for start in (0, 3))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert first != list(range(10))
    assert list(batches(10, 4, seed=3, epochs=2)) == found
    assert next(batches(10, 5, seed=3, epochs=1)) == first[:5]  # the order does not depend on the size
    assert list(batches(10, 4, seed=4, epochs=1)) != found[:3]


def test_the_same_texts_have_the_same_hash():
    assert numbered(3).sha256() == numbered(3).sha256()
    assert numbered(3).sha256() != numbered(4).sha256()
    assert Transitions(["ab", "c"], ["x", "y"]).sha256() != Transitions(["a", "bc"], ["x", "y"]).sha256()


ACTIONS = "nbr_actions_6_turn_left_turn_right_go_forward_pick_up_drop_toggle"


def test_an_experiment_tells_the_folders(monkeypatch):
    """Those of `logs/ID/test/LEVEL` and of the overlays cloned_agent and cloned_bot, written down here."""
    found = parse_arguments(["--seed", "2", "--experiment", "actions_6"], None)
    run = f"actions_6_nbr_env_32_gflan_t5_large_pretrained_True_{ACTIONS}_shape_reward_beta_0_seed_2"
    assert found.data_dir == Path(f"storage/logs/{run}/test/BabyAI-GoToLocal-v0")
    assert (found.model_dir, found.output_dir) == (
        "google/flan-t5-large",
        Path("storage/cloned/actions_6_agent_seed_2"),
    )

    monkeypatch.setenv("GLAM_STORAGE", "/scratch/glam")
    overrides = ["rl_script_args.name_experiment=mine", "lamorel_args.llm_args.model_path=google/flan-t5-small"]
    bot = ["--file_name", "bot_trajectories", "--experiment", "actions_6", *overrides]
    found = parse_arguments(bot, None)
    run = f"mine_nbr_env_32_bot_pretrained_True_{ACTIONS}_shape_reward_beta_0_seed_1"
    assert found.data_dir == Path(f"/scratch/glam/logs/{run}/test/BabyAI-GoToLocal-v0")
    assert found.output_dir == Path("/scratch/glam/cloned/mine_bot_seed_1")
    assert found.model_dir == "google/flan-t5-small"

    found = parse_arguments([*bot, "--output_dir", "elsewhere"], None)  # what is given wins
    assert (found.output_dir, found.model_dir) == (Path("elsewhere"), "google/flan-t5-small")


def test_an_experiment_that_is_not_there(capsys):
    for arguments, message in (
        (["actions_5"], "experiment=actions_5 is not a file of configs/experiment: did you mean actions_9"),
        (["actions_6", "rl_script_args.sed=1"], "rl_script_args.sed is not a known key: did you mean"),
    ):
        with pytest.raises(UserError, match=f"^--experiment: {message}"):
            parse_arguments(["--experiment", *arguments], None)
    with pytest.raises(SystemExit, match="2"):
        parse_arguments(["--output_dir", "out"], None)
    assert "are required: --data_dir, --model_dir (or --experiment)" in capsys.readouterr().err
