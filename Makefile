# `make demo`, `make test` and `make bench` set themselves up the first time; later calls go straight to work.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH_VENV := .venv-bench
BENCH_READY := $(BENCH_VENV)/.ready
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
	>/dev/null 2>&1 && { echo $$p; break; }; done)

.PHONY: demo docs test suite test-all coverage lint ruff codespell mypy import-contracts setup bench fuzz faults \
	mutants release-check clean

# a process that has no tests left takes half of another's: families of tests take unequal times
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal

demo: $(READY)
	$(BIN)/fullrank demo

test: lint suite

# the tests of `make test` without lint
suite: $(READY)
	$(PYTEST) -m "not slow or acceptance"

# the site, into site/: every link in it is followed, those to elsewhere are looked at only
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 OMP_NUM_THREADS=1 $(BIN)/mkdocs build --strict --quiet
	$(BIN)/python docs/generator/links.py site

# with whole labs, compilers, clusters and machines that are killed: twice as long
test-all: $(READY) lint
	$(PYTEST)

# a fifth slower than all tests without it
coverage: $(READY)
	$(PYTEST) --cov --cov-report=term

lint: ruff codespell mypy import-contracts

ruff: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

codespell: $(READY)
	$(BIN)/codespell

mypy: $(READY)
	$(BIN)/mypy

import-contracts: $(READY)
	$(BIN)/lint-imports

setup: $(READY)

# commands that are killed KILLS times, at their file operations and at random times, and end as if they had not been
KILLS ?= 300
faults: $(READY)
	FULLRANK_KILLS=$(KILLS) OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile tests/faults -k "kill or end"

# every reader on damaged files, FUZZ_MINUTES for each; what led to something new is kept in .fuzz/
FUZZ_MINUTES ?= 10
fuzz: $(READY)
	cd tests && PYTHONPATH=. OMP_NUM_THREADS=1 ../$(BIN)/python -m fuzz --minutes $(FUZZ_MINUTES) --corpus ../.fuzz $(FUZZ_OPTIONS)

# small changes of the source, MUTANTS of each target (or all), and whether a test fails; results are kept in .mutants/
MUTANTS ?= 60
mutants: $(READY)
	$(BIN)/python -c 'import cosmic_ray' 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[mutants]'
	cd tests && PYTHONPATH=. ../$(BIN)/python -m mutants --mutants $(MUTANTS) --folder ../.mutants $(MUTANTS_OPTIONS)

# the peers that speed is compared with bring many packages of their own, so they have an environment of their own
bench: $(BENCH_READY)
	$(BENCH_VENV)/bin/python benchmarks/bench.py $(BENCH_OPTIONS)

# the wheel and the source distribution are built, checked, installed where nothing else is, and the demo runs there
RELEASE := .venv-release
release-check:
	rm -rf dist $(RELEASE) $(RELEASE)-empty
	$(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/python -m pip install --quiet --disable-pip-version-check build twine
	$(RELEASE)/bin/python -m build --outdir dist .
	$(RELEASE)/bin/twine check --strict dist/*
	$(PYTHON) -m venv $(RELEASE)-empty
	$(RELEASE)-empty/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "$$(ls dist/*.whl)[all]"
	cd dist && ../$(RELEASE)-empty/bin/fullrank --version && ../$(RELEASE)-empty/bin/fullrank demo --epochs 2

$(READY): EXTRA := dev
$(BENCH_READY): EXTRA := bench
$(READY) $(BENCH_READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "fullrank needs Python 3.11 or newer with venv (on Debian: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRA)]'
	@touch $@

clean:
	rm -rf $(VENV) $(BENCH_VENV) $(RELEASE) $(RELEASE)-empty dist site .mypy_cache .ruff_cache .pytest_cache \
		.hypothesis .coverage .fuzz .mutants
