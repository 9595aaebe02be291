# wsol_dist: `make help` lists what there is. Everything sets itself up in .venv on first use.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
EXTRA := $(if $(shell command -v nvidia-smi 2>/dev/null),gpu,cpu)
LOCK := requirements-$(EXTRA).lock
BIN := .venv/bin
UV := .tools/bin/uv
STAMP := .venv/installed-$(EXTRA)
WORKERS ?= 2
export OMP_NUM_THREADS ?= 1
# As pip does: trust what this machine trusts, behind a company's proxy too.
export UV_SYSTEM_CERTS ?= 1
# Real data for tests and benches, where a sibling folder has it.
export WSOL_DATA ?= $(wildcard $(abspath ../shared/data))

.PHONY: help setup quickstart test test-rest test-all test-long check rooms audit lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /|/' | awk -F'|' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## virtual environment with every locked package (about 6 GB)

quickstart: $(STAMP) ## the main job on the embedded data: pack, train on 2 processes, evaluate, report (3 minutes)
	@echo "[1/3] packing the embedded data set into data/collage"
	@$(BIN)/python shards/pack.py collage --out data/collage
	@echo "[2/3] training on 2 processes, then the evaluator as a job of its own"
	@$(BIN)/python launch/submit.py quickstart --cluster local --nodes 1 --procs-per-node 2
	@echo "[3/3] the report"
	@$(BIN)/wsol report runs/quickstart

test: $(STAMP) ## the everyday suite (under 5 minutes on 2 idle cores)
	$(BIN)/python -m tests.run "make test" 300 -n $(WORKERS) -m "not slow and not slurm and not long" tests

# Three more workers than cores: each of the three SLURMs mostly waits.
test-rest: $(STAMP) ## what `make test` leaves out: faults, SLURM, whole chains, pages of docs, browser (under 25 minutes)
	@tests/install.sh
	$(BIN)/python -m tests.run "make test-rest" 1500 -n $(shell expr $(WORKERS) + 3) -m "(slow or slurm) and not long" tests

test-all: test test-rest ## both (under 30 minutes)

test-long: $(STAMP) ## what takes longer than every change should wait for; run once for what it is about
	$(BIN)/python -m tests.run "make test-long" 7200 -n $(WORKERS) -m long tests || [ $$? = 5 ] # none is marked

check: $(STAMP) ## ruff, import directions and circles, mypy on the package
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

rooms: $(STAMP) ## count the rooms of the package, its floors and the imports between them
	@$(BIN)/python .ci/rooms.py

audit: $(UV) ## look up every locked package for known vulnerabilities (error 1: some; error 3: could not ask)
	@$(PYTHON) .ci/audit.py $(UV) .tools/cache requirements-cpu.lock requirements-gpu.lock

lock: $(UV) ## renew both lock files, one extra at a time
	for extra in cpu gpu; do $(UV) pip compile --universal --python-version 3.11 --extra $$extra --extra dev pyproject.toml \
	  -o requirements-$$extra.lock --upgrade --generate-hashes --no-emit-index-url --custom-compile-command "make lock" -q; done

clean: ## remove the environment and caches; data and runs stay
	rm -rf .venv .tools .mypy_cache .ruff_cache .pytest_cache *.egg-info

$(UV):
	@echo "setup 1/3: the installer (uv) into .tools"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $$($(PYTHON) --version) given, Python 3.11 or newer is needed; set PYTHON=python3.12, say" >&2; exit 2; }
	@$(PYTHON) -m pip install -q --disable-pip-version-check --root-user-action ignore --upgrade --target .tools uv

$(STAMP): pyproject.toml $(LOCK) | $(UV)
	@echo "setup 2/3: Python packages of $(LOCK) into .venv (about 6 GB, one to five minutes)"
	@$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	@$(UV) pip sync --python $(BIN)/python --require-hashes --compile-bytecode $(LOCK)
	@echo "setup 3/3: this project"
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@rm -f .venv/installed-*; touch $@
