# Two commands for a fresh machine with Python 3.11 and make: `make run` and `make test`. Each sets up what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RUN := runs/gmm40

.PHONY: run check test lint types docs lock clean

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $(READY)

run: $(READY)  ## the main job: train on gmm40, draw, evaluate, report
	@if [ -e $(RUN)/config.json ]; then $(BIN)/allmodes run --resume $(RUN); else $(BIN)/allmodes run gmm40 --out $(RUN); fi

check: lint types  ## while working: lint, types, and the tests that train nothing
	$(BIN)/python -m pytest -m "not slow and not trains"

test: lint types  ## all but the longer studies; the first time compiles what later runs find in .cache
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/pyrefly check

docs: $(READY)  ## the site, in site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lock:  ## pin the versions again (needs uv)
	uv pip compile pyproject.toml --extra dev --extra docs --python-version 3.11 --no-emit-index-url --no-header -o requirements.lock

clean:
	rm -rf $(VENV) .cache build dist site *.egg-info
