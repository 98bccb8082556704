"""Opening backends: what is asked for by name is used or refused, never replaced."""

import contextlib
import dataclasses
import sys
import types

import numpy as np
import onnxruntime
import pytest

import glnet_infer.devices
from glnet_infer import BackendError, MeshRecoverer
from glnet_infer.backends import backend_names, open_backend
from glnet_infer.bundle import Bundle
from glnet_infer.contract import GRAPH_INPUTS, GRAPH_OUTPUTS
from glnet_infer.devices import Gpu, physical_cores

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.fixture
def opened(shared_bundle):
    return Bundle.open(shared_bundle)


def _tensor(spec):
    """As ONNX Runtime tells of it where the graph leaves all sides open."""
    types_of = {"uint8": "tensor(uint8)", "float32": "tensor(float)", "int32": "tensor(int32)"}
    return types.SimpleNamespace(name=spec.name, type=types_of[spec.dtype], shape=[None] * len(spec.shape))


@pytest.fixture
def fake(monkeypatch):
    """Puts a make-believe ONNX Runtime in place: the providers it has, and those its sessions really get."""

    def install(available, got=(), failure=None):
        module = types.ModuleType("onnxruntime")
        module.__version__ = "9.8.7"
        module.sessions, module.preloaded = [], []
        module.preload_dlls = lambda: (module.preloaded.append(len(module.sessions)), print("Failed to load libcudnn.so.9"))
        module.get_available_providers = lambda: list(available)
        module.SessionOptions = lambda: types.SimpleNamespace(add_session_config_entry=lambda name, value: None)
        module.GraphOptimizationLevel = types.SimpleNamespace(ORT_ENABLE_EXTENDED="extended")

        class InferenceSession:
            def __init__(self, content, options, providers, enable_fallback):
                assert not enable_fallback  # it would print, and take the CPU in silence
                if failure is not None:
                    raise failure
                self.content, self.options = content, options
                self.asked = [entry if isinstance(entry, str) else entry[0] for entry in providers]
                self.provider_options = [{} if isinstance(entry, str) else entry[1] for entry in providers]
                module.sessions.append(self)

            def get_inputs(self):
                return [_tensor(spec) for spec in GRAPH_INPUTS]

            def get_outputs(self):
                return [_tensor(spec) for spec in GRAPH_OUTPUTS]

            def get_providers(self):
                return [provider for provider in self.asked if provider in (got or self.asked)] or list(got)

        module.InferenceSession = InferenceSession
        monkeypatch.setitem(sys.modules, "onnxruntime", module)
        return module

    return install


@pytest.fixture
def one_gpu(monkeypatch):
    monkeypatch.setattr(glnet_infer.devices, "gpus", lambda: [Gpu("A GPU", "8.9")])


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(glnet_infer.devices, "gpus", list)


@pytest.mark.parametrize("name", ["tensorflow", "onnxruntime", "onnxruntime-rocm", "cpu", "cuda", "", "AUTO"])
def test_unknown_backend_lists_the_known_ones(opened, name):
    with pytest.raises(BackendError, match="There is no backend") as error:
        open_backend(name, opened)
    assert repr(name) in str(error.value) and all(known in error.value.fix for known in backend_names())


@pytest.mark.parametrize("name", [name for name in backend_names() if name.startswith(("auto", "onnxruntime"))])
def test_missing_onnx_runtime_says_what_to_install(opened, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendError, match="not installed") as error:
        open_backend(name, opened)
    assert "pip install" in error.value.fix and "[cpu]" in error.value.fix and "gpu" in error.value.fix


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="this ONNX Runtime has CUDA")
def test_cuda_without_its_provider_is_refused_by_the_real_onnx_runtime(opened):
    with pytest.raises(BackendError, match="cannot run on cuda") as error:
        open_backend("onnxruntime-cuda", opened)
    assert onnxruntime.__version__ in error.value.why and CPU in error.value.why
    assert "pip install" in error.value.fix and "[gpu]" in error.value.fix


def test_cuda_without_its_provider_is_refused_though_there_is_a_gpu(opened, fake, one_gpu):
    module = fake([CPU])
    with pytest.raises(BackendError, match="cannot run on cuda") as error:
        open_backend("onnxruntime-cuda", opened)
    assert "9.8.7" in error.value.why and not module.sessions


def test_silent_fallback_to_the_cpu_is_refused(opened, fake, one_gpu):
    fake([CUDA, CPU], got=[CPU])
    with pytest.raises(BackendError, match="did not start on cuda") as error:
        open_backend("onnxruntime-cuda", opened)
    assert CPU in error.value.why and "glnet-doctor" in error.value.fix and "onnxruntime-cpu" in error.value.fix


def test_auto_takes_the_cpu_where_cuda_does_not_start_and_says_why(opened, fake, one_gpu, capsys):
    module = fake([CUDA, CPU], got=[CPU])
    with MeshRecoverer(opened.directory) as recoverer:
        assert recoverer.backend == "onnxruntime-cpu" and module.sessions[-1].asked == [CPU]
    assert "did not start on cuda" in recoverer.backend_reason and "libcudnn.so.9" in recoverer.backend_reason
    assert not capsys.readouterr().out  # where results go
    assert open_backend("auto", opened).name == "onnxruntime-cpu"


def test_cudas_libraries_are_loaded_before_a_session_on_the_gpu_alone(opened, fake):
    module = fake([CUDA, CPU])
    open_backend("onnxruntime-cpu", opened)
    assert not module.preloaded
    open_backend("onnxruntime-cuda", opened)
    assert module.preloaded == [1]  # when there was one session, the CPU's


def test_cuda_is_used_where_it_is_asked_for_and_starts(opened, fake):
    module = fake([CUDA, CPU])
    assert open_backend("onnxruntime-cuda", opened).name == "onnxruntime-cuda"
    assert module.sessions[0].asked == [CUDA] and module.sessions[0].content == opened.graph.read_bytes()


def test_cuda_computes_float32_as_float32(opened, fake):
    # TF32 keeps 10 bits of the mantissa: a millimetre in a metre, where parity promises hundredths.
    module = fake([CUDA, CPU])
    open_backend("onnxruntime-cuda", opened)
    assert module.sessions[0].provider_options == [{"use_tf32": "0"}]


def test_auto_takes_the_gpu_where_there_is_one(opened, fake, one_gpu):
    fake([CUDA, CPU])
    assert open_backend("auto", opened).name == "onnxruntime-cuda"


def test_auto_takes_the_cpu_where_there_is_no_gpu(opened, fake, no_gpu):
    module = fake([CUDA, CPU])
    assert open_backend("auto", opened).name == "onnxruntime-cpu"
    assert module.sessions[0].asked == [CPU]


def test_auto_takes_the_cpu_where_onnx_runtime_is_without_cuda(opened, fake, one_gpu):
    fake([CPU])
    assert open_backend("auto", opened).name == "onnxruntime-cpu"


def test_auto_without_gpu_says_cpu_in_repr_and_result(shared_bundle, no_gpu):
    with MeshRecoverer(shared_bundle) as recoverer:
        assert recoverer.backend == "onnxruntime-cpu" and "onnxruntime-cpu" in repr(recoverer)
        assert recoverer(np.zeros((40, 60, 3), np.uint8)).backend == "onnxruntime-cpu"


def test_threads_and_precision_reach_the_session(opened, fake):
    module = fake([CPU])
    open_backend("onnxruntime-cpu", opened)
    open_backend("onnxruntime-cpu", opened, threads=3)
    mixed = dataclasses.replace(opened.manifest, graphs=(dataclasses.replace(opened.manifest.graph, precision="mixed"),))
    open_backend("onnxruntime-cpu", dataclasses.replace(opened, manifest=mixed))
    plain, three, half = [vars(session.options) for session in module.sessions]
    assert plain["intra_op_num_threads"] == physical_cores() and three["intra_op_num_threads"] == 3
    # All optimisations crash some half-precision graphs on the CPU.
    assert "graph_optimization_level" not in plain and half["graph_optimization_level"] == "extended"


@pytest.mark.parametrize(
    "threads, megabytes, size", [(1, 166, 1), (2, 166, 2), (2, 19, 8), (1, 19, 4), (8, 166, 8), (64, 166, 16), (2, 0, 16)]
)
def test_few_threads_take_few_crops_of_a_large_network(opened, fake, monkeypatch, threads, megabytes, size):
    fake([CPU])
    graph = opened.manifest.graph
    file = dataclasses.replace(graph.file, bytes=megabytes * 10**6)
    manifest = dataclasses.replace(opened.manifest, graphs=(dataclasses.replace(graph, file=file),))
    large = dataclasses.replace(opened, manifest=manifest)
    assert open_backend("onnxruntime-cpu", large, threads=threads).batch_size == size
    monkeypatch.setattr("glnet_infer.backends.onnxruntime.cores", lambda: threads)
    assert open_backend("onnxruntime-cpu", large).batch_size == size


@pytest.mark.parametrize(
    "threads, crops, plan",
    [
        (1, 3, [[1], [1], [1]]),
        (2, 1, [[1]]),
        (2, 5, [[1, 1], [1, 1], [1]]),
        (8, 7, [[3], [3], [1]]),
        (8, 17, [[1] * 8, [1] * 8, [1]]),
        (17, 17, [[8], [8], [1]]),
    ],
)
def test_crops_of_a_large_network_are_run_side_by_side(opened, fake, threads, crops, plan):
    fake([CPU])
    graph = opened.manifest.graph
    file = dataclasses.replace(graph.file, bytes=166 * 10**6)
    large = dataclasses.replace(opened.manifest, graphs=(dataclasses.replace(graph, file=file),))
    shares = list(open_backend("onnxruntime-cpu", dataclasses.replace(opened, manifest=large), threads)._shares(crops))
    assert [[share.stop - share.start for share in each] for each in shares] == plan
    assert np.concatenate([np.arange(crops)[share] for each in shares for share in each]).tolist() == list(range(crops))


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_crops_side_by_side_give_what_they_give_alone(opened, count):
    """Kernels may add in another order: micrometres."""
    generator = np.random.default_rng(count)
    crops = generator.integers(0, 256, (count, 256, 256, 3), dtype=np.uint8)
    cameras = np.tile(np.array([[500, 500, 128, 128]], np.float32), (count, 1))
    with contextlib.closing(open_backend("onnxruntime-cpu", opened, threads=3)) as several:
        found = several.run(crops, cameras)
    session = onnxruntime.InferenceSession(str(opened.graph), providers=[CPU])
    for index in range(count):
        row = slice(index, index + 1)
        alone = dict(zip(found, session.run(list(found), {"crops": crops[row], "cameras": cameras[row]}), strict=True))
        np.testing.assert_allclose(found["vertices"][row], alone["vertices"], atol=1e-5)  # metres
        np.testing.assert_array_equal(found["reference_pixel"][row], alone["reference_pixel"])
    assert all(len(found[spec.name]) == count for spec in GRAPH_OUTPUTS)


def test_a_second_session_is_opened_for_several_crops_alone(opened, monkeypatch):
    asked, make = [], onnxruntime.InferenceSession

    def counted(content, options, **given):
        asked.append(options.intra_op_num_threads)
        return make(content, options, **given)

    monkeypatch.setattr(onnxruntime, "InferenceSession", counted)
    backend = open_backend("onnxruntime-cpu", opened, threads=2)
    crops, cameras = np.zeros((4, 256, 256, 3), np.uint8), np.ones((4, 4), np.float32)
    backend.run(crops[:1], cameras[:1])
    assert asked == [2]
    for _ in range(2):
        backend.run(crops, cameras)
    assert asked == [2, 1]
    backend.close()
    with pytest.raises(BackendError, match="is closed"):
        backend.run(crops, cameras)


def test_a_gpu_takes_many(opened, fake):
    fake([CUDA, CPU])
    assert open_backend("onnxruntime-cuda", opened, threads=2).batch_size == 16


def test_failure_of_the_session_carries_onnx_runtimes_words(opened, fake):
    fake([CPU], failure=RuntimeError("[ONNXRuntimeError] : 7 : the very words"))
    with pytest.raises(BackendError, match="does not load") as error:
        open_backend("onnxruntime-cpu", opened)
    assert "the very words" in error.value.why and error.value.fix


def test_failure_while_running_carries_onnx_runtimes_words(opened):
    backend = open_backend("onnxruntime-cpu", opened)
    with pytest.raises(BackendError, match="onnxruntime-cpu failed on 2 crops") as error:
        backend.run(np.zeros((2, 128, 128, 3), np.uint8), np.ones((2, 4), np.float32))
    assert "crops" in error.value.why and "128" in error.value.why


def test_outputs_come_under_their_names(opened):
    backend = open_backend("onnxruntime-cpu", opened)
    outputs = backend.run(np.zeros((2, 256, 256, 3), np.uint8), np.ones((2, 4), np.float32))
    assert list(outputs) == [spec.name for spec in GRAPH_OUTPUTS]
    for spec in GRAPH_OUTPUTS:
        assert outputs[spec.name].dtype == spec.dtype and outputs[spec.name].ndim == len(spec.shape)


def test_a_closed_backend_says_so_and_closes_twice(opened):
    backend = open_backend("onnxruntime-cpu", opened)
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        backend.run(np.zeros((1, 256, 256, 3), np.uint8), np.ones((1, 4), np.float32))
