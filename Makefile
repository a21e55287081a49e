# `make help` lists what can be done. Everything is set up by the targets themselves: nothing has to be installed by hand.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_STAMP := $(VENV)/.installed-for-demo
PYTEST_ARGS ?=
# One worker for each processor that this process may use, up to four: more wait for each other's disk.
WORKERS := -n logical --maxprocesses=4

.DEFAULT_GOAL := help
.PHONY: help venv system demo test test-long oldest lint format bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

venv: $(STAMP) ## create .venv with nbcr and everything its tests need (again only when pyproject.toml changed)

$(STAMP): pyproject.toml scripts/make-venv
	@scripts/make-venv "$(PYTHON)" "$(VENV)"
	@touch $@

# Whoever looks at the demo first does not have to wait for all that the tests need.
$(DEMO_STAMP): pyproject.toml scripts/make-venv
	@scripts/make-venv "$(PYTHON)" "$(VENV)" . numpy
	@touch $@

system: ## install the C compiler and the browser that the tests use (root), or say what is missing
	@scripts/system-packages

demo: $(or $(wildcard $(STAMP)),$(DEMO_STAMP)) ## checkpoint, spoil, rewind, kill and bring back a live Jupyter kernel, with timings
	@$(BIN)/python scripts/demo.py

test: $(STAMP) system ## run the tests, all but the long sweeps
	@$(BIN)/python -m pytest $(WORKERS) $(PYTEST_ARGS)

test-long: $(STAMP) system ## run all tests, with every long sweep
	@$(BIN)/python -m pytest $(WORKERS) --long $(PYTEST_ARGS)

oldest: $(STAMP) ## run the demo and a test with the oldest versions of all packages that nbcr needs
	@scripts/oldest "$(abspath $(BIN)/python)" "$(VENV)-oldest"

lint: $(STAMP) ## ruff (rules and format) and mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict

format: $(STAMP) ## let ruff mend and format the sources
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(STAMP) ## measure pause, time and bytes, beside dd, cloudpickle and dill
	@$(BIN)/python -m benchmarks

clean: ## remove what the targets above made
	rm -rf $(VENV) $(VENV)-oldest build dist artifacts tests/subjects/build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
