# make demo, make test: each sets up what it needs on a machine with Python (3.10 or newer) and make.
PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo-output
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint format clean

demo: $(VENV)/.export
	$(BIN)/glnet-export models/demo/checkpoint.pth -o $(DEMO)/bundle
	$(BIN)/glnet-train eval $(DEMO)/bundle --crops 32 --pictures $(DEMO)/held-out.jpg
	$(BIN)/glnet-infer examples/person.jpg --boxes 639,30,955,736 --boxes 313,25,577,567 -b $(DEMO)/bundle -o $(DEMO)
	@echo "Look at $(DEMO)/held-out.jpg: rendered crops that the network has never seen, and the meshes recovered from them,"
	@echo "the ten best, median and worst. And at $(DEMO)/person.overlay.jpg: a real photograph, shown as it comes out. The"
	@echo "network was trained for ten hours on two CPU cores, on rendered crops alone; it has never seen a photograph."
	@echo "32 crops scatter by some percent: models/demo/MODEL_CARD.md has the figures on 1,024."
	@echo "$(DEMO)/person.glb opens in any 3D viewer."

test: lint
	$(BIN)/pytest -q
	$(BIN)/glnet-train smoke

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
	$(PIP_INSTALL) -e '.[export]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -e '.[dev]'
	@touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
