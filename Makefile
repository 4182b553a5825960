# `make train` and `make test` work on a fresh machine with Python >= 3.11: they create .venv and install everything.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.PHONY: train test test-slow lint types install
.DEFAULT_GOAL := help

help:
	@echo "make train      the demo: warm-start a tiny LLM, train it by PPO, compare before and after"
	@echo "make test       unit tests, golden checks, one end-to-end run of each script"
	@echo "make test-slow  kills, pipelines, rates over thousands of episodes"
	@echo "make lint       ruff and mypy"

install: $(READY)

$(READY): requirements.txt setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11: install one and call make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

test: $(READY)
	$(BIN)/python -m pytest

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
