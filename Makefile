# The commands of the README. PYTHON picks the interpreter that makes the virtual environment.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= configs/grpo_mixed.yaml

.PHONY: install install-dev train test test-slow check lint types bench-vision bench-video bench-step docs clean

$(VENV)/.installed: constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
	touch $@

install: $(VENV)/.installed

install-dev: $(VENV)/.installed-dev

train: install
	$(BIN)/hybrid-rl train $(CONFIG)

test: install-dev
	$(BIN)/pytest

test-slow: install-dev
	$(BIN)/pytest -m slow

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install-dev
	$(BIN)/mypy

check: lint types test

# Minutes each; the figures mean something only on a machine that does nothing else.
bench-vision: install-dev
	$(BIN)/python -m benchmarks.vision

bench-video: install-dev
	$(BIN)/python -m benchmarks.video_efficiency

bench-step: install-dev
	$(BIN)/python -m benchmarks.grpo_step

docs: install
	$(BIN)/python -m hybrid_rl.insight.reference

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
