"""Install the packages of the GLAM reproduction: `pip install -e .` (add `[test]` for the test tools)."""

from pathlib import Path

from setuptools import find_packages, setup

PACKAGES = ("lamorel", "lamorel_launcher", "experiments")
ENVIRONMENTS = ("babyai_text", "overcooked_text", "virtualhome_text")  # each in a folder of its name with a hyphen
FOLDERS = {name: name.replace("_", "-") for name in ENVIRONMENTS}

setup(
    name="glam-reproduction",
    version="0.3.0",
    description="GLAM and TWOSOME: language models as policies, trained online by PPO in text environments",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=[name for name in find_packages() if name.split(".")[0] in PACKAGES]
    + [found for name, folder in FOLDERS.items() for found in find_packages(folder, include=[name, f"{name}.*"])],
    package_dir={name: f"{folder}/{name}" for name, folder in FOLDERS.items()},
    package_data={"experiments.viewer": ["page.html", "page.css", "page.js"]},
    install_requires=[
        "torch>=2.4,<3",
        "transformers>=5.0,<6",
        "accelerate>=1.0",
        "peft>=0.15",
        "tokenizers>=0.20",
        "huggingface_hub>=0.30",
        "safetensors>=0.4",
        "sentencepiece>=0.2.1",
        "hydra-core>=1.3.2,<1.4",
        "omegaconf>=2.3,<2.4",
        "gymnasium>=1.1",
        "minigrid>=3.2",
        "cloudpickle>=1.2",
        "numpy>=1.26",
        "pandas>=2.1",
        "matplotlib>=3.8",
        "pillow>=10.1",  # draws VirtualHome's images
        "jinja2>=3.1.2",  # pandas writes LaTeX with it
        "tensorboard>=2.14",
        "tqdm>=4.66",
        "psutil>=5.9",
    ],
    # old `gym` finds the levels by itself when it is installed
    entry_points={"gym.envs": ["__root__ = babyai_text.registration:register_in_old_gym"]},
    extras_require={
        "test": ["pytest>=8", "pytest-xdist>=3.5", "ruff>=0.9", "mypy>=1.13"],
        "browser": ["playwright>=1.49"],  # `make test-browser`; drives the system's browser, downloads none
        "gym": ["gym==0.26.2"],  # registers the levels in the old `gym` as well
        "gguf": ["gguf>=0.10", "transformers>=5.18,<6"],  # a GGUF file as lamorel_args.llm_args.model_path
        "quantization": ["bitsandbytes>=0.43"],  # lamorel_args.llm_args.load_in_4bit, load_in_8bit
        "cluster": ["hydra-submitit-launcher>=1.2"],  # sweeps: -m hydra/launcher=slurm
        "tracking": ["wandb>=0.17"],  # rl_script_args.wandb
    },
)
