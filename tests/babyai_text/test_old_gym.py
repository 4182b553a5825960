"""The levels in gym 0.26, in either order of imports."""

import importlib.util
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("gym") is None, reason="gym is not installed")

EPISODE = """
env = gym.make("BabyAI-MixedTrainLocal-v0", disable_env_checker=True, task_kind="open")
_, info = env.reset(seed=0)
assert info["descriptions"]
*_, info = env.step(0)
assert info["descriptions"]
assert gym.make("BabyAI-GoToFrench-v0").reset(seed=0)[1]["descriptions"][0].startswith("Tu ")
assert gym.make("BabyAI-GoToLocal-v0").reset(seed=0)[1]["descriptions"][0].startswith("You ")
print("played")
"""


def run(script, path=None):
    environment = os.environ | ({"PYTHONPATH": f"{path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"} if path else {})
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert "Overriding" not in result.stderr  # each id is registered once, whoever asks for it
    return result.stdout


def test_gym_imported_first():
    assert run(f"import gym, babyai_text\n{EPISODE}") == "played\n"


@pytest.mark.parametrize("imports", ["import babyai_text, gym", "import gym"])
def test_gym_finds_the_levels_as_a_plugin(imports, tmp_path):
    # what installing this package leaves for gym to read, whether or not it is installed here
    metadata = tmp_path / "plugin_for_gym-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-for-gym\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[gym.envs]\n__root__ = babyai_text.registration:register_in_old_gym\n")
    assert run(f"{imports}\n{EPISODE}", path=tmp_path) == "played\n"


def test_gym_is_not_imported_for_the_user():
    assert run("import sys, babyai_text; print('gym' in sys.modules)") == "False\n"
