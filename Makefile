# What a developer or CI does here is one of these commands; `make` alone lists them.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo up test faults lint types docs migration bench lock clean FORCE

# The tests start fleetbus some hundred times: without bytecode each would compile it again.
unexport PYTHONDONTWRITEBYTECODE

SUPPORTED := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))

# The first that is there and new enough; `make setup PYTHON=…` chooses another.
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	$$python -c '$(SUPPORTED)' >/dev/null 2>&1 && { echo $$python; break; }; done)

CHECK_PYTHON = $(or $(PYTHON),false) -c '$(SUPPORTED)' 2>/dev/null || { \
	echo "fleetbus needs Python 3.11 or newer with venv; $(or $(PYTHON),what is on PATH) is not." >&2; \
	echo "Name one that is: make setup PYTHON=python3.12 (Debian has venv in python3-venv)." >&2; \
	exit 1; }

PIP := .venv/bin/python -m pip --disable-pip-version-check --no-input
# Only wheels: building a source distribution would fetch build requirements that nothing locks.
INSTALL_LOCKED := $(PIP) install --quiet --only-binary=:all: --require-hashes

# An environment whose interpreter is gone, or that was moved here from elsewhere (its scripts
# name their interpreter by absolute path), is made anew although its stamps look current.
USABLE := $(shell .venv/bin/python -c '' 2>/dev/null \
	&& grep -qsF '$(CURDIR)/.venv' .venv/pyvenv.cfg && echo yes)
ANEW := $(if $(USABLE),,FORCE)

help:  ## List these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s%s\n", $$1, $$2 }' Makefile

setup: .venv/.project  ## Make .venv: the locked requirements and the command .venv/bin/fleetbus

# Stamps are written last and `--clear` removes them first, so half an environment has none.
.venv/.requirements: requirements/build.txt requirements/dev.txt $(ANEW)
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv --clear .venv
	$(INSTALL_LOCKED) -r requirements/build.txt -r requirements/dev.txt
	@touch $@

# An editable install maps the packages there are; a new one at the top means doing it again.
.venv/.project: .venv/.requirements pyproject.toml $(wildcard */__init__.py)
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup  ## Run a plan from start to end on embedded servers (PLAN=path.jsonl: your own)
	.venv/bin/fleetbus demo $(if $(PLAN),'$(PLAN)')

up: setup  ## Run everything on this machine: PostgreSQL, NATS, handlers
	.venv/bin/fleetbus up $(ARGS)

test: setup  ## Run the tests (ARGS='-k relay -x': pytest's own options)
	.venv/bin/pytest --numprocesses auto --dist worksteal $(ARGS)

FAULTS ?= 200
SEED ?= 1
ROUNDS ?= 10

faults: setup  ## Cause faults while clients work, and judge the results (FAULTS=, SEED=, ROUNDS=, ARGS=)
	.venv/bin/python -m tests.faults --faults $(FAULTS) --seed $(SEED) --rounds $(ROUNDS) $(ARGS)

lint: setup  ## Check style, format and the direction of imports
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports

types: setup  ## Check types
	.venv/bin/mypy

docs: setup  ## Bring the generated reference pages up to date
	.venv/bin/python docs/make.py

migration: setup  ## Draft the next migration from the declared tables (NAME=what_it_does)
	@test -n '$(NAME)' || { echo 'Say what it does: make migration NAME=what_it_does' >&2; exit 1; }
	.venv/bin/python -m migrations.draft '$(NAME)'
	.venv/bin/ruff check --quiet --select I,F401 --fix migrations/versions
	.venv/bin/ruff format --quiet migrations/versions

bench: .venv/.bench  ## Compare with code written by hand (ARGS: their own options)
	.venv/bin/python -m benchmarks $(ARGS)

.venv/.bench: requirements/bench.txt .venv/.project
	$(INSTALL_LOCKED) -r requirements/bench.txt
	@touch $@

# One resolution for every platform and every Python from 3.11 on, told apart by markers. Each
# file constrains the next, so that what is tested is what is deployed.
COMPILE = build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links --annotation-style line \
	--custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade)
BUILD_REQUIRES := import tomllib; \
	print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")

lock:  ## Bring requirements/ in line with pyproject.toml (UPGRADE=1: newest versions of all)
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv --clear build/lock
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.8
	build/lock/bin/python -c '$(BUILD_REQUIRES)' > build/lock/build.in
	$(COMPILE) --no-annotate build/lock/build.in --output-file requirements/build.txt
	$(COMPILE) pyproject.toml --constraint requirements/build.txt \
		--output-file requirements/run.txt
	$(COMPILE) pyproject.toml --extra embedded --extra dev \
		--constraint requirements/build.txt --constraint requirements/run.txt \
		--output-file requirements/dev.txt
	$(COMPILE) pyproject.toml --extra embedded --extra bench \
		--constraint requirements/build.txt --constraint requirements/dev.txt \
		--output-file requirements/bench.txt
	rm -rf build/lock

clean:  ## Remove the files that the commands above made; the data of `make up` stays
	rm -rf .venv build dist *.egg-info tests/node/node_modules
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
