# make demo    the whole way from pictures to a served model, in a few minutes on two cores
# make test    lint and the whole test suite
# make lint    ruff alone
# make clean   removes the virtual environment and what the demo wrote
# Each makes its own virtual environment (.venv) first; PYTHON chooses the interpreter (3.11 to 3.13).

PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo
BIN := $(VENV)/bin
PSANET := $(BIN)/psanet
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint clean
.DELETE_ON_ERROR:

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v < (3, 14) else "Python 3.11 to 3.13 is needed, this is %d.%d: make PYTHON=python3.12" % v[:2])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python pyproject.toml setup.py constraints.txt $(wildcard custom_ops/*)
	$(PIP_INSTALL) tensorflow
	$(PIP_INSTALL) --no-build-isolation --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(PIP_INSTALL) --no-build-isolation --editable '.[test]'
	touch $@

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile
	TF_USE_LEGACY_KERAS=1 $(BIN)/python -m pytest -n 2 --dist loadfile tests/ops tests/layers tests/models

clean:
	rm -rf $(VENV) $(DEMO)
