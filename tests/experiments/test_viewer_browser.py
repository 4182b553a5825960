"""The viewer's page in a real, headless browser, opened from a file: what it shows is what was recorded."""

import os
import re
import shutil

import numpy as np
import pytest

import babyai_text
from experiments.agents.bot import BotAgent
from experiments.environments import check_environment
from experiments.playing import play_episodes
from experiments.viewer.page import page_data, render_page
from experiments.viewer.pictures import Pictures, png_uri, visible_cells
from tests.experiments.conftest import make_config
from tests.experiments.test_viewer import NASTY, nasty_episode

pytestmark = pytest.mark.browser
LEVEL = "BabyAI-UnlockPickup-v0"  # two rooms, a locked door, its key, a box to pick up


@pytest.fixture(scope="module")
def browser():
    driver = pytest.importorskip("playwright.sync_api", reason="no playwright: `make test-browser` installs it")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip(f"no browser, none of {', '.join(names)}: install one, e.g. `apt-get install chromium`")
    with driver.sync_playwright() as playwright:
        as_root = ["--no-sandbox"] if os.geteuid() == 0 else []  # as root chromium has no sandbox and wants that said
        browser = playwright.chromium.launch(executable_path=path, args=as_root)
        yield browser
        browser.close()


@pytest.fixture
def episodes(small):
    """Two of the bot, with made-up values, one of hostile texts, one with an image and one without a picture."""
    overrides = [f"rl_script_args.name_environment={LEVEL}", "rl_script_args.max_episode_steps=null"]
    rl = make_config([*small, *overrides, "rl_script_args.bot=true"]).rl
    check_environment(rl)
    played = play_episodes(rl, BotAgent(), [0, 3], with_transitions=True, wrapper=Pictures)
    valued = [
        episode._replace(transitions=[t._replace(value=0.25 * k - 1) for k, t in enumerate(episode.transitions)])
        for episode in played
    ]
    return [*valued, nasty_episode(), with_picture(8, png_uri(np.zeros((2, 3, 3), np.uint8))), with_picture(9, None)]


def with_picture(number, picture):
    episode = nasty_episode()
    view = episode.end._replace(info={"picture": picture})
    return episode._replace(episode=number, transitions=[episode.transitions[0]._replace(view=view)], end=view)


class Viewer:
    """The page as a reader sees it."""

    def __init__(self, page):
        self.page = page

    def wait_for_position(self, start):
        self.page.locator("#position", has_text=re.compile(rf"^{start}\b")).wait_for()

    def text(self, name):
        return self.page.locator(f"#{name}").inner_text()

    def policy(self):
        rows = self.page.locator("#policy tbody tr")
        return [
            (
                row.locator("th").inner_text().removesuffix(" chosen"),
                row.locator(".figure").inner_text(),
                row.locator(".mark").count() == 1,
            )
            for row in rows.all()
        ]

    def objects(self):
        """(column, row) -> what is drawn there, in words."""
        found = self.page.locator("#picture [data-object]").evaluate_all(
            "nodes => nodes.map(n => [n.getAttribute('transform'), n.dataset.object])"
        )
        places = [tuple(int(x) // 10 for x in re.findall(r"\d+", place)) for place, _ in found]
        return dict(zip(places, (name for _, name in found), strict=True))

    def agent(self):
        """Column, row and direction of the triangle, from where it is on the screen."""
        grid, triangle = (self.page.locator(f"#picture {part}").first.bounding_box() for part in ("svg", "svg .agent"))
        columns, rows = (int(n) // 10 for n in self.page.locator("#picture svg").get_attribute("viewBox").split()[2:])
        size = min(grid["width"] / columns, grid["height"] / rows)
        left = grid["x"] + (grid["width"] - size * columns) / 2
        top = grid["y"] + (grid["height"] - size * rows) / 2
        middle = (triangle["x"] + triangle["width"] / 2 - left, triangle["y"] + triangle["height"] / 2 - top)
        turned = self.page.locator("#picture svg .agent").get_attribute("transform")
        return int(middle[0] // size), int(middle[1] // size), int(re.search(r"rotate\((\d+)", turned)[1]) // 90

    def seen(self):
        return self.page.locator("#picture .cell").evaluate_all("ns => ns.map(n => n.classList.contains('seen'))")


@pytest.fixture
def viewer(browser, episodes, tmp_path):
    """The page, at its first state; at the end of the test it must have loaded nothing else and said nothing."""
    path = tmp_path / "pages of été" / "bot.html"
    path.parent.mkdir()
    data = page_data(episodes, title="bot on a level", language="english", facts={"agent": "bot", "note": NASTY})
    path.write_text(render_page(data), encoding="utf-8")
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    page.set_default_timeout(10_000)
    said, requested = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: requested.append(request.url))
    page.goto(path.as_uri())
    yield Viewer(page)
    page.close()
    assert said == []
    assert [url for url in requested if not url.startswith("data:")] == [path.as_uri()]


def words_of(env):
    """(column, row) -> what lies there in the environment."""
    state = {True: "open ", False: "closed "}
    found = {}
    for column in range(env.width):
        for row in range(env.height):
            thing = env.grid.get(column, row)
            if thing is None:
                continue
            opened = "locked " if getattr(thing, "is_locked", False) else state.get(getattr(thing, "is_open", None), "")
            found[column, row] = "wall" if thing.type == "wall" else f"{opened}{thing.color} {thing.type}"
    return found


def assert_shows(viewer, episode, step, env):
    """The screen shows the given decision of an episode, whose environment `env` has been replayed up to it."""
    over = step == episode.frames
    view = episode.end if over else episode.transitions[step].view
    assert viewer.text("mission") == episode.mission
    assert viewer.text("reset") == f"episode {episode.episode}, reset with seed {episode.seed}"
    assert viewer.page.locator("#prompt").text_content() == view.text.prompt
    assert viewer.objects() == words_of(env)
    assert viewer.agent() == (*env.agent_pos, env.agent_dir)
    assert viewer.seen() == visible_cells(env).ravel().tolist()
    carried = "nothing" if env.carrying is None else f"{env.carrying.color} {env.carrying.type}"
    assert viewer.text("carried") == f"carries {carried}"
    assert viewer.text("return") == f"{sum(t.reward for t in episode.transitions[:step]):.3f}"
    label = viewer.page.locator("#picture svg").get_attribute("aria-label")
    direction = ["east", "south", "west", "north"][env.agent_dir]
    assert f"Agent at column {env.agent_pos[0]}, row {env.agent_pos[1]}, facing {direction}" in label
    if over:
        assert viewer.text("position") == f"end ({step} of {step})"
        assert viewer.text("action") == "the episode has ended"
        assert not viewer.page.locator("#policy").is_visible()
        return
    transition = episode.transitions[step]
    assert viewer.text("position") == f"step {step} of {episode.frames}"
    assert viewer.text("action") == transition.action
    assert viewer.text("value") == f"{transition.value:.3f}"
    assert viewer.text("reward") == f"{transition.reward:.3f}"
    assert viewer.policy() == [
        (name, "1.000" if place == transition.chosen else "0.000", place == transition.chosen)
        for place, name in enumerate(view.text.candidates)
    ]


def test_every_step_by_button_shows_what_was_recorded(viewer, episodes):
    episode = episodes[0]
    env = babyai_text.make(LEVEL)
    env.reset(seed=episode.seed)
    core = env.unwrapped
    doors, carried = set(), set()
    assert viewer.page.locator("#previous").is_disabled()
    for step in range(episode.frames + 1):
        assert_shows(viewer, episode, step, core)
        doors |= {name for name in viewer.objects().values() if name.endswith("door")}
        carried.add(viewer.text("carried"))
        if step < episode.frames:
            env.step(episode.transitions[step].view.text.action_ids[episode.transitions[step].chosen])
            viewer.page.locator("#next").click()
    assert viewer.page.locator("#next").is_disabled()
    assert viewer.text("outcome") == f"success after {episode.frames} steps, return {episode.episode_return:.3f}"
    assert {name.split()[0] for name in doors} == {"locked", "open"}
    assert len(carried) == 3  # nothing, the key, the box
    viewer.page.locator("#previous").click()
    assert viewer.text("position") == f"step {episode.frames - 1} of {episode.frames}"


def replayed(episode, steps):
    env = babyai_text.make(LEVEL)
    env.reset(seed=episode.seed)
    for transition in episode.transitions[:steps]:
        env.step(transition.view.text.action_ids[transition.chosen])
    return env.unwrapped


def test_keys_slider_and_episodes(viewer, episodes):
    first, second = episodes[:2]
    keys = viewer.page.keyboard
    for key, step in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", first.frames), ("Home", 0)):
        keys.press(key)
        assert_shows(viewer, first, step, replayed(first, step))

    slider = viewer.page.locator("#slider")
    box = slider.bounding_box()
    viewer.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    step = int(slider.input_value())
    assert abs(step - first.frames / 2) <= 1
    assert_shows(viewer, first, step, replayed(first, step))
    keys.press("ArrowRight")  # the slider has the focus: one step, not two
    assert_shows(viewer, first, step + 1, replayed(first, step + 1))
    assert slider.get_attribute("aria-valuetext") == f"step {step + 1} of {first.frames}"

    keys.press("PageDown")
    assert_shows(viewer, second, 0, replayed(second, 0))
    options = viewer.page.locator("#episode option").all_inner_texts()
    assert options[1] == f"3: {second.mission}, success after {second.frames} steps, return {second.episode_return:.3f}"
    viewer.page.locator("#episode").select_option(index=0)
    assert_shows(viewer, first, 0, replayed(first, 0))
    keys.press("ArrowRight")  # the list has the focus, and the arrow still steps
    assert_shows(viewer, first, 1, replayed(first, 1))


def test_keys_after_a_button(viewer, episodes):
    """A button that was clicked has the focus: all keys but its own still work, and it is not lost at either end."""
    keys, frames = viewer.page.keyboard, episodes[0].frames
    viewer.page.locator("#next").click()
    for key, position in (("End", f"end ({frames} of {frames})"), ("Home", f"step 0 of {frames}")):
        keys.press(key)
        assert viewer.text("position") == position
    keys.press("PageDown")
    assert viewer.text("reset").startswith("episode 3,")
    keys.press("PageUp")

    focused = "document.activeElement.id"
    viewer.page.locator("#next").focus()
    for _ in range(frames):
        assert viewer.page.evaluate(focused) == "next"
        keys.press("Enter")
    assert viewer.text("position").startswith("end")
    assert viewer.page.evaluate(focused) == "previous"
    for _ in range(frames):
        keys.press("Enter")
    assert (viewer.text("position"), viewer.page.evaluate(focused)) == (f"step 0 of {frames}", "next")


def test_playing_runs_to_the_end_and_starts_again(viewer, episodes):
    frames = episodes[0].frames
    play = viewer.page.locator("#play")
    viewer.page.locator("#speed").select_option("10")
    play.click()
    assert play.inner_text() == "Pause"
    viewer.wait_for_position("step 2")
    play.click()
    assert play.inner_text() == "Play"
    stopped = viewer.text("position")
    viewer.page.wait_for_timeout(300)
    assert viewer.text("position") == stopped
    viewer.page.locator("body").press("Space")
    viewer.wait_for_position("end")
    assert play.inner_text() == "Play"
    assert viewer.text("position") == f"end ({frames} of {frames})"
    play.click()
    assert viewer.text("position") == f"step 0 of {frames}"


def test_hostile_texts_and_other_pictures(viewer):
    viewer.page.locator("#episode").select_option(index=2)
    assert viewer.page.locator("#mission").text_content() == NASTY
    assert viewer.page.locator("#prompt").text_content() == NASTY
    assert viewer.page.locator("#facts dd").nth(1).text_content() == NASTY
    assert [(figure, chosen) for _, figure, chosen in viewer.policy()] == [("0.250", False), ("0.750", True)]
    widths = viewer.page.locator(".bar").evaluate_all("ns => ns.map(n => getComputedStyle(n).backgroundSize)")
    assert widths == ["25% 100%, auto", "75% 100%, auto"]
    assert viewer.text("value") == "—"
    assert viewer.text("reward") == "0.123"
    viewer.page.keyboard.press("End")
    assert viewer.text("return") == "0.123"

    viewer.page.locator("#episode").select_option(index=3)
    image = viewer.page.locator("#picture img")
    assert image.evaluate("n => [n.complete, n.naturalWidth, n.naturalHeight]") == [True, 3, 2]
    viewer.page.locator("#episode").select_option(index=4)
    assert viewer.text("picture") == "This environment draws no picture."


TEXTS = ("#mission", "#outcome", "#facts dt", "#position", "#value", "#policy th", ".mark", "#prompt", "footer")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_readable_in_both_schemes_and_when_narrow(viewer, scheme, tmp_path):
    viewer.page.emulate_media(color_scheme=scheme)
    for name in TEXTS:
        assert contrast(viewer.page, name) >= 4.5, name  # WCAG 2.1, level AA
    page_colour = viewer.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", page_colour))) < 3 * 64) == (scheme == "dark")
    for width in (1280, 360):
        viewer.page.set_viewport_size({"width": width, "height": 900})
        for index in (0, 2):
            viewer.page.locator("#episode").select_option(index=index)
            assert viewer.page.evaluate("document.documentElement.scrollWidth") <= width
    picture = tmp_path / "page.png"
    viewer.page.screenshot(path=picture)
    assert picture.stat().st_size > 10_000
    controls = "button, select, input, pre"
    for control in viewer.page.locator(controls).all():
        assert control.evaluate("n => n.ariaLabel || n.textContent.trim() || n.labels?.length")


def contrast(page, selector):
    """The contrast ratio of a text and what is behind it, by WCAG's formula."""
    colours = page.locator(selector).first.evaluate(
        """node => {
          let behind = node;
          while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
          return [getComputedStyle(node).color, getComputedStyle(behind).backgroundColor];
        }"""
    )
    light, dark = sorted(
        (luminance([int(n) for n in re.findall(r"\d+", colour)[:3]]) for colour in colours), reverse=True
    )
    return (light + 0.05) / (dark + 0.05)


def luminance(rgb):
    linear = [c / 255 / 12.92 if c / 255 <= 0.03928 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
