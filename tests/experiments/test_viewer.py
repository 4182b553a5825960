"""What the viewer records of an episode, and the page it makes of it; test_viewer_browser.py opens the page."""

import base64
import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from typing import ClassVar

import gymnasium as gym
import matplotlib.image
import numpy as np
import pytest
from minigrid.core.constants import OBJECT_TO_IDX
from minigrid.core.grid import Grid
from minigrid.core.world_object import Ball, Box, Door, Key, WorldObj

import babyai_text
from experiments.agents.base_agent import View
from experiments.agents.bot import BotAgent
from experiments.agents.random_agent import RandomAgent
from experiments.environments import check_environment
from experiments.errors import UserError
from experiments.evaluation import evaluate
from experiments.experiment_paths import ExperimentPaths
from experiments.playing import EpisodeResult, Transition, play_episodes
from experiments.prompters import TextState
from experiments.show_episodes import page_path, show_episodes
from experiments.train_language_agent import train
from experiments.viewer.page import page_data, render_page
from experiments.viewer.pictures import GridPicture, Pictures, grid_picture, visible_cells
from tests.experiments.conftest import ROOT, make_config, run_script
from tests.experiments.toy_text_env import ToyKitchen

TEST = "no_modification_test"


class Page(HTMLParser):
    """The parts of a page, and whether its elements close as they open."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.addresses, self.scripts, self.title = [], set(), [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.add(attributes.get("id"))
        self.addresses += [attributes[name] for name in ("src", "href", "action") if name in attributes]
        if tag == "script":
            self.scripts.append("")
        if tag not in ("meta", "input", "br", "img", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        if self.open and self.open[-1] == "title":
            self.title += data

    @property
    def data(self):
        return json.loads(self.scripts[0])


def page_of(config, test=TEST):
    path = page_path(config, ExperimentPaths.of(config), test)
    return Page(path.read_text(encoding="utf-8"))


def test_a_room_by_hand():
    env = babyai_text.make("BabyAI-GoToRedBallNoDists-v0").unwrapped
    env.reset(seed=0)
    env.grid = Grid(5, 4)
    env.grid.wall_rect(0, 0, 5, 4)
    env.grid.set(3, 1, Ball("red"))
    env.grid.set(2, 2, Key("yellow"))
    env.grid.set(4, 1, Door("blue", is_locked=True))
    env.grid.set(4, 2, Door("green", is_open=True))
    env.agent_pos, env.agent_dir, env.carrying = (1, 1), 0, Box("purple")
    picture = grid_picture(env)
    # type, colour, state: wall 2 grey 5; ball 6 red 0; key 5 yellow 4; door 4: blue 2 locked 2, green 1 open 0
    assert picture == GridPicture(
        width=5,
        height=4,
        cells="250250250250250" + "250100100600422" + "250100540100410" + "250250250250250",
        # facing east from column 1, it sees nothing of column 0, which is behind it
        visible="01111" * 4,
        agent=(1, 1, 0),
        carried="730",
    )
    env.agent_dir, env.carrying = 3, None  # north: the two rows from its own up
    assert grid_picture(env) == replace(picture, visible="11111" * 2 + "00000" * 2, agent=(1, 1, 3), carried="100")


def test_kinds_and_colours_that_minigrid_lacks_have_a_digit(monkeypatch):
    monkeypatch.setitem(OBJECT_TO_IDX, "tree", 11)
    monkeypatch.setitem(OBJECT_TO_IDX, "hedge", 40)  # "z" is for all from 35 on
    env = babyai_text.make("BabyAI-GoToRedBallNoDists-v0").unwrapped
    env.reset(seed=0)
    env.grid = Grid(3, 3)
    env.grid.set(0, 0, WorldObj("tree", "red"))
    env.agent_pos, env.carrying = (1, 0), WorldObj("hedge", "grey")
    assert (grid_picture(env).cells, grid_picture(env).carried) == ("b00" + 8 * "100", "z50")


@pytest.mark.parametrize("level", ["BabyAI-UnlockPickup-v0", "BabyAI-GoTo-v0"])
def test_what_is_visible_is_what_minigrid_highlights(level):
    env = babyai_text.make(level).unwrapped
    env.reset(seed=5)
    actions = np.random.default_rng(0)
    shares = set()
    for _ in range(40):
        env.step(actions.choice([0, 1, 2, 2, 2, 5]))
        bright, plain = (env.get_full_render(highlight, 4).astype(int) for highlight in (True, False))
        tiles = np.abs(bright - plain).sum(axis=2).reshape(env.height, 4, env.width, 4).sum(axis=(1, 3)) > 0
        np.testing.assert_array_equal(visible_cells(env), tiles)
        shares.add(tiles.mean())
    assert len(shares) > 5


@pytest.fixture
def rl(small):
    overrides = ["rl_script_args.name_environment=BabyAI-MixedTrainLocal-v0", "rl_script_args.max_episode_steps=20"]
    config = make_config([*small, *overrides])
    check_environment(config.rl)
    return config.rl


def outcomes(episodes):
    """All but the infos."""
    return [
        (*episode[:7], [(t.prompt, t.chosen, t.log_probs.tolist(), t.reward) for t in episode.transitions])
        for episode in episodes
    ]


@pytest.mark.parametrize("agent", [RandomAgent, BotAgent])
def test_pictures_change_no_episode_in_any_process(rl, agent):
    numbers = [4, 0, 7]
    without = play_episodes(rl, agent(), numbers, with_transitions=True)
    shown = play_episodes(rl, agent(), numbers, with_transitions=True, wrapper=Pictures, render=True)
    workers = replace(rl, vector_backend="process")
    elsewhere = play_episodes(workers, agent(), numbers, with_transitions=True, wrapper=Pictures, render=True)
    assert [episode.episode for episode in shown] == numbers
    assert outcomes(without) == outcomes(shown) == outcomes(elsewhere)
    for here, there in zip(shown, elsewhere, strict=True):
        views = [[*(t.view for t in episode.transitions), episode.end] for episode in (here, there)]
        pictures = [[view.info["picture"] for view in some] for some in views]
        assert pictures[0] == pictures[1]
        assert len(set(pictures[0])) > 2
    # the picture is of the state that the prompt describes, also of the one in which an episode ended
    env = babyai_text.make(rl.name_environment, max_steps=rl.max_episode_steps)
    env.reset(seed=shown[0].seed)
    for transition in shown[0].transitions:
        assert transition.view.info["picture"] == grid_picture(env.unwrapped)
        env.step(transition.view.text.action_ids[transition.chosen])
    assert shown[0].end.info["picture"] == grid_picture(env.unwrapped)


def test_pages_of_every_agent_hold_the_tests_episodes(small):
    level = "rl_script_args.name_environment=BabyAI-GoToLocalS5N2-v0"
    shown = "rl_script_args.shown_episodes=[3,1]"
    tests = "rl_script_args.tests=[no_modification_test,no_meaning_words]"
    train(make_config([*small, level, "rl_script_args.num_steps=32"]))
    for extra, label in (
        ([], "zero-shot"),
        (["rl_script_args.zero_shot=false"], "trained"),
        (["rl_script_args.bot=true"], "bot"),
        (["rl_script_args.random_agent=true", "lamorel_args.distributed_setup_args.n_llm_processes=0"], "random"),
    ):
        config = make_config([*small, level, shown, tests, *extra])
        show_episodes(config)
        page = page_of(config)
        assert page.data["facts"]["agent"] == label
        assert page.data["facts"].get("checkpoint") == ("update 1" if label == "trained" else None)
        assert len(page.data["episodes"]) == 2
        for episode in page.data["episodes"]:
            assert all((step["value"] is not None) == (label == "trained") for step in episode["steps"])
            for step in episode["steps"]:
                assert sum(step["probabilities"]) == pytest.approx(1, abs=1e-5)
                assert len(step["probabilities"]) == len(step["candidates"]) == 6
        if label in ("bot", "random"):  # the tests' rows, by another way
            agent = BotAgent() if label == "bot" else RandomAgent()
            rows = evaluate(config.rl, agent, TEST)
            for number, episode in zip((3, 1), page.data["episodes"], strict=True):
                row = rows[number]
                assert (episode["episode"], episode["seed"], episode["mission"]) == (row.episode, row.seed, row.mission)
                assert (episode["success"], len(episode["steps"])) == (row.success, row.frames)
                assert episode["return"] == pytest.approx(row.episode_return, rel=1e-5)
        renamed = page_of(config, "no_meaning_words").data
        prompt = renamed["strings"][renamed["episodes"][0]["steps"][0]["prompt"]]
        assert any(word in prompt for word in ("dax", "xolo", "afze"))
        assert renamed["episodes"][0]["mission"] in prompt


NASTY = "</script><script>alert(1)</script> <!-- \" ' & \\ @data@ @title@ $& \u2028 boîte à clé"


def nasty_episode():
    """One decision whose every text is hostile; probabilities 0.25 and 0.75, then the end."""
    picture = GridPicture(2, 1, "600100", "11", (1, 0, 2), "100")
    view = View(TextState(NASTY, [NASTY, "go"], [0, 1]), NASTY, None, {"picture": picture}, 0, True)
    transition = Transition(view, 1, np.log([0.25, 0.75, 0.0001]), None, 0.123456789)  # a third: no candidate of this
    return EpisodeResult(7, 1_000_000_007, "", "", 0.123456789, True, 1, 0.1, 1, False, 0, [transition], view)


def test_hostile_texts_stay_texts():
    data = page_data([nasty_episode()], title=NASTY, language="french", facts={"model": NASTY})
    text = render_page(data)
    page = Page(text)
    assert page.data == data
    assert page.title == NASTY
    assert len(page.scripts) == 2
    assert page.addresses == []  # nothing to load
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert {"episode", "slider", "previous", "play", "next", "picture", "prompt", "policy", "value"} <= page.ids
    [episode] = page.data["episodes"]
    [step] = episode["steps"]
    strings = page.data["strings"]
    assert [strings[step["prompt"]], *(strings[c] for c in step["candidates"])] == [NASTY, NASTY, "go"]
    assert (step["probabilities"], step["chosen"], step["value"], step["reward"]) == ([0.25, 0.75], 1, None, 0.123457)
    assert strings[step["picture"]["cells"]] == "600100"
    assert (page.data["language"], episode["mission"], episode["episode"]) == ("fr", NASTY, 7)


def test_numbers_of_a_broken_model_do_not_break_the_page():
    episode = nasty_episode()
    broken = episode.transitions[0]._replace(value=float("nan"), log_probs=np.array([float("nan")] * 2))
    page = Page(
        render_page(page_data([episode._replace(transitions=[broken])], title="", language="english", facts={}))
    )
    [step] = page.data["episodes"][0]["steps"]
    assert (step["value"], step["probabilities"]) == ("nan", ["nan", "nan"])


class DrawnKitchen(ToyKitchen):
    """Draws the dish that is wanted as the red of two by three pixels."""

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 4}

    def __init__(self, render_mode=None):
        super().__init__()
        self.render_mode = render_mode

    def render(self):
        return np.full((2, 3, 3), (self.wanted, 0, 255), dtype=np.uint8)


gym.register("DrawnKitchen-v0", DrawnKitchen, max_episode_steps=5)


def test_other_environments_draw_themselves_or_nothing(rl):
    other = replace(rl, prompter="environment", name_environment="DrawnKitchen-v0", max_episode_steps=5)
    [episode] = play_episodes(other, RandomAgent(), [0], with_transitions=True, wrapper=Pictures, render=True)
    for view in [*(t.view for t in episode.transitions), episode.end]:
        header, encoded = view.info["picture"].split(",")
        assert header == "data:image/png;base64"
        pixels = matplotlib.image.imread(io.BytesIO(base64.b64decode(encoded)))[..., :3] * 255
        wanted = int(view.text.prompt.rsplit(" ", 1)[1])  # "Goal of the agent: go to 4"
        np.testing.assert_allclose(pixels, np.broadcast_to([wanted, 0, 255], (2, 3, 3)), atol=0.01)
    data = page_data([episode], title="", language="english", facts={})
    assert data["strings"][data["episodes"][0]["end"]["picture"]["image"]] == episode.end.info["picture"]

    blank = replace(other, name_environment="ToyKitchen-v0")
    [episode] = play_episodes(blank, RandomAgent(), [0], with_transitions=True, wrapper=Pictures, render=True)
    assert episode.end.info["picture"] is None
    data = page_data([episode], title="", language="english", facts={})
    assert data["episodes"][0]["steps"][0]["picture"] is None


def test_twenty_long_episodes_are_a_few_megabytes(rl):
    """Grids of 22 by 22 cells; of twenty episodes of 128 steps these are two."""
    overrides = {"name_environment": "BabyAI-BossLevel-v0", "max_episode_steps": 128, "num_dists": 8}
    episodes = play_episodes(
        replace(rl, **overrides), RandomAgent(), [0, 1], with_transitions=True, wrapper=Pictures, render=True
    )
    assert sum(episode.frames for episode in episodes) == 256
    assert len(render_page(page_data(episodes, title="", language="english", facts={}))) < 5_000_000 * 2 / 20


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("shown_episodes=[]", r"shown_episodes=\[\]: give numbers of test episodes"),
        ("shown_episodes=[1,-1]", "shown_episodes=.*: give numbers of test episodes"),
        ("shown_episodes=[2,2]", "shown_episodes=.*: give numbers of test episodes"),
        ("shown_episodes=[first]", "shown_episodes.*: Value 'first'"),
        ("stop_rule=first_n", "stop_rule=first_n: its episodes have no seeds of their own"),
    ],
)
def test_bad_keys_are_named(small, override, expected):
    with pytest.raises(UserError, match=expected):
        show_episodes(make_config([*small, "rl_script_args.bot=true", f"rl_script_args.{override}"]))


def test_the_script_from_another_folder(small, tmp_path):
    overrides = [*small, "rl_script_args.random_agent=true", "rl_script_args.shown_episodes=[0]"]
    result = run_script("show_episodes.py", overrides, tmp_path)
    assert result.returncode == 0, result.stderr
    [page] = tmp_path.rglob("*.html")
    assert page.name == "random_no_modification_test.html"
    assert result.stderr.strip().endswith(str(page))
    assert [path.name for path in page.parent.iterdir()] == [page.name]  # nothing half-written is left
    assert not (tmp_path / "models").exists()


def test_an_installation_brings_the_page(tmp_path):
    pytest.importorskip("setuptools")
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    packaged = {path.name for path in (tmp_path / "experiments" / "viewer").iterdir() if path.suffix != ".py"}
    assert {"page.html", "page.css", "page.js"} <= packaged


@pytest.mark.parametrize(("browser", "installs"), [("google-chrome", False), (None, True)])
def test_make_test_browser_installs_none_beside_one(tmp_path, browser, installs):
    """In a world of these programs only, whose apt-get notes that it was called."""
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    (tmp_path / "venv" / ".installed").touch()
    for name, body in {"apt-get": f"echo >> {tmp_path}/called", "id": "echo 0", "python": "", browser: ""}.items():
        if name is not None:
            (programs / name).write_text(f"#!/bin/sh\n{body}\n")
            (programs / name).chmod(0o755)
    (programs / "grep").symlink_to(shutil.which("grep"))
    command = [shutil.which("make"), "test-browser", f"VENV={tmp_path / 'venv'}"]
    subprocess.run(command, cwd=ROOT, env={"PATH": str(programs)}, check=True, capture_output=True, timeout=20)
    assert (tmp_path / "called").exists() == installs


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["rl_script_args.bot=true"], "bot_no_modification_test.html"),
        (
            ["rl_script_args.random_agent=true", "rl_script_args.language=french"],
            "random_no_modification_test_french.html",
        ),
        (
            ["rl_script_args.modified_action_space=true", "rl_script_args.new_action_space=[a,b,c,d,e,f]"],
            "zero-shot_no_modification_test_newactions.html",
        ),
    ],
)
def test_pages_of_other_agents_languages_and_actions_do_not_replace_each_other(small, overrides, name):
    config = make_config([*small, *overrides])
    assert page_path(config, ExperimentPaths.of(config), "no_modification_test").name == name
