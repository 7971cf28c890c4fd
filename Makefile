# Each target works alone on a fresh clone: it makes the virtual environment and installs what it needs.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help demo test lint typecheck bench dashboard clean

help: ## Say what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/demo ## Run a real campaign under a ceiling, with one job that breaches, resumes and finishes
	@$(RUN) -m scripts.demo

test: $(VENV)/dev ## Run all tests (their Redis comes with them)
	$(RUN) -m pytest

lint: $(VENV)/dev ## Check style and format with ruff
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

typecheck: $(VENV)/dev ## Check types with mypy
	$(RUN) -m mypy

bench: $(VENV)/dev ## Measure: MB above the ceiling by kind of growth, jobs a second beside rq worker
	$(RUN) -m scripts.bench.ceiling

dashboard: $(VENV)/demo ## Open rq-dashboard on the Redis that rqmem uses here, on 127.0.0.1 only
	@$(RUN) -m scripts.dashboard

clean: ## Stop this directory's Redis and remove what demo, tests and tools made
	-@test ! -x $(RUN) || $(RUN) -m rqmem redis stop
	rm -rf $(VENV) .demo .rqmem .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps say what the environment holds: what the demo needs, or all that development needs.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@touch $@

$(VENV)/dev: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/demo
