# `make train` and `make test` do all set-up themselves: they need Python >= 3.10 and git, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

# The main job. `make train ENV=AntDir-v0 STEPS=200000 SEED=1 ARGS="--save-freq 50000"` for the rest.
ALGO ?= trmrl
ENV ?= HalfCheetahVel-v0
STEPS ?= -1
SEED ?= 0
ARGS ?=

export PYTHONUNBUFFERED = 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help install train demo test test-slow lint type format doc bench wheel-test clean

help:
	@echo "make train [ENV=$(ENV) STEPS=... SEED=0 ALGO=trmrl ARGS=...]  install, train, report before and after"
	@echo "make demo  how the trained agent in docs/demo adapts: a table and pictures, written to demo"
	@echo "make wheel-test  builds wheel and sdist, tries the wheel alone in a new environment outside the checkout"
	@echo "make test | test-slow | lint | type | format | doc | bench"
	@echo "make clean  removes $(VENV) and what was built: build, dist, site"

install: $(STAMP)

# Written last, so an interrupted installation is taken up again and a finished one is not repeated. The pip that comes with
# Python 3.10 (23.0) does not find the versions that go together; a newer one does within a minute.
$(STAMP): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python >= 3.10 is needed: make PYTHON=python3.x"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all]"
	@touch $@

train: $(STAMP)
	$(BIN)/python -m sb3_trmrl train --algo $(ALGO) --env $(ENV) --n-timesteps $(STEPS) --seed $(SEED) --progress --report $(ARGS)

demo: $(STAMP)
	$(BIN)/python -m sb3_trmrl analyze online docs/demo/HalfCheetahVel-v0.safetensors --output demo

# One process for each core, with one thread in it. Prints which lines the tests leave out, and fails below the share that
# pyproject.toml asks for.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --cov

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(STAMP)
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

doc: $(STAMP)
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs site
	@echo "The documentation is in site/index.html"

# About an hour on two cores, which should have nothing else to do; each script also runs alone.
BENCHMARKS := learn update collect storage stock time_to_return tables
bench: $(STAMP)
	for name in $(BENCHMARKS); do $(BIN)/python benchmarks/$$name.py || exit 1; done

# A few minutes, most of them installing; leaves nothing behind
wheel-test: $(STAMP)
	$(BIN)/python scripts/wheel_test.py

clean:
	rm -rf $(VENV) build dist site .coverage* *.egg-info
