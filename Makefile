# `make run` and `make test` are all one needs; both do the set-up first. See README.md.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
REQUIREMENTS := $(shell if nvidia-smi >/dev/null 2>&1; then echo requirements.txt; else echo requirements-cpu.txt; fi)

# Tests mostly wait: for leases, deadlines, models. Each process starts the shared stacks for itself.
PYTEST_PROCESSES ?= 2

export PATH := $(CURDIR)/$(BIN):$(PATH)
# In our own environment compiled modules are kept, whatever the shell says: without them each start takes 10 s more.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test bench hot chaos lint lock setup setup-dev model clean help

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

run: setup  ## Set up if need be, and start everything on http://127.0.0.1:8000 (PORT, MODEL, ENGINE_ARGS: README.md)
	@exec $(BIN)/python -m everstream.launcher

test: setup-dev model lint  ## Set up if need be, and run all tests
	$(BIN)/python -m pytest --numprocesses $(PYTEST_PROCESSES) --dist loadfile $(PYTEST_ARGS)

bench: setup-dev model  ## Measure what README.md and docs/performance.md say of speed and memory (about an hour)
	$(BIN)/python -m bench.front_ends
	$(BIN)/python -m bench.hold
	$(BIN)/python -m bench.kill
	$(BIN)/python -m bench.fan_out
	$(BIN)/python -m bench.overhead
	$(BIN)/python -m bench.drain
	$(BIN)/python -m bench.slow_bodies
	$(BIN)/python -m bench.keep_alive
	$(BIN)/python -m bench.profile
	$(BIN)/python -m bench.start
	$(BIN)/python -m bench.oversize
	$(BIN)/python -m bench.goals

hot: setup-dev  ## Time the functions that run for every token, beside the last time on this machine
	$(BIN)/python -m pytest bench/hot_paths.py --benchmark-enable --benchmark-autosave \
		$(if $(wildcard .benchmarks/*/*),--benchmark-compare)

chaos: setup-dev model  ## Kill everything under streams, and count what was lost (CHAOS_SEED, CHAOS_SHORT=1)
	$(BIN)/python -m chaos

lint: setup-dev  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

model: setup
	@$(BIN)/python -m everstream.demo_model

lock: setup  ## Write down versions and hashes of what the requirements files name (UPGRADE=--upgrade: newer ones)
	@tools/lock.sh

setup: $(VENV)/.installed  ## Install what is pinned, into .venv
setup-dev: setup $(VENV)/.installed-dev

clean:  ## Remove .venv; the demo model and the log stay in the user's directories
	rm -rf $(VENV)

# The stamps come last, so a set-up that was killed half-way is done again.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Everstream needs Python 3.11 or newer; set PYTHON")'
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) || { echo "everstream | on Debian: apt-get install python3-venv"; exit 1; }
	@touch $@

$(VENV)/.installed: $(VENV)/.made requirements.txt requirements-cpu.txt requirements-cpu.excludes \
		requirements-engine.txt requirements-web.txt requirements-uv.txt constraints.txt hashes.txt pyproject.toml tools/install.py
	@$(BIN)/python tools/install.py --title "vLLM and what else $(REQUIREMENTS) names" $(REQUIREMENTS)
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt tests/system-packages.sh
	@$(BIN)/python tools/install.py --title "what the tests need" requirements-dev.txt
	@tests/system-packages.sh
	@touch $@
