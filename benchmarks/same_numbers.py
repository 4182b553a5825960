"""Whether a change of the code changes a number: short runs of every method and script, before and after.

    python benchmarks/same_numbers.py record FOLDER      # with the code as it was
    python benchmarks/same_numbers.py record OTHER       # with the changed code, on the same machine
    python benchmarks/same_numbers.py compare FOLDER OTHER

It compares log.csv without the columns of time, distrib.csv, the episodes of tests, exported trajectories, and the
weights of checkpoints and clones, byte by byte. `compare` names the files that differ and ends with status 1 if any do.
"""

import argparse
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

SCRIPTS = Path(__file__).resolve().parents[1] / "experiments"
TIMES = ["FPS", "duration"]
DEMO = ["experiment=demo"]
TESTS = "rl_script_args.number_episodes=20"


def rl(**keys: object) -> list[str]:
    return [f"rl_script_args.{key}={value}" for key, value in keys.items()]


def heads(name: str, *more: str) -> list[str]:
    model = "lamorel_args.llm_args.model_path=storage/demo/tiny_llm_seed_1"
    return [f"experiment={name}", model, *rl(name_experiment="heads", num_steps=1536), *more]


# the baselines: five updates each
SPM = rl(spm_path="storage/sentencepiece.model")
DRRN = ["experiment=[demo,drrn]", *SPM, *rl(num_steps=2560)]
SYMBOLIC = ["experiment=[demo,symbolic]", *rl(num_steps=12800)]
VECTOR = [
    "experiment=vector_ppo_food_preparation",
    *rl(num_steps=2560, saving_path_logs="storage/vector/logs", saving_path_model="storage/vector/models"),
]
RESUMED = [*DEMO, *rl(name_experiment="resumed")]
CLONE = [
    *("--data_dir", "{data}", "--file_name", "bot_trajectories", "--output_dir", "storage/clone"),
    *("--model_dir", "storage/demo/tiny_llm_seed_1", "--train_transitions", "100", "--log_every", "1"),
]

RUNS = [
    ("make_tiny_llm.py", DEMO),
    ("train_language_agent.py", [*DEMO, *rl(num_steps=10240)]),  # 20 updates
    ("post-training_tests.py", [*DEMO, TESTS, *rl(zero_shot="true")]),
    ("post-training_tests.py", ["experiment=[demo,generalisation]", TESTS, *rl(zero_shot="false")]),
    ("post-training_tests.py", ["experiment=[demo,french]", TESTS, *rl(zero_shot="false")]),
    ("post-training_tests.py", ["experiment=[demo,export_trajectories]", *rl(zero_shot="false", num_steps=300)]),
    ("train_language_agent.py", [*RESUMED, *rl(num_steps=1024)]),
    ("train_language_agent.py", [*RESUMED, *rl(num_steps=2048)]),
    ("train_language_agent.py", heads("demo", *rl(name_model="action_heads", use_action_heads="true"))),
    ("train_language_agent.py", heads("[demo,npae]", *rl(name_model="npae"))),
    ("make_tiny_llm.py", ["experiment=twosome_demo"]),
    ("train_language_agent.py", ["experiment=twosome_demo", *rl(num_steps=6144)]),  # 6 updates
    ("post-training_tests.py", ["experiment=twosome_demo", TESTS, *rl(zero_shot="false")]),
    ("make_sentencepiece.py", DRRN),
    ("train_language_agent.py", DRRN),
    ("post-training_tests.py", [*DRRN, TESTS]),
    ("train_symbolic_ppo.py", SYMBOLIC),
    ("post-training_tests.py", [*SYMBOLIC, TESTS]),
    ("train_symbolic_ppo.py", VECTOR),
    ("post-training_tests.py", [*VECTOR, TESTS]),
    ("post-training_tests.py", ["experiment=[demo,bot,export_trajectories]", *rl(num_steps=150)]),
    ("clm_behavioral-cloning.py", CLONE),
]


def record(folder: Path) -> None:
    """Play every run below an empty folder."""
    folder.mkdir(parents=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("GLAM_STORAGE", None)
    for script, arguments in tqdm(RUNS, unit="run", disable=None):
        if any("{data}" in argument for argument in arguments):
            [data] = {path.parent for path in folder.glob("storage/demo/logs/*/test/*/bot_trajectories_prompts_*.npy")}
            arguments = [argument.format(data=data) for argument in arguments]
        command = [sys.executable, str(SCRIPTS / script), *arguments]
        run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if run.returncode:
            sys.exit(f"{' '.join(command)} ended with status {run.returncode}:\n{run.stderr[-3000:]}")


def numbers(folder: Path) -> dict[str, str]:
    """Path of every file with numbers -> a hash of them."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name == "log.csv":
            table = pd.read_csv(path, dtype=str)
            content = table.drop(columns=TIMES, errors="ignore").to_csv().encode()
        elif path.suffix == ".npy":
            content = str(np.load(path, allow_pickle=True).tolist()).encode()
        elif path.suffix in (".csv", ".safetensors"):
            content = path.read_bytes()
        else:
            continue
        found[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return found


def compare(folder: Path, other: Path) -> int:
    one, two = numbers(folder), numbers(other)
    if not one:
        sys.exit(f"{folder}: no numbers, record some first")
    different = sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))
    print(*different, sep="\n", end="\n" if different else "")
    print(f"{len(one | two)} files, {len(different)} differ")
    return 1 if different else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("record").add_argument("folder", type=Path)
    comparing = commands.add_parser("compare")
    comparing.add_argument("folder", type=Path)
    comparing.add_argument("other", type=Path)
    args = parser.parse_args()
    if args.command == "compare":
        return compare(args.folder, args.other)
    record(args.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
