# The project's entry points. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DRILL ?= embedded
BENCH ?= content naming many suite
# what a drill of Neon is simulated by: the vendor's API description, fetched where it is needed
NEON_API := fixtures/drill/neon_simulator/description/openapi.json
.DEFAULT_GOAL := help
.PHONY: help setup drill image test lint check init report plan history clean-drill docs lock bench bench-tools manifest neon-api

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): requirements.lock reports/package-lock.json
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one: make $(MAKECMDGOALS) PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m reports.renderer --install
	@touch $@

setup: $(STAMP) ## Build .venv from the lock file, hashes verified

drill: $(STAMP) $(if $(filter neon%,$(PROVIDER)),$(NEON_API)) ## Damage a throwaway production and run the whole runbook (DRILL= PROVIDER= DISASTER= SEED= SCALE= MAJOR=)
	@$(BIN)/pytest --drill=$(DRILL) $(if $(PROVIDER),--provider=$(PROVIDER)) $(if $(DISASTER),--disaster=$(DISASTER)) $(if $(SEED),--seed=$(SEED)) $(if $(SCALE),--scale=$(SCALE)) $(if $(MAJOR),--pg-major=$(MAJOR)) $(ARGS); \
	code=$$?; echo "exit code $$code"; exit $$code

$(NEON_API): fixtures/drill/neon_simulator/obtain.py | $(STAMP)
	$(BIN)/python -m fixtures.drill.neon_simulator.obtain

neon-api: $(NEON_API) ## Fetch Neon's published API description, hash verified, for drills and tests of Neon

image: $(STAMP) ## Build the image of a drill in containers from this machine's packages (MAJOR= TAG=)
	@$(BIN)/python -m fixtures.drill.image.build --major $(MAJOR) $(if $(TAG),--tag $(TAG))

test: $(STAMP) ## Run this project's own tests
	@$(BIN)/pytest tests -n 4 $(ARGS)

lint: $(STAMP) ## Format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint ## Format, lint, types and fast tests
	$(BIN)/pytest tests/unit

init: $(STAMP) ## Look at production, read-only, and write a first configuration (ARGS="--dsn=... --out=FILE")
	@$(BIN)/python -m fixtures.adoption $(ARGS)

manifest: $(STAMP) ## Take an integrity manifest, to be stored beside the backups (ARGS="--config=... --dsn=...")
	@$(BIN)/python -m fixtures.attest $(ARGS)

plan: $(STAMP) ## Show what a restore would do; changes nothing (ARGS="--target-time=...")
	@$(BIN)/pytest --plan $(ARGS)

report: $(STAMP) ## Render a run's report again (RUN=id, default latest)
	@$(BIN)/python -m reports $(or $(RUN),latest)

history: $(STAMP) ## Show how drills have gone: RTO, RPO, age of the last green one (MAX_AGE=days to fail on it)
	@$(BIN)/python -m reports --trend $(if $(MAX_AGE),--max-age=$(MAX_AGE))

clean-drill: $(STAMP) ## End what a killed drill left behind
	@$(BIN)/python -m fixtures.drill.clean

bench-tools: ## Build .venv-bench with the diff tool the benchmark of naming stands beside, hashes verified
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r benchmarks/requirements.lock

bench: $(STAMP) ## Measure the checks against counts and pg_amcheck, on a throwaway cluster (BENCH= content naming many suite)
	@for each in $(BENCH); do $(BIN)/python -m benchmarks.$$each || exit $$?; done

docs: $(STAMP) ## Regenerate the generated pages of docs/
	@$(BIN)/python -m reports.docs

lock: ## Renew requirements.lock (needs uv)
	uv pip compile pyproject.toml --group dev --universal --generate-hashes --python-version 3.11 --no-header -o requirements.lock
	uv pip compile --group bench --universal --generate-hashes --python-version 3.11 --no-header -o benchmarks/requirements.lock
