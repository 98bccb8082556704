# make demo, make test: each sets up what it needs on a machine with Python (3.10 or newer) and make.
PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo-output
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint format clean

demo: $(VENV)/.export
	$(BIN)/glnet-export --random-init w18-small -o $(DEMO)/bundle
	$(BIN)/glnet-infer examples/person.jpg --boxes 639,30,955,736 --boxes 313,25,577,567 -b $(DEMO)/bundle -o $(DEMO)
	@echo "Look at $(DEMO)/person.overlay.jpg; $(DEMO)/person.glb opens in any 3D viewer."
	@echo "The weights are random: a body near its rest pose stands in each box. A trained checkpoint poses it."

test: lint
	$(BIN)/pytest -q

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(DEMO)

$(VENV)/.export: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -e '.[cpu,export]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -e '.[dev]'
	@touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
