# `make demo`, `make test` and `make bench` set themselves up the first time; later calls go straight to work.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH_VENV := .venv-bench
BENCH_READY := $(BENCH_VENV)/.ready
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
	>/dev/null 2>&1 && { echo $$p; break; }; done)

.PHONY: demo test test-all coverage lint setup bench clean

demo: $(READY)
	$(BIN)/fullrank demo

test: $(READY) lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto -m "not slow or acceptance"

# with whole labs, compilers, clusters and machines that are killed: twice as long
test-all: $(READY) lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto

# a fifth slower than all tests without it
coverage: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --cov --cov-report=term

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: $(READY)

# the peers that speed is compared with bring many packages of their own, so they have an environment of their own
bench: $(BENCH_READY)
	$(BENCH_VENV)/bin/python benchmarks/bench.py $(BENCH_OPTIONS)

$(READY): EXTRA := dev
$(BENCH_READY): EXTRA := bench
$(READY) $(BENCH_READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "fullrank needs Python 3.11 or newer with venv (on Debian: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRA)]'
	@touch $@

clean:
	rm -rf $(VENV) $(BENCH_VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
