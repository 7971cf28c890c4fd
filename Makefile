# Each target works alone on a fresh clone: it makes the virtual environment and installs what it needs.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help docs demo campaign seed load test cgroup2 lint typecheck bench bench-large pool-bench rq-suite rq-newest oldest wheel-check chaos pictures dashboard clean

help: ## Say what each target does
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/demo ## Run a real campaign under a ceiling, and serve its dashboard (DEMO_OPTIONS='--keep': until Ctrl-C)
	@$(RUN) -m scripts.demo $(DEMO_OPTIONS)

campaign: $(VENV)/demo ## Run a campaign and follow it to its last call (CAMPAIGN_OPTIONS='--customers 5000 --batches')
	@$(RUN) -m scripts.test_campaign $(CAMPAIGN_OPTIONS)

seed: $(VENV)/demo ## Fill database and files with a large dataset, or go on with it (SEED_OPTIONS='--customers 1000000')
	@$(RUN) -m seeds.large_dataset --resume $(SEED_OPTIONS)

load: $(VENV)/dev ## Run the six jobs under load, and the same naively: forty minutes (LOAD_OPTIONS='--short': twenty)
	@$(RUN) -m scripts.load_test $(LOAD_OPTIONS)

# In parts, and all of them also if one fails. The first measures its own process, with all that tests have started there.
# The last runs three times as many as processors, since most tests wait for processes.
TESTS_AT_ONCE := $(shell expr $$(nproc) \* 3)

test: export PYTHONDONTWRITEBYTECODE := # else each process compiles the tests and rqmem anew
test: $(VENV)/dev ## Run all tests (their Redis comes with them)
	@failed=0; part() { echo "$(RUN) -m pytest $$*"; $(RUN) -m pytest "$$@" || failed=1; }; \
	  part tests/worker/test_functions.py; \
	  part -m alone --ignore=tests/worker/test_functions.py; \
	  part -m races -n 2 --dist loadfile; \
	  part -m "not alone and not races" -n $(TESTS_AT_ONCE) --dist worksteal --ignore=tests/packaging; \
	  exit $$failed

KERNEL_LAYER := tests/unit/test_cgroup_places.py tests/unit/test_cgroup.py tests/worker/test_kernel_layer.py

cgroup2: $(VENV)/dev ## Test the kernel's layer on an emulated machine with cgroup v2, in three situations: an hour
	@failed=0; for each in alone beside container; do echo "=== $$each"; \
	  $(RUN) -m scripts.cgroup2_vm --situation $$each --timeout 5400 -- $(RUN) -m pytest -q $(KERNEL_LAYER) || failed=1; done; exit $$failed

lint: $(VENV)/dev ## Check style and format with ruff
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

typecheck: $(VENV)/dev ## Check types with mypy
	$(RUN) -m mypy

bench: $(VENV)/bench ## Measure: how the ceiling holds against 40 adversaries and honest jobs, and what it costs: 15 minutes
	$(RUN) -m scripts.bench.ceiling

pool-bench: $(VENV)/bench ## Compare rqmem pool, rq worker-pool and Celery in 600 MB: half an hour (POOL_OPTIONS='--short': 5 minutes)
	@$(RUN) -m scripts.bench.pool --output docs/pictures/pool.svg $(POOL_OPTIONS)

bench-large: $(VENV)/bench ## Measure chunks, splits, cutting of files, reading of rows and pages of the dashboard, at full size: an hour
	@failed=0; for each in chunks splits sources reading_rows dashboard; do \
	  echo "$(RUN) -m scripts.bench.$$each"; $(RUN) -m scripts.bench.$$each || failed=1; done; exit $$failed

docs: $(VENV)/docs ## Build the docs as a site in .site, which can be read and searched from the disk
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet
	@echo "open .site/index.html"

rq-suite: $(VENV)/dev ## Run RQ's own tests with MemoryWorker in place of Worker, warm and forked: 10 minutes
	$(RUN) -m scripts.rq_suite --tb=short -W ignore
	$(RUN) -m scripts.rq_suite --isolation fork --tb=short -W ignore

rq-newest: $(VENV)/dev ## Compare the newest RQ with the list of what rqmem relies on (rqmem/rq_seams.py)
	@where=$$(mktemp -d) && trap 'rm -rf "$$where"' EXIT && export PYTHONPATH="$$where" && \
	  if ! $(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --retries 0 --timeout 5 \
	    --target "$$where" rq; then echo "no package index can be reached: the newest RQ was not compared"; exit 0; fi && \
	  $(RUN) -c 'import rq; print("RQ", rq.__version__, "from", *rq.__path__)' && \
	  $(RUN) -m pytest -q tests/unit/test_rq_seams.py -k 'installed or listed'

# Where rqmem meets other libraries: Redis, RQ, databases, frameworks, pages, drawings.
OLDEST_TESTS := tests/redis_server/test_connections.py tests/sources tests/integrations $(addprefix tests/dashboard/test_,\
  api_v1.py beside_rq.py mounts.py pages.py) $(addprefix tests/cli/test_,enqueue.py exporter.py report.py status.py) \
  $(addprefix tests/unit/test_,chunk_size.py meters.py) $(addprefix tests/worker/test_,resume.py split.py) \
  $(addprefix tests/reference_app/test_,database.py sentiment.py)
OLDEST_PYTHON := $(firstword $(wildcard $(HOME)/.pyenv/versions/3.10.*/bin/python3.10) $(PYTHON))

oldest: $(VENV)/dev ## Run a short set of tests with the lowest versions that setup.cfg allows, on Python 3.10 if it is here
	@$(RUN) -m uv venv --quiet --clear --python $(OLDEST_PYTHON) $(VENV)/oldest
	@$(RUN) -m uv pip install --quiet --python $(VENV)/oldest --resolution lowest-direct --editable '.[dev,plot]'
	$(VENV)/oldest/bin/python -m pytest -q -n $(TESTS_AT_ONCE) --dist worksteal -m "not alone and not races" $(OLDEST_TESTS)

wheel-check: $(VENV)/dev ## Build the package, and install and try it in an empty environment of each Python from 3.10 that is here
	$(RUN) -m pytest -q -n 2 tests/packaging

chaos: $(VENV)/dev ## Kill workers and horses at random over 200 runs of chunked and split jobs: 15 minutes
	$(RUN) -m tests.chaos

pictures: $(VENV)/dev ## Make README's pictures anew, in docs/pictures: 4 minutes
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[plot]'
	$(RUN) -m scripts.pictures

dashboard: $(VENV)/demo ## Serve the dashboard of the Redis that rqmem uses here, on 127.0.0.1 only
	@$(RUN) -m rqmem dashboard --url "$$($(RUN) -m rqmem redis url)" $(DASHBOARD_OPTIONS)

clean: ## Stop this directory's Redis and remove what demo, tests and tools made
	-@test ! -x $(RUN) || $(RUN) -m rqmem redis stop
	rm -rf $(VENV) .site .demo .campaign .load .rqmem .rq-suite .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps say what the environment holds: what the demo needs, or all that development needs.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@touch $@

$(VENV)/docs: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

$(VENV)/bench: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@ $(VENV)/dev $(VENV)/docs $(VENV)/demo

$(VENV)/dev: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/docs $(VENV)/demo
