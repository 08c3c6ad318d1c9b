# `make demo` and `make test` install what they need into .venv and then do their job.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# Threads of one process's BLAS would wait for another's, spinning.
SIDE_BY_SIDE := OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest \
	--numprocesses auto --maxprocesses 4 --dist worksteal

.PHONY: demo test quick lint bench card clean

demo: $(VENV)/core
	$(BIN)/paretogrid run demo

# What compares times runs alone, after the rest.
test: $(VENV)/test
	$(SIDE_BY_SIDE) -m "not clock"
	$(BIN)/python -m pytest -m clock

# For daily work: what needs no clock and no worker.
quick: $(VENV)/test
	$(SIDE_BY_SIDE) -m "not clock and not workers and not slow"

lint: $(VENV)/test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(VENV)/test
	$(BIN)/python -m pytest tests/benchmarks --benchmark-enable --benchmark-only -rP

# On a machine with a CUDA card, with the torch that is there: nine minutes, then card.tar.xz.
# Where no index can be reached, WHEELS names a folder with the wheels that are missing.
card:
	$(PYTHON) -m venv --system-site-packages $(VENV)-card
	$(VENV)-card/bin/python -m pip install --quiet $(if $(WHEELS),--no-index --find-links $(WHEELS)) --editable '.[test]'
	$(VENV)-card/bin/python tests/card.py $(CARD)

$(VENV)/core: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/test: $(VENV)/core
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
