# Every target installs the package in .venv if necessary. This needs Python >= 3.10 and git.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

# Variables of `make train`, for example `make train ENV=AntDir-v0 STEPS=200000 SEED=1 RANKS=1 ARGS="--save-freq 50000"`
ALGO ?= trmrl
ENV ?= HalfCheetahVel-v0
STEPS ?= -1
SEED ?= 0
ARGS ?=
# Number of training processes, one for each physical core at most. Must divide n_envs and batch_size
RANKS ?= 1
# Agent of `make demo`, a file in docs/demo
AGENT ?= HalfCheetahVel-v0
TORCHRUN = $(if $(filter-out 1,$(RANKS)),-m torch.distributed.run --standalone --nproc-per-node=$(RANKS))

export PYTHONUNBUFFERED = 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help install train demo test test-slow lint type format doc bench wheel-test clean

help:
	@echo "make train [ENV=$(ENV) STEPS=... SEED=0 ALGO=trmrl RANKS=1 ARGS=...]"
	@echo "                 train an agent with RANKS parallel processes, and compare it before and after"
	@echo "make demo [AGENT=$(AGENT)]"
	@echo "                 show how a trained agent in docs/demo adapts: a table and pictures in the folder demo"
	@echo "make install     install the package with all extras in $(VENV); the other targets do this too"
	@echo "make test        run the tests; make test-slow runs those that train for minutes"
	@echo "make lint        check style and formatting; make format fixes them"
	@echo "make type        check types"
	@echo "make doc         build the documentation in the folder site"
	@echo "make bench       run the benchmarks (about an hour)"
	@echo "make wheel-test  build wheel and sdist, and test the wheel in a new environment outside the checkout"
	@echo "make clean       remove $(VENV) and the build results: build, dist, site"

install: $(STAMP)

# The stamp is written last, so that an interrupted installation is repeated and a complete one is not. pip is upgraded first,
# because the pip of Python 3.10 (23.0) cannot resolve the versions; a newer one does so within a minute.
$(STAMP): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python >= 3.10 is needed: make PYTHON=python3.x"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all]"
	@touch $@
	@echo "Installed. Activate the environment with: . $(BIN)/activate"

train: $(STAMP)
	$(BIN)/python $(TORCHRUN) -m sb3_trmrl train --algo $(ALGO) --env $(ENV) --n-timesteps $(STEPS) --seed $(SEED) --progress --report $(ARGS)

demo: $(STAMP)
	$(BIN)/python -m sb3_trmrl analyze online docs/demo/$(AGENT).safetensors --output demo

# One process per core with one thread each. Prints the slowest tests and the lines that are not covered, and fails if the
# coverage is below the limit in pyproject.toml.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --cov --durations 25

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

# Takes about an hour on two cores without other load. Each script can also be run alone.
BENCHMARKS := learn update collect acting batched metaworld_steps replay storage stock ranks tables
bench: $(STAMP)
	for name in $(BENCHMARKS); do $(BIN)/python benchmarks/$$name.py || exit 1; done

# Takes a few minutes, mostly for the installation, and leaves no files behind
wheel-test: $(STAMP)
	$(BIN)/python scripts/wheel_test.py

clean:
	rm -rf $(VENV) build dist site .coverage* *.egg-info
