"""The steps of PyTorch's and ONNX Runtime's rows, on a CPU that is called ``cuda``."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch._dynamo.testing import CompileCounter

from glnet_bench.machine.clocks import HostClock
from glnet_bench.measure import scene
from glnet_bench.runners.base import Options
from glnet_bench.runners.onnxruntime_runner import BoundSteps
from glnet_bench.runners.registry import open_runner
from glnet_bench.runners.staged import StagedCalls
from glnet_bench.runners.torch_runners import EagerSteps
from glnet_bench.settings import Frame
from glnet_infer import BackendError
from glnet_infer.bundle import Bundle


@pytest.fixture(scope="module")
def bundle(shared_bundle):
    return Bundle.open(shared_bundle)


@pytest.fixture(scope="module")
def expected(bundle):
    """Batches of different sizes, each with the product's outputs."""
    runner = open_runner("onnxruntime-cpu", bundle, Options(threads=1))
    batches = [scene.batch(count, bundle.manifest.crop.size) for count in (2, 1, 2)]
    yield [(batch, runner.backend.run(*batch)) for batch in batches]
    runner.close()


def right(steps, expected):
    calls = StagedCalls("cuda", steps, HostClock())
    for batch, outputs in expected:
        found = calls.run(*batch)
        assert list(found) == list(outputs)
        for name, values in outputs.items():
            np.testing.assert_allclose(found[name], values, atol=1e-3, rtol=1e-3, err_msg=name)
    calls.close()


class OnCpu:
    """A session whose GPU is the CPU."""

    def __init__(self, session):
        self._session = session

    def io_binding(self):
        binding = self._session.io_binding()
        bind_output = binding.bind_output
        binding.bind_output = lambda name, device, ordinal: bind_output(name, {"cuda": "cpu"}[device], ordinal)
        return binding

    def run_with_iobinding(self, binding):
        self._session.run_with_iobinding(binding)

    @staticmethod
    def ortvalue_from_numpy(array, device, ordinal):
        return onnxruntime.OrtValue.ortvalue_from_numpy(array, {"cuda": "cpu"}[device], ordinal)


def test_bound_steps_of_onnx_runtime(bundle, expected):
    session = OnCpu(onnxruntime.InferenceSession(str(bundle.graph), providers=["CPUExecutionProvider"]))
    right(BoundSteps(session, [output.name for output in bundle.manifest.outputs], OnCpu), expected)


def test_eager_steps_of_pytorch(monkeypatch, small_recovery, expected):
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)
    right(EagerSteps(small_recovery), expected)


@pytest.mark.parametrize("name", ["torch-mixed", "torch-cuda-graph", "onnxruntime-cuda"])
def test_rows_that_need_a_gpu_say_so(bundle, name, monkeypatch):
    if torch.cuda.is_available() or torch.ops.mkldnn._is_mkldnn_fp16_supported():
        pytest.skip("they run here")
    with pytest.raises(BackendError) as error:
        open_runner(name, bundle, Options())
    assert error.value.why and error.value.fix


def test_what_was_compiled_in_advance_is_what_products_call(bundle, monkeypatch):
    """Neither a product's call nor a timed one may find that its inputs are of another kind, and compile again."""
    compiles, compiled = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, **options: compiled(module, backend=compiles, **options))
    runner = open_runner("torch-compile", bundle, Options())
    opened = compiles.frame_count
    assert opened > 0
    runner.staged.run(*scene.batch(1, bundle.manifest.crop.size))
    picture = scene.Scene.make(Frame("small", 160, 120), 1)
    for backend in (runner.backend, runner.staged):
        runner.recoverer(bundle, backend)(picture.image, picture.boxes)
    assert compiles.frame_count == opened
    runner.close()
