# Each target does its own set-up on a fresh machine: Python 3.11+ and a network that reaches a package index.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
DEMO   := $(VENV)/.demo
PHOENIX := .venv-phoenix

# Tests start many processes: none compiles again what another has compiled, whatever the machine's setting.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-full mutations bench check lint types floors docs clean phoenix help

help:
	@sed -n 's/^## //p' Makefile

## make demo     a guarded support agent over a file of conversations; exits non-zero if one ends unexpectedly
demo: $(DEMO)
	$(BIN)/guardrails-mw demo

## make test     every test, against real servers that the tests start themselves
test: $(READY) $(PHOENIX)/.ready
	$(BIN)/python -m pytest -n auto --dist worksteal

## make test-full  the same, and every cell of the fault matrix
test-full: $(READY) $(PHOENIX)/.ready
	$(BIN)/python -m pytest -n auto --dist worksteal -m "full or not full"

## make mutations  every law broken on purpose, in a copy: the tests that hold it must fail
mutations: $(READY)
	$(BIN)/python tests/mutations.py

## make bench    the figures of the README, with every rival's version and configuration
bench: $(READY)
	$(BIN)/python -m benchmarks

## make check    what continuous integration runs besides the tests: lint, types, floors
check: lint types floors

## make docs     the generated parts of the documentation, anew
docs: $(READY)
	$(BIN)/python docs/generate.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

floors: $(READY)
	$(BIN)/lint-imports

# The demo needs neither PyTorch nor the development tools.
$(DEMO): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[demo]"
	@touch $@

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all]" --group dev
	@touch $@ $(DEMO)

# Phoenix brings a web framework and a database driver of its own: it gets an environment of its own.
phoenix: $(PHOENIX)/.ready

$(PHOENIX)/.ready: constraints-phoenix.txt
	$(PYTHON) -m venv $(PHOENIX)
	$(PHOENIX)/bin/python -m pip install --quiet --constraint constraints-phoenix.txt arize-phoenix
	@touch $@

clean:
	rm -rf $(VENV) $(PHOENIX) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
