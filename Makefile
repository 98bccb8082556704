# make demo, make test: each sets up what it needs on a machine with Python (3.10 or newer) and make.
PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo-output
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
LOWEST := $(VENV)/lowest
LOWEST_PYTHON ?= 3.10

# A worker for each core; a core each, which tests/conftest.py sees to. Who has finished takes over from who has not.
PYTEST := $(BIN)/pytest -q -n logical --maxprocesses 8 --dist worksteal

# What PyTorch, oneDNN, MKL, NumPy and OpenCV take for the newest instructions there are. ONNX Runtime asks the CPU itself.
SSE4 := ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE OPENBLAS_CORETYPE=Nehalem \
    NPY_DISABLE_CPU_FEATURES="X86_V3 X86_V4 AVX512_ICL" OPENCV_CPU_DISABLE=AVX,AVX2,AVX512-SKX
AVX2 := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 OPENBLAS_CORETYPE=Haswell \
    NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL" OPENCV_CPU_DISABLE=AVX512-SKX
AVX512 := ATEN_CPU_CAPABILITY=avx512 ONEDNN_MAX_CPU_ISA=AVX512_CORE OPENBLAS_CORETYPE=SkylakeX

.PHONY: demo test test-cpus test-lowest test-triton fuzz gpu lint format clean

demo: $(VENV)/.export
	$(BIN)/glnet-export demo -o $(DEMO)/bundle --no-mixed
	$(BIN)/glnet-train eval $(DEMO)/bundle --crops 32 --pictures $(DEMO)/held-out.jpg
	$(BIN)/glnet-infer examples/person.jpg -b $(DEMO)/bundle -o $(DEMO)
	$(BIN)/glnet-infer examples/walkers.mp4 -b $(DEMO)/bundle -o $(DEMO) -f overlay -f npz -f html
	@echo "Look at $(DEMO)/held-out.jpg: rendered crops that the network has never seen, and the meshes recovered from them,"
	@echo "the ten best, median and worst. And at $(DEMO)/person.overlay.jpg: a real photograph, shown as it comes out. The"
	@echo "network was trained for ten hours on two CPU cores, on rendered crops alone; it has never seen a photograph."
	@echo "32 crops scatter by some percent: models/demo/MODEL_CARD.md has the figures on 1,024."
	@echo "$(DEMO)/person.glb opens in any 3D viewer. $(DEMO)/walkers.html plays a video and its meshes in any browser."

test: lint
	$(PYTEST)
	$(BIN)/glnet-train smoke

# Bounds must hold on every x86-64 CPU: older ones, as far as this one can be told to behave like them, and more threads.
test-cpus: $(VENV)/.dev
	$(SSE4) $(PYTEST) $(TESTS)
	$(AVX2) OMP_NUM_THREADS=2 MKL_NUM_THREADS=2 $(PYTEST) $(TESTS)
	$(AVX512) $(PYTEST) $(TESTS)
	OMP_NUM_THREADS=2 MKL_NUM_THREADS=2 $(PYTEST) $(TESTS)

# The runtime with the lowest versions that pyproject.toml allows, on a bundle that today's export made. uv finds or fetches
# that Python.
test-lowest: $(VENV)/.dev $(LOWEST)/.installed
	$(BIN)/pytest -q --basetemp=$(LOWEST)/pytest tests/runtime/test_bundle.py::test_a_good_bundle_opens
	GLNET_SMALL_BUNDLE=$(LOWEST)/pytest/made-once/small $(PYTEST:$(BIN)%=$(LOWEST)/bin%) tests/runtime

# A real Triton server, in an environment of its own; TRITON_PYTHON is the system's, with its shared library.
TRITON_PYTHON ?= /usr/bin/python3.11
test-triton: $(VENV)/.dev $(VENV)/triton/ready
	GLNET_TRITON=$(VENV)/triton $(BIN)/pytest -q tests/serving

$(VENV)/triton/ready: tests/serving/make_triton.sh | $(BIN)/python
	PYTHON=$(TRITON_PYTHON) sh tests/serving/make_triton.sh $(VENV)/triton

# Readers of files, on files that were changed at random. Seed 0; every fault is named with the number of its case.
CASES ?= 10000
JOBS ?= 1
fuzz: $(VENV)/.dev
	$(BIN)/pytest -q --basetemp=$(VENV)/fuzz tests/runtime/test_bundle.py::test_a_good_bundle_opens
	GLNET_SMALL_BUNDLE=$(VENV)/fuzz/made-once/small $(BIN)/python tests/fuzz/run.py --cases $(CASES) --jobs $(JOBS) $(READERS)

# Everything that a GPU has to show, in at most eight minutes. Nothing is installed: PYTHON needs PyTorch, cuda-core, onnx,
# OpenCV, typer, rich and pytest.
GPU_RESULTS ?= gpu-results
gpu:
	PYTHONPATH=.:models:export:benchmarks $(PYTHON) -m glnet_bench.gpu_day $(GPU_RESULTS)

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
	$(PIP_INSTALL) -e '.[export,video]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -e '.[dev]'
	@touch $@

# uv resolves to lowest versions, which pip cannot. The tests' own packages are as new as these allow.
$(LOWEST)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv venv --quiet --clear --python $(LOWEST_PYTHON) $(LOWEST)
	$(BIN)/uv pip install --quiet --python $(LOWEST) --resolution lowest-direct -r pyproject.toml --extra cpu --extra video --extra triton --extra openvino
	$(BIN)/uv pip freeze --quiet --python $(LOWEST) > $(LOWEST)/versions.txt
	$(BIN)/uv pip install --quiet --python $(LOWEST) -c $(LOWEST)/versions.txt pytest pytest-xdist filelock scipy trimesh onnx
	$(BIN)/uv pip install --quiet --python $(LOWEST) --no-deps -e .
	@touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
