# Two commands matter: `make quickstart` and `make test`. Each sets itself up on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help install install-test quickstart test test-slow lint bench soak clean

help:
	@echo "make quickstart   train a tiny language model with GRPO, from nothing, on this machine"
	@echo "make test         the tests (sets up $(VENV) first)"
	@echo "make test-slow    those that take long: kills, devices, every config run"
	@echo "make install      $(VENV) with rljax in it; PYTHON=python3.12 chooses the interpreter"
	@echo "make lint | bench | soak | clean"

$(VENV)/.core: setup.py
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 14), "rljax needs Python 3.11 to 3.13"'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.test: $(VENV)/.core
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@

install: $(VENV)/.core

install-test: $(VENV)/.test

quickstart: export JAX_PLATFORMS ?= cpu
quickstart: install
	$(BIN)/rljax-train --config configs/quickstart.py --workdir runs/quickstart

test: install-test
	$(BIN)/python -m pytest tests -m "not slow" -n 2 --dist loadscope --durations=10

test-slow: install-test
	$(BIN)/python -m pytest tests -m slow -n 2 --dist loadscope --durations=10

lint: install-test
	$(BIN)/ruff check .

bench: export JAX_PLATFORMS ?= cpu
bench: install
	$(BIN)/python -m rljax.bench

soak: install-test
	$(BIN)/python -m pytest tests/train/kill_test.py tests/multihost --kills=20
	$(BIN)/python -m tests.drills.kill --n 30

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache
