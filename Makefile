# make demo, make test: each sets up what it needs on a machine with Python (3.10 or newer) and make.
PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo-output
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
LOWEST := $(VENV)/lowest
LOWEST_PYTHON ?= 3.10

.PHONY: demo test test-lowest lint format clean

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

# The runtime with the lowest versions that pyproject.toml allows, on a bundle that today's export made. uv finds or fetches
# that Python.
test-lowest: $(VENV)/.dev $(LOWEST)/.installed
	$(BIN)/pytest -q --basetemp=$(LOWEST)/pytest tests/runtime/test_bundle.py::test_a_good_bundle_opens
	GLNET_SMALL_BUNDLE=$(LOWEST)/pytest/made-once/small $(LOWEST)/bin/pytest -q tests/runtime

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

# uv resolves to lowest versions, which pip cannot. The tests' own packages are as new as these allow.
$(LOWEST)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv venv --quiet --clear --python $(LOWEST_PYTHON) $(LOWEST)
	$(BIN)/uv pip install --quiet --python $(LOWEST) --resolution lowest-direct -r pyproject.toml --extra cpu --extra video
	$(BIN)/uv pip freeze --quiet --python $(LOWEST) > $(LOWEST)/versions.txt
	$(BIN)/uv pip install --quiet --python $(LOWEST) -c $(LOWEST)/versions.txt pytest pytest-xdist filelock scipy trimesh onnx
	$(BIN)/uv pip install --quiet --python $(LOWEST) --no-deps -e .
	@touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
