"""`make` and the registered ids: text everywhere, clear errors, gymnasium's rules, nothing on stdout."""

import warnings
from functools import partial
from itertools import pairwise

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from minigrid.core.constants import COLOR_TO_IDX, COLORS, OBJECT_TO_IDX
from minigrid.core.grid import Grid
from minigrid.core.mission import MissionSpace
from minigrid.core.world_object import Key, WorldObj
from minigrid.minigrid_env import MiniGridEnv
from minigrid.wrappers import DictObservationSpaceWrapper, FullyObsWrapper, ImgObsWrapper, RGBImgPartialObsWrapper

import babyai_text
from babyai_text.levels import MixedTrainLocal, PickUpSeqGoToLocal
from babyai_text.making import creator_of, is_minigrid

REGISTERED = [
    "BabyAI-MixedTrainLocal-v0",
    "BabyAI-MixedTrainLocalFrench-v0",
    "BabyAI-MixedTestLocal-v0",
    "BabyAI-PickUpSeqGoToLocal-v0",
    "BabyAI-PickUpThenGoToLocal-v0",
    "BabyAI-GoToAfterPickUpLocal-v0",
    "BabyAI-PickUpSeqPickUpLocal-v0",
    "BabyAI-GoToFrench-v0",
    "BabyAI-GoToLocalS8N16-v0",
]


def test_registered_ids():
    assert list(babyai_text.LEVELS) == REGISTERED
    assert gym.spec("BabyAI-GoToLocal-v0").entry_point == "minigrid.envs.babyai:GoToLocal"  # not overridden


@pytest.mark.parametrize("level", REGISTERED)
def test_plain_gymnasium_make_gives_text_at_reset_and_step(level):
    env = gym.make(level)
    greeting = "Tu " if "French" in level else "You "
    _, reset_info = env.reset(seed=0)
    *_, step_info = env.step(env.action_space.sample())
    for info in (reset_info, step_info):
        assert info["descriptions"]
        assert all(sentence.startswith(greeting) for sentence in info["descriptions"])


@pytest.mark.parametrize(
    "level", ["BabyAI-GoToLocal-v0", "BabyAI-BossLevel-v0", "MiniGrid-FourRooms-v0", "MiniGrid-LavaCrossingS9N1-v0"]
)
def test_text_for_ids_of_minigrid_matches_describe(level):
    env = babyai_text.make(level, language="french", walls="all", max_steps=20)
    _, info = env.reset(seed=1)
    for action in np.random.default_rng(0).integers(0, 6, 10):
        assert info["descriptions"] == babyai_text.describe(env, "french", walls="all")
        *_, info = env.step(action)


def test_every_babyai_id_can_be_made_with_text():
    levels = [level for level in gym.registry if level.startswith("BabyAI-")]
    assert len(levels) > 100
    for level in levels:
        assert isinstance(babyai_text.make(level).reset(seed=0)[1]["descriptions"], list), level


def test_language_of_the_level_or_of_the_caller():
    def first_word(level, **options):
        return babyai_text.make(level, **options).reset(seed=0)[1]["descriptions"][0].split()[0]

    assert first_word("BabyAI-GoToFrench-v0") == "Tu"
    assert first_word("BabyAI-GoToFrench-v0", language="english") == "You"
    assert first_word("BabyAI-MixedTestLocal-v0", language="french") == "Tu"
    assert first_word("BabyAI-GoToLocal-v0", language="french") == "Tu"


def test_step_describes_without_a_second_view():
    env = babyai_text.make("BabyAI-GoToLocal-v0")
    env.reset(seed=0)
    core, views = env.unwrapped, []
    original = core.gen_obs
    core.gen_obs = lambda: views.append(original()) or views[-1]
    env.step(0)
    assert len(views) == 1


@pytest.mark.parametrize("level", [f"BabyAI-PutNext{size}Carrying-v0" for size in ("S5N2", "S6N3", "S7N4")])
def test_reset_describes_what_the_agent_starts_with(level):
    env = babyai_text.make(level)
    for seed in range(5):
        observation, info = env.reset(seed=seed)
        held = env.unwrapped.carrying  # minigrid gives it after it made the observation
        assert info["descriptions"][0] == f"You carry a {held.color} {held.type}"
        # turning right round and looking again shows the same
        for _ in range(4):
            seen, _, _, _, later = env.step(1)
        assert info["descriptions"] == later["descriptions"]
        assert np.array_equal(observation["image"], seen["image"])
        assert observation in env.observation_space


def test_a_registered_level_describes_what_its_reset_leaves(monkeypatch):
    original = MixedTrainLocal.reset

    def reset_then_carry(self, **kwargs):
        returned = original(self, **kwargs)
        self.carrying = Key("red")
        return returned

    monkeypatch.setattr(MixedTrainLocal, "reset", reset_then_carry)
    env = gym.make("BabyAI-MixedTrainLocal-v0")
    observation, info = env.reset(seed=0)
    assert info["descriptions"][0] == "You carry a red key"
    assert np.array_equal(observation["image"], env.unwrapped.gen_obs()["image"])


@pytest.mark.parametrize("action", [6, 7, 100, np.int64(8)])
def test_actions_beyond_the_last_do_nothing(action):
    env = babyai_text.make("BabyAI-GoToLocal-v0")
    observation, _ = env.reset(seed=0)
    after, reward, terminated, truncated, _ = env.step(action)
    assert np.array_equal(after["image"], observation["image"])
    assert (reward, terminated, truncated, env.unwrapped.step_count) == (0, False, False, 1)


def test_an_action_must_be_whole():
    env = babyai_text.make("BabyAI-GoToLocal-v0")
    env.reset(seed=0)
    with pytest.raises(TypeError):
        env.step(1.5)


def test_unknown_level_lists_near_names():
    with pytest.raises(gym.error.NameNotFound, match="'BabyAI-MixTrainLocal-v0'; near names: BabyAI-MixedTrain"):
        babyai_text.make("BabyAI-MixTrainLocal-v0")
    with pytest.raises(gym.error.NameNotFound, match="'BabyAI-MixTrainLocal-v0'; near names: BabyAI-MixedTrain"):
        babyai_text.make("babyai_text:BabyAI-MixTrainLocal-v0")


NEW_LEVEL = """
import gymnasium
gymnasium.register("Elsewhere-v0", "minigrid.envs:EmptyEnv", kwargs={"size": 5})
"""


def test_module_and_id(tmp_path, monkeypatch):
    name = "babyai_text:BabyAI-GoToFrench-v0"
    assert babyai_text.make(name).reset(seed=0)[1]["descriptions"][0].startswith("Tu ")
    assert babyai_text.make("minigrid:MiniGrid-Empty-5x5-v0").reset(seed=0)[1]["descriptions"]

    (tmp_path / "levels_from_elsewhere.py").write_text(NEW_LEVEL)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert babyai_text.make("levels_from_elsewhere:Elsewhere-v0").unwrapped.width == 5
    finally:
        gym.registry.pop("Elsewhere-v0", None)
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        babyai_text.make("no_such_module:BabyAI-GoToLocal-v0")


@pytest.mark.parametrize(
    ("level", "option"),
    [
        ("BabyAI-MixedTrainLocal-v0", "num_disks"),
        ("BabyAI-MixedTrainLocal-v0", "num_cols"),  # set by the level itself
        ("BabyAI-GoToLocal-v0", "task_kind"),
        ("BabyAI-GoToRedBallNoDists-v0", "num_dists"),
    ],
)
def test_unknown_option_is_named_with_its_level(level, option):
    with pytest.raises(TypeError) as raised:
        babyai_text.make(level, **{option: 3})
    assert str(raised.value) == f"{level} takes no option '{option}'"


@pytest.mark.parametrize("level", ["BabyAI-GoToLocal-v0", "BabyAI-GoToFrench-v0"])
@pytest.mark.parametrize("option", ["language", "walls"])
def test_wrong_text_options_fail_when_made(level, option):
    with pytest.raises(ValueError, match=f"{option} must be one of .*, got ''"):
        babyai_text.make(level, **{option: ""})


@pytest.mark.parametrize("max_steps", [0, -3, True, 8.0])
@pytest.mark.parametrize(
    "make",
    [
        partial(babyai_text.make, "BabyAI-MixedTrainLocal-v0"),
        partial(babyai_text.make, "BabyAI-GoToLocal-v0"),
        partial(babyai_text.make, "MiniGrid-Empty-5x5-v0"),
        partial(gym.make, "BabyAI-GoToFrench-v0"),
        PickUpSeqGoToLocal,
    ],
)
def test_a_time_limit_is_at_least_one_step(make, max_steps):
    with pytest.raises(ValueError, match=f"^max_steps must be a whole number of at least 1, got {max_steps}$"):
        make(max_steps=max_steps)


def test_time_limits_that_are_allowed():
    for level in ("BabyAI-MixedTrainLocal-v0", "MiniGrid-Empty-5x5-v0"):
        env = babyai_text.make(level, max_steps=np.int64(1))
        env.reset(seed=0)
        assert env.step(6)[3]
    env = babyai_text.make("BabyAI-GoToFrench-v0", max_steps=None)
    env.reset(seed=0)
    assert env.unwrapped.max_steps == 64


def test_other_environments_are_refused():
    with pytest.raises(TypeError, match="need a MiniGrid environment"):
        babyai_text.make("CartPole-v1")


class Grove(MiniGridEnv):
    """A level as a user's package brings it; its missions are made by a lambda."""

    def __init__(self, size=7, thing=None, **kwargs):
        self.thing = thing
        space = MissionSpace(mission_func=lambda: "get to the goal")
        super().__init__(mission_space=space, grid_size=size, max_steps=9, **kwargs)

    def _gen_grid(self, width, height):
        self.grid = Grid(width, height)
        self.grid.wall_rect(0, 0, width, height)
        self.put_obj(self.thing() if self.thing else Key("red"), 3, 1)
        self.agent_pos, self.agent_dir = (1, 1), 0
        self.mission = "get to the goal"


class Rewarding(gym.Wrapper):
    """Changes rewards and the mission, and leaves the image alone."""

    def step(self, action):
        observation, _, terminated, truncated, info = self.env.step(action)
        return {**observation, "mission": "look about"}, 3.0, terminated, truncated, info


@pytest.fixture
def own():
    """Registers an entry point for one test; returns its id."""
    levels = []

    def register(entry_point):
        levels.append(f"Grove{len(levels)}-v0")
        gym.register(levels[-1], entry_point)
        return levels[-1]

    yield register
    for level in levels:
        gym.registry.pop(level)


SEEN = ["You see a wall 1 step left", "You see a red key 2 steps forward"]


@pytest.mark.parametrize(
    "around", [ImgObsWrapper, RGBImgPartialObsWrapper, FullyObsWrapper, DictObservationSpaceWrapper]
)
def test_wrappers_that_an_id_brings_along_change_no_sentence(own, around):
    env = babyai_text.make(own(lambda **options: around(Grove(**options))))
    bare = babyai_text.make(own(Grove))
    observation, info = env.reset(seed=0)
    plain, expected = bare.reset(seed=0)
    for action in (1, 2, 0, 2):
        assert info["descriptions"] == expected["descriptions"]
        assert observation["mission"] == plain["mission"] == "get to the goal"
        assert observation in env.observation_space
        observation, *_, info = env.step(action)
        plain, *_, expected = bare.step(action)


def test_a_wrapper_that_words_the_mission_is_heard(own):
    env = babyai_text.make(own(lambda **options: Rewarding(Grove(**options))))
    observation, info = env.reset(seed=0)
    assert (observation["mission"], info["descriptions"]) == ("get to the goal", SEEN)
    observation, reward, *_, info = env.step(6)
    assert (observation["mission"], reward, info["descriptions"]) == ("look about", 3.0, SEEN)


def test_kinds_and_colours_that_minigrid_lacks(own, monkeypatch):
    """A package adds them to minigrid's tables; in French, too, they are called what they are."""

    class Tree(WorldObj):
        def __init__(self):
            super().__init__("tree", "orange")

    monkeypatch.setitem(OBJECT_TO_IDX, "tree", 37)
    monkeypatch.setitem(COLOR_TO_IDX, "orange", 29)
    monkeypatch.setitem(COLORS, "orange", np.array([255, 128, 0]))
    env = babyai_text.make(own(Grove), thing=Tree)
    assert env.reset(seed=0)[1]["descriptions"][1] == "You see a orange tree 2 steps forward"
    assert babyai_text.describe(env, "french")[1] == "Tu vois une tree orange 2 pas devant"


def test_worker_processes_have_levels_whose_missions_a_lambda_makes(own):
    envs = babyai_text.make_vec(own(Grove), 2, seeds=[0, 1], backend="process", size=9)
    observations, infos = envs.reset()
    assert observations["mission"] == ("get to the goal",) * 2
    assert infos["descriptions"].tolist() == [SEEN, SEEN]
    envs.close()


def test_which_levels_can_be_described(own):
    assert is_minigrid("BabyAI-GoToFrench-v0")
    assert is_minigrid("minigrid:MiniGrid-Empty-5x5-v0")
    assert not is_minigrid("CartPole-v1")
    level = own(Grove)
    assert is_minigrid(level)
    assert creator_of(level) is Grove
    assert is_minigrid(own(lambda **options: ImgObsWrapper(Grove(**options))), size=9)
    assert not is_minigrid(own(lambda: gym.make("CartPole-v1").unwrapped))


@pytest.mark.parametrize("level", REGISTERED)
@pytest.mark.parametrize("make", [babyai_text.make, lambda level: gym.make(level).unwrapped])
def test_gymnasium_env_checker(level, make, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")  # the checker opens a window for render_mode="human"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version")
        warnings.filterwarnings("ignore", message="The system font")  # minigrid's
        check_env(make(level))


def test_rendering_follows_the_width_of_the_task():
    env = babyai_text.make("BabyAI-MixedTrainLocal-v0", render_mode="rgb_array", tile_size=10)
    widths = set()
    for seed in range(12):
        env.reset(seed=seed)
        frame = env.render()
        assert frame.shape == (80, 10 * env.unwrapped.width, 3)
        widths.add(frame.shape[1])
    assert widths == {80, 150}


def test_generation_prints_nothing(capsys):
    seeds = range(30)
    loud = gym.make("BabyAI-PutNextLocal-v0", disable_env_checker=True)
    loud_missions = [loud.reset(seed=seed)[0]["mission"] for seed in seeds]
    assert "Sampling rejected" in capsys.readouterr().out  # what there is to silence

    quiet = babyai_text.make("BabyAI-PutNextLocal-v0")
    assert [quiet.reset(seed=seed)[0]["mission"] for seed in seeds] == loud_missions
    for level in REGISTERED:
        env = gym.make(level)
        for seed in range(10):
            env.reset(seed=seed)
    assert capsys.readouterr().out == ""


def test_same_seed_same_episode_and_other_seed_another():
    env = babyai_text.make("BabyAI-MixedTrainLocal-v0")
    images = [env.reset(seed=seed)[0]["image"].tobytes() for seed in (1, 1, 2, 3)]
    assert images[0] == images[1]
    assert all(one != other for one, other in pairwise(images[1:]))
