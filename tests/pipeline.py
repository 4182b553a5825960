"""The whole pipeline with a tiny LLM and small numbers, every step the command that a user would type.

    python tests/pipeline.py /tmp/pipeline

Train, test (all wordings, French, renamed actions, zero-shot), export, clone, test the clone, DRRN, Symbolic-PPO,
episodes to look at, tables and figures. Takes a few minutes on one core; everything is written below the given folder.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1] / "experiments"
LEVEL = "BabyAI-MixedTrainLocal-v0"
ALL_TESTS = (
    "[no_modification_test,other_name_same_categories,adj_synonym,no_meaning_nouns,no_meaning_adj,no_meaning_words,"
    "change_intro_first_personne_speaker,change_intro_first_personne_agent,other_goal_test]"
)
RENAMED = "[rotate_left,rotate_right,move_ahead,take,release,switch]"
NO_LLM = "lamorel_args.distributed_setup_args.n_llm_processes=0"


def rl(**values: object) -> list[str]:
    """Overrides of `rl_script_args`."""
    return [f"rl_script_args.{key}={value}" for key, value in values.items()]


class Pipeline:
    """Commands below one folder.

    Attributes:
        folder: of models, logs, clone and results.
        common: overrides of every hydra script.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.common = [
            f"lamorel_args.llm_args.model_path={folder / 'tiny'}",
            *rl(
                saving_path_logs=folder / "logs",
                saving_path_model=folder / "models",
                name_experiment="pipeline",
                name_model="tiny",
                name_environment=LEVEL,
                number_envs=8,
                max_episode_steps=16,
                nbr_obs=2,
                frames_per_proc=8,
                num_steps=192,
                batch_size=32,
                epochs=1,
                lr="1e-4",
                torch_threads=1,
                number_episodes=20,
                spm_path=folder / "spm.model",
            ),
            *rl(**{"tiny_llm.d_model": 32, "tiny_llm.layers": 1, "tiny_llm.clone_episodes": 20}),
        ]

    def run(self, script: str, *arguments: str, hydra: bool = True) -> None:
        """Run a script; its output is shown, and a failure ends the pipeline."""
        shown = " ".join([script, *arguments])
        print(f"-- {shown}", flush=True)
        start = time.perf_counter()
        common = self.common if hydra else []
        subprocess.run([sys.executable, str(SCRIPTS / script), *common, *arguments], cwd=self.folder, check=True)
        print(f"-- {script}: {time.perf_counter() - start:.0f} s", flush=True)

    def test(self, *overrides: str) -> None:
        self.run("post-training_tests.py", *overrides)

    def main(self) -> None:
        trained = rl(zero_shot="false")
        french = rl(name_environment="BabyAI-GoToFrench-v0", language="french")
        renamed = rl(modified_action_space="true", new_action_space=RENAMED)

        self.run("make_tiny_llm.py")
        self.run("train_language_agent.py")
        for agent in (trained, []):  # the trained model, and zero-shot, on the same episodes
            self.test(*agent, *rl(tests=ALL_TESTS))
            self.test(*agent, *french)
            self.test(*agent, *renamed)
        self.test(*trained, *rl(name_environment="BabyAI-PickUpSeqPickUpLocal-v0"))
        self.test(*rl(random_agent="true", name_model="random", tests=ALL_TESTS))
        self.test(*rl(bot="true", name_model="bot", max_episode_steps="null"))

        export = rl(get_example_trajectories="true", num_steps=600)
        self.test(*export, *trained)
        self.test(*export, *rl(bot="true", name_model="bot", max_episode_steps="null"))
        self.clone()
        self.test(*rl(im_learning="true", im_path=self.folder / "clone", name_model="clone"))

        self.run("make_sentencepiece.py")
        drrn = [NO_LLM, *rl(name_model="drrn"), *rl(**{"drrn.memory": 1000})]
        self.run("train_language_agent.py", *drrn)
        self.test(*drrn, *rl(tests=ALL_TESTS))

        small = {"number_envs": 8, "frames_per_proc": 8, "recurrence": 4, "batch_size": 32, "epochs": 1}
        symbolic = [*rl(name_model="symbolic"), *rl(**{f"symbolic.{key}": value for key, value in small.items()})]
        self.run("train_symbolic_ppo.py", *symbolic)
        self.test(*symbolic, *rl(symbolic_ppo="true"))

        for agent in (trained, [], rl(bot="true", name_model="bot", max_episode_steps="null")):
            self.run("show_episodes.py", *agent)
        self.run(
            "test_results.py",
            "--logs",
            str(self.folder / "logs"),
            "--output",
            str(self.folder / "results"),
            hydra=False,
        )

    def clone(self) -> None:
        """Behavioural cloning of what the bot did."""
        (data,) = self.folder.glob(f"logs/*_bot_*/test/{LEVEL}")
        options = {
            "data_dir": data,
            "file_name": "bot_trajectories",
            "file_id": "all",
            "model_dir": self.folder / "tiny",
            "output_dir": self.folder / "clone",
            "per_device_batch_size": 16,
            "gradient_accumulation_steps": 1,
            "seed": 1,
        }
        arguments = [text for key, value in options.items() for text in (f"--{key}", str(value))]
        self.run("clm_behavioral-cloning.py", *arguments, hydra=False)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    target = Path(sys.argv[1]).resolve()
    target.mkdir(parents=True, exist_ok=True)
    Pipeline(target).main()
