# Every target does everything itself on a fresh machine with Python 3.11 or newer: make the environment, install, run.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check format ui clean bench

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]'
	touch $(STAMP)

demo: $(STAMP)  ## the whole loop on the simulated market: a few minutes
	$(BIN)/mm demo

test: $(STAMP)  ## the tests
	$(BIN)/python -m pytest -n auto --dist loadgroup

check: $(STAMP)  ## what CI runs: format, lint, types, import layers, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/dagster definitions validate
	$(MAKE) test

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

ui: $(STAMP)  ## Dagster on http://localhost:3000, MLflow on http://localhost:5000
	$(BIN)/python -m mm_platform.workflow.ui

CAPTURES ?= $(wildcard ../shared/data/binance_ws/usdm/*.gz)

bench: $(STAMP)  ## speed and memory as JSON; make bench CAPTURES="..." for captures of your own
	$(if $(CAPTURES),$(BIN)/python benchmarks/raw_to_tape.py $(CAPTURES),@echo 'no captures: raw_to_tape skipped' >&2)
	$(BIN)/python benchmarks/raw_to_tape.py --day-rows 20000000
	$(BIN)/python benchmarks/demo_time.py

clean:
	rm -rf $(VENV) .mm .dagster
