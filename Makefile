# `make run` and `make test` are all you need; both run the setup first. See README.md.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LIGHT := .venv-light
REQUIREMENTS := $(shell if nvidia-smi >/dev/null 2>&1; then echo requirements.txt; else echo requirements-cpu.txt; fi)

# Tests mostly wait for leases, deadlines and models. Each process starts its own shared stacks.
PYTEST_PROCESSES ?= 2
FAST_TESTS := tests/unit tests/stack/test_log.py tests/stack/test_protocol.py tests/stack/test_wire.py

export PATH := $(CURDIR)/$(BIN):$(PATH)
# Keep compiled modules in our own environment, whatever the shell says: without them each start takes 10 s longer.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test test-fast bench hot chaos deploy-drill lint audit lock screenshots setup setup-dev model wheel clean help

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

run: setup  ## Set up if needed, and start everything on http://127.0.0.1:8000 (PORT, MODEL, ENGINE_ARGS: docs/settings.md)
	@exec $(BIN)/everstream run

test-fast: $(LIGHT)/.installed  ## Run the most useful tests in about a minute, without vLLM, in the linters' environment
	$(LIGHT)/bin/python -m pytest --numprocesses $(PYTEST_PROCESSES) $(FAST_TESTS) $(PYTEST_ARGS)

test: setup-dev model lint  ## Set up if needed, and run all tests
	$(BIN)/python -m pytest --numprocesses $(PYTEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

bench: setup-dev model  ## Measure the speed and memory figures in docs/performance.md (about an hour)
	$(BIN)/python -m bench.front_ends
	$(BIN)/python -m bench.scaling
	$(BIN)/python -m bench.whole
	$(BIN)/python -m bench.hold
	$(BIN)/python -m bench.kill
	$(BIN)/python -m bench.takeover
	$(BIN)/python -m bench.fan_out
	$(BIN)/python -m bench.topics
	$(BIN)/python -m bench.overhead
	$(BIN)/python -m bench.drain
	$(BIN)/python -m bench.slow_bodies
	$(BIN)/python -m bench.keep_alive
	$(BIN)/python -m bench.log_shapes
	$(BIN)/python -m bench.profile
	$(BIN)/python -m bench.start
	$(BIN)/python -m bench.oversize
	$(BIN)/python -m bench.abuse
	$(BIN)/python -m bench.plain_model
	$(BIN)/python -m bench.markdown
	$(BIN)/python -m bench.goals

hot: setup-dev  ## Time the functions that run for every token, and compare with the last run on this machine
	$(BIN)/python -m pytest bench/hot_paths.py --benchmark-enable --benchmark-autosave \
		$(if $(wildcard .benchmarks/*/*),--benchmark-compare)

chaos: setup-dev model  ## Kill every process under live streams, and count what was lost (CHAOS_SEED, CHAOS_SHORT=1)
	$(BIN)/python -m chaos

deploy-drill: setup-dev  ## Replace web, engine and Valkey 20 times under 500 open answers, and count those that were cut
	$(BIN)/python -m chaos.deploy_drill

screenshots: setup-dev  ## Write pictures of the page, and films of it while parts are killed, to test-artifacts/screenshots
	$(BIN)/python -m tools.screenshots

# Without files that are full of hashes, and without the detectors that take every hash for a secret. The lines are
# examples of addresses.
NO_SECRETS := hashes.*\.txt|static/vendor/.*|bench/results/.*|.*package-lock\.json|.*\.(png|webp|woff2|svg)
FIND_SECRETS := detect-secrets-hook --disable-plugin KeywordDetector --disable-plugin HexHighEntropyString \
		--disable-plugin Base64HighEntropyString --exclude-lines '://(user:p|somebody:wrong)'

lint: $(LIGHT)/.installed  ## Run ruff, mypy, import-linter and a search for secrets, in their own small environment
	$(LIGHT)/bin/ruff check .
	$(LIGHT)/bin/ruff format --check .
	$(LIGHT)/bin/mypy
	$(LIGHT)/bin/lint-imports --no-logo
	git ls-files | grep -vxE '$(NO_SECRETS)' | xargs -P 2 -n 150 $(LIGHT)/bin/$(FIND_SECRETS)

audit: $(LIGHT)/.installed  ## Ask PyPI's database for known vulnerabilities of everything that is pinned; needs the internet
	$(LIGHT)/bin/python -m everstream.uv tool run pip-audit==2.10.1 --disable-pip --require-hashes --requirement hashes.txt

model: setup  ## Build the demo model if it is missing
	@$(BIN)/python -m everstream.llm.demo_model

wheel: $(LIGHT)/.installed  ## Build the wheel into dist/
	@$(LIGHT)/bin/python -m everstream.uv build --wheel --quiet --out-dir dist

lock: setup  ## Lock versions and hashes for the requirements files (UPGRADE=--upgrade for newer versions)
	@tools/lock.sh

setup: $(VENV)/.installed  ## Install the pinned packages into .venv
setup-dev: setup $(VENV)/.installed-dev  ## The same, plus what the tests and benchmarks need

clean:  ## Remove the environments; keep the demo model and the log in the user's directories
	rm -rf $(VENV) $(LIGHT)

# The stamps are written last, so an interrupted setup runs again.
%/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Everstream needs Python 3.11 or newer; set PYTHON")'
	@rm -rf $*
	@$(PYTHON) -m venv $* || { echo "everstream | on Debian: apt-get install python3-venv"; exit 1; }
	@touch $@

INSTALLING := requirements-web.txt requirements-python-client.txt requirements-uv.txt constraints.txt hashes.txt \
		pyproject.toml hatch_build.py tools/install.py

$(VENV)/.installed: $(VENV)/.made requirements.txt requirements-cpu.txt requirements-cpu.excludes requirements-engine.txt \
		$(INSTALLING)
	@$(BIN)/python tools/install.py --title "vLLM and the rest of $(REQUIREMENTS)" $(REQUIREMENTS)
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt requirements-light.txt tools/system-packages.sh
	@$(BIN)/python tools/install.py --title "what the tests need" requirements-dev.txt
	@tools/system-packages.sh
	@touch $@

$(LIGHT)/.installed: $(LIGHT)/.made requirements-light.txt $(INSTALLING)
	@$(LIGHT)/bin/python tools/install.py --title "what the linters and the fast tests need" requirements-light.txt
	@touch $@
