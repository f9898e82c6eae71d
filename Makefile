# make demo    the whole way from images to a served model, in a few minutes on two cores
# make test    lint and the tests, but for those of the next three lines and of test-matrix:
# make test-extended  the C and C++ sources, packaging, whole chains of commands on other images and backbones, and another
#              client of model servers, which gets a virtual environment of its own (120 MB)
# make test-legacy  ops, layers and models under legacy Keras
# make test-garden  what is for TensorFlow's Model Garden, in a virtual environment of its own (3 GB; Python 3.11 or 3.12)
# make lint    ruff alone
# make test-matrix  the tests that depend on TensorFlow, beside each version that the package is for (LANES="2.15 2.21"
#              runs some); every version has a virtual environment of its own in .lanes
# make clean   removes the virtual environments and what the demo wrote
# Each makes its own virtual environment (.venv) first; PYTHON chooses the interpreter (3.11 to 3.13).

PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo
BIN := $(VENV)/bin
PSANET := $(BIN)/psanet
PYTEST := -n 2 --dist loadfile --no-loadscope-reorder
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-extended test-legacy test-garden test-matrix lint clean
.DELETE_ON_ERROR:

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v < (3, 14) else "Python 3.11 to 3.13 is needed, this is %d.%d: make PYTHON=python3.12" % v[:2])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python pyproject.toml setup.py constraints.txt $(wildcard custom_ops/*)
	$(PIP_INSTALL) --editable '.[serving]'
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(PIP_INSTALL) --editable '.[test]'
	touch $@

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test: lint
	$(BIN)/python -m pytest $(PYTEST) -m "not extended"

.lanes/ovmsclient/installed: constraints/ovmsclient.txt
	$(PYTHON) -m venv .lanes/ovmsclient
	.lanes/ovmsclient/bin/python -m pip install --quiet --disable-pip-version-check \
	    --constraint constraints/ovmsclient.txt ovmsclient
	touch $@

test-extended: $(VENV)/installed-test .lanes/ovmsclient/installed
	$(BIN)/python -m pytest $(PYTEST) -m extended

test-legacy: $(VENV)/installed-test
	TF_USE_LEGACY_KERAS=1 $(BIN)/python -m pytest $(PYTEST) tests/ops tests/layers tests/models

.lanes/garden/installed: pyproject.toml setup.py constraints/garden.txt
	$(PYTHON) -m venv .lanes/garden
	.lanes/garden/bin/python -m pip install --quiet --disable-pip-version-check --no-compile \
	    --constraint constraints/garden.txt --editable '.[garden]' pytest
	touch $@

test-garden: .lanes/garden/installed
	TF_USE_LEGACY_KERAS=1 .lanes/garden/bin/python -m pytest tests/garden

test-matrix: $(VENV)/installed-test
	$(BIN)/python tests/version_matrix.py $(LANES)

# Every step is a command that a user would type; each can be repeated and goes on where it was interrupted.
demo: $(VENV)/installed
	test -d $(DEMO)/scenes || $(PSANET) data scenes $(DEMO)/scenes
	$(PSANET) train --config configs/scenes/fcn.yaml --run-dir $(DEMO)/fcn --set data.root=$(DEMO)/scenes
	$(PSANET) train --config configs/scenes/psanet.yaml --run-dir $(DEMO)/psanet --set data.root=$(DEMO)/scenes
	$(PSANET) evaluate --weights $(DEMO)/fcn
	$(PSANET) evaluate --weights $(DEMO)/psanet
	$(PSANET) predict $(DEMO)/scenes/images/validation/scene_validation_00000[0-3].jpg \
	    --weights $(DEMO)/psanet --out $(DEMO)/predictions
	$(PSANET) compare $(DEMO)/fcn $(DEMO)/psanet --name FCN --name PSANet --out $(DEMO)/comparison
	$(PSANET) export --weights $(DEMO)/psanet --out $(DEMO)/models/psanet
	@echo
	@echo 'Done. Look at:'
	@echo '  $(DEMO)/comparison/comparison.html       input, truth, FCN and PSANet side by side, with scores'
	@echo '  $(DEMO)/psanet/evaluation/report.html    scores per class, worst images, attention maps to hover over'
	@echo '  $(DEMO)/predictions/                     labelled images'
	@echo '  $(DEMO)/models/psanet/1/                 SavedModel for TensorFlow Serving'
	@echo 'Next: $(PSANET) predict YOUR.jpg --weights $(DEMO)/psanet, your own data in configs/ade20k/psanet50.yaml'
	@echo '      (psanet train --dry-run --config ... first), or $(PSANET) serve $(DEMO)/models/psanet.'

clean:
	rm -rf $(VENV) $(DEMO) .lanes
