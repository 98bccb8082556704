"""The engine runtime on stand-ins for TensorRT and cuda-core: buckets, graphs, threads, caches, and every failure."""

import ast
import dataclasses
import importlib
import importlib.metadata
import json
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest
import tensorrt_stand_in as stand_in
from tensorrt_stand_in import OUTPUTS, SCRATCH, SIDE, STEP, engine_record, make_bundle, plan
from typer.testing import CliRunner

import glnet_infer.devices
from glnet_infer import BackendError, BundleError, MeshRecoverer
from glnet_infer.backends import choose_backend, open_backend
from glnet_infer.backends.session import buckets
from glnet_infer.backends.tensorrt import TensorRtBackend
from glnet_infer.backends.tensorrt_module import TensorRtLog, log_of
from glnet_infer.bundle import Bundle
from glnet_infer.cli import app as infer_app
from glnet_infer.devices import Gpu
from glnet_infer.manifest import Manifest

NAMES = ["crops", "cameras", *(spec.name for spec in OUTPUTS)]


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch, tmp_path):
    """What is really installed, and the user's own cache, stay out of it."""
    for name in ("tensorrt", "tensorrt_lean", "tensorrt_rtx", "cuda.core"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))


@pytest.fixture
def machine(monkeypatch):
    """A machine with an L4 and cuda-core."""
    machine = stand_in.Machine()
    monkeypatch.setattr(glnet_infer.devices, "gpus", lambda: [Gpu("NVIDIA L4", "8.9")])
    monkeypatch.setitem(sys.modules, "cuda.core", stand_in.cuda_core(machine))
    return machine


@pytest.fixture
def install(machine, monkeypatch):
    def install(name="tensorrt", version=None):
        version = version or ("1.7.1.116" if name == "tensorrt_rtx" else "10.16.1.11")
        module = stand_in.tensorrt(machine, name, version)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return install


@pytest.fixture
def classic(install, tmp_path):
    """A bundle with an engine of 1 to 6 crops, and TensorRT to run it."""
    install()
    tmp_path = tmp_path / "bundle"
    tmp_path.mkdir()
    return make_bundle(tmp_path, engine_record(tmp_path))


@pytest.fixture
def rtx(install, tmp_path):
    """The same for TensorRT for RTX."""
    install("tensorrt_rtx")
    tmp_path = tmp_path / "bundle"
    tmp_path.mkdir()
    return make_bundle(tmp_path, engine_record(tmp_path, flavor="tensorrt-rtx"))


@pytest.fixture(params=["classic", "rtx"])
def either(request):
    return request.getfixturevalue(request.param)


def batch(count, seed=0):
    generator = np.random.default_rng(seed)
    crops = generator.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
    return crops, generator.normal(size=(count, 4)).astype(np.float32)


def right(outputs, crops, cameras):
    expected = stand_in.results(crops, cameras)
    assert list(outputs) == list(expected)
    for name, values in expected.items():
        assert outputs[name].dtype == values.dtype
        np.testing.assert_array_equal(outputs[name], values, err_msg=name)


def refused(call, *words, kind=BackendError):
    """The call fails; the error says all of these words, the cause and the remedy."""
    with pytest.raises(kind) as error:
        call()
    for word in words:
        assert word in str(error.value), str(error.value)
    assert error.value.what and error.value.why and error.value.fix
    return error.value


# Results


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 20])
def test_padding_and_pieces_leave_every_row_in_its_place(either, count):
    with TensorRtBackend(either) as backend:
        for seed in range(2):  # the second time the graphs are there
            crops, cameras = batch(count, seed)
            right(backend.run(crops, cameras), crops, cameras)


def test_results_do_not_change_with_the_next_run(classic):
    with TensorRtBackend(classic) as backend:
        crops, cameras = batch(3)
        outputs = backend.run(crops, cameras)
        backend.run(*batch(3, seed=1))
        right(outputs, crops, cameras)


def test_a_view_of_other_memory_order_is_run_as_it_reads(classic):
    crops, cameras = batch(8)
    with TensorRtBackend(classic) as backend:
        right(backend.run(crops[::2, :, ::-1], cameras[::2]), crops[::2, :, ::-1], cameras[::2])


def test_no_crops_are_no_rows(classic):
    with TensorRtBackend(classic) as backend:
        outputs = backend.run(*batch(0))
    assert {name: values.shape for name, values in outputs.items()} == {spec.name: (0, *spec.shape[1:]) for spec in OUTPUTS}


def test_a_recoverer_runs_it(classic, machine):
    with MeshRecoverer(classic.directory, "tensorrt", batch_size=5) as recoverer:
        meshes = recoverer(np.zeros((40, 60, 3), np.uint8), [[0, 0, 20, 30]] * 7)
        assert recoverer.backend == meshes.backend == "tensorrt" and len(meshes) == 7
    assert [event[1] for event in machine.named("execute") if event[2] == "captured"] == [6, 2]


@pytest.mark.parametrize(
    "crops, cameras, words",
    [
        (np.zeros((2, 16, 16, 3), np.uint8), np.ones((2, 4), np.float32), ["crops is uint8 (2, 16, 16, 3)", "32 x 32 x 3"]),
        (np.zeros((2, SIDE, SIDE, 3), np.float32), np.ones((2, 4), np.float32), ["crops is float32", "uint8"]),
        (np.zeros((2, SIDE, SIDE, 3), np.uint8), np.ones((2, 4)), ["cameras is float64", "float32"]),
        (np.zeros((2, SIDE, SIDE, 3), np.uint8), np.ones((1, 4), np.float32), ["cameras is float32 (1, 4)"]),
    ],
)
def test_arrays_that_are_not_the_graphs_inputs(classic, crops, cameras, words):
    with TensorRtBackend(classic) as backend:
        refused(lambda: backend.run(crops, cameras), "failed on 2 crops", *words)


# Buckets and graphs


@pytest.mark.parametrize(
    "least, most, expected",
    [
        (1, 1, (1,)),
        (1, 2, (1, 2)),
        (1, 6, (1, 2, 4, 6)),
        (1, 16, (1, 2, 4, 8, 16)),
        (3, 16, (4, 8, 16)),
        (4, 4, (4,)),
        (5, 6, (6,)),
        (1, 33, (1, 2, 4, 8, 16, 32, 33)),
    ],
)
def test_buckets_are_powers_of_two_and_the_largest(least, most, expected):
    assert buckets(least, most) == expected


@pytest.mark.parametrize("count, bucket", [(1, [1]), (2, [2]), (3, [4]), (4, [4]), (5, [6]), (6, [6]), (7, [6, 1])])
def test_a_batch_runs_in_the_smallest_bucket_that_holds_it(either, machine, count, bucket):
    with TensorRtBackend(either) as backend:
        assert backend.buckets == (1, 2, 4, 6)
        backend.run(*batch(count))
    assert [event[1] for event in machine.named("execute") if event[2] == "queued"] == bucket


def test_a_profile_that_begins_later_pads_up_to_it(install, tmp_path, machine):
    install()
    bundle = make_bundle(tmp_path / "b", engine_record(tmp_path, profile=(3, 4, 5)))
    (tmp_path / "model.tensorrt.engine").rename(tmp_path / "b/model.tensorrt.engine")
    with TensorRtBackend(bundle) as backend:
        crops, cameras = batch(6)
        right(backend.run(crops, cameras), crops, cameras)
        assert backend.buckets == (4, 5)


def test_a_graph_is_captured_after_a_run_that_was_waited_for(classic, machine):
    with TensorRtBackend(classic) as backend:
        machine.events.clear()
        backend.run(*batch(3))
        first = [event[0] for event in machine.events if event[0] != "shape"]
        copies = ["copy"] * 2 + ["execute"] + ["copy"] * 8
        assert first == [*copies, "sync", "begin", *copies, "end", "launch", "sync"]
        assert machine.named("begin") == [("begin", "thread_local")]
        machine.events.clear()
        backend.run(*batch(4))
        assert [event[0] for event in machine.events] == ["launch", "sync"]


def test_inputs_go_up_and_outputs_come_down_by_the_buckets_bytes(classic, machine):
    with TensorRtBackend(classic, cuda_graphs=False) as backend:
        machine.events.clear()
        backend.run(*batch(3))
    copies = machine.named("copy")
    assert copies[:2] == [("copy", "host", "device", 4 * SIDE * SIDE * 3), ("copy", "host", "device", 4 * 16)]
    sizes = [4 * int(np.prod(spec.shape[1:])) * 4 for spec in OUTPUTS]
    assert copies[2:] == [("copy", "device", "host", size) for size in sizes]


def test_every_bucket_has_a_context_of_its_own_in_shared_memory(classic, machine):
    with TensorRtBackend(classic) as backend:
        for count in (1, 6, 2, 1, 4, 6):
            crops, cameras = batch(count, count)
            right(backend.run(crops, cameras), crops, cameras)
        assert len(machine.contexts) == 4
        assert sorted(context._shapes["crops"][0] for context in machine.contexts) == [1, 2, 4, 6]
        assert len({context._scratch for context in machine.contexts}) == 1
        strategies = {context._given.name for context in machine.contexts}
    assert strategies == {"USER_MANAGED"} and machine.contexts[0]._scratch[1] == SCRATCH


def test_without_graphs_one_context_changes_its_shapes(classic, machine):
    with TensorRtBackend(classic, cuda_graphs=False) as backend:
        for count in (1, 6, 2, 1, 4):
            crops, cameras = batch(count, count)
            right(backend.run(crops, cameras), crops, cameras)
    assert len(machine.contexts) == 1 and not machine.named("begin", "launch")


def test_rtx_captures_by_itself(rtx, machine):
    with TensorRtBackend(rtx) as backend:
        for count in (1, 6, 2, 1):
            crops, cameras = batch(count, count)
            right(backend.run(crops, cameras), crops, cameras)
        assert backend.name == "tensorrt-rtx"
    assert [config.cuda_graph_strategy.name for config in machine.configs] == ["WHOLE_GRAPH_CAPTURE"]
    assert [context._given for context in machine.contexts] == machine.configs
    assert not machine.named("begin", "launch")


def test_rtx_without_graphs(rtx, machine):
    with TensorRtBackend(rtx, cuda_graphs=False) as backend:
        crops, cameras = batch(2)
        right(backend.run(crops, cameras), crops, cameras)
    assert [config.cuda_graph_strategy.name for config in machine.configs] == ["DISABLED"]


def test_an_older_tensorrt_without_runtime_configurations(classic, machine):
    del sys.modules["tensorrt"].ICudaEngine.create_runtime_config
    with TensorRtBackend(classic) as backend:
        crops, cameras = batch(3)
        right(backend.run(crops, cameras), crops, cameras)


def test_every_tensor_has_an_address_in_a_buffer_for_the_largest_batch(either, machine):
    with TensorRtBackend(either) as backend:
        backend.run(*batch(1))
        for context in machine.contexts:
            assert sorted(context._addresses) == sorted(NAMES)
            assert len(set(context._addresses.values())) == len(NAMES)
            for name, address in context._addresses.items():
                shape, step = stand_in.SHAPES[name], 1 if name in ("crops", "cameras") else STEP
                size = 6 * int(np.prod(shape)) * (1 if name == "crops" else 4)
                kind, array = machine.memory[address]
                # What TensorRT may write of an output is more than its own bytes.
                assert (kind, array.size) == ("device", -(-size // step) * step), name
        own = sorted(6 * int(np.prod(shape)) * (1 if name == "crops" else 4) for name, shape in stand_in.SHAPES.items())
        assert machine.sizes("host") == own


def test_padding_before_the_first_batch_is_an_ordinary_camera(classic):
    with TensorRtBackend(classic) as backend:
        cameras = backend._open().inputs["cameras"]
        assert np.array_equal(cameras, np.tile(np.float32([1000 / 256, 1000 / 256, 0, 0]), (6, 1)))
        assert not backend._open().inputs["crops"].any()


# Failures


def test_an_engine_that_is_not_loaded(either, machine):
    machine.trouble = {"deserialize_cuda_engine"}
    error = refused(lambda: TensorRtBackend(either), "does not load", "deserialize_cuda_engine was told to fail", "--trt")
    assert "Loaded engine size" not in error.why  # TensorRT's talk is left out
    assert not machine.memory and not machine.streams


def test_no_context(either, machine):
    machine.trouble = {"create_execution_context"}
    refused(lambda: TensorRtBackend(either), "no execution context", "create_execution_context was told to fail")
    assert not machine.memory and not machine.streams


def test_no_context_for_a_later_bucket(classic, machine):
    with TensorRtBackend(classic) as backend:
        machine.trouble = {"create_execution_context"}
        refused(lambda: backend.run(*batch(1)), "no execution context", "was told to fail")
        machine.trouble = set()
        crops, cameras = batch(1)
        right(backend.run(crops, cameras), crops, cameras)


@pytest.mark.parametrize(
    "trouble, words",
    [
        ("set_input_shape", ["refuses 6 crops", "set_input_shape was told to fail"]),
        ("infer_shapes", ["no shapes", "not specified: cameras"]),
        ("infer_shapes raises", ["no shapes", "the very words"]),
        ("get_tensor_shape", ["joints of shape (6, 7, 3)", "promises (6, 29, 3)"]),
        ("set_tensor_address", ["refuses the buffer of crops", "set_tensor_address was told to fail"]),
        ("allocate device", ["allocate", "on the GPU", "CUDA_ERROR_OUT_OF_MEMORY", "nvidia-smi"]),
        ("allocate host", ["pinned memory", "CUDA_ERROR_OUT_OF_MEMORY"]),
        ("device", ["start the GPU", "CUDA_ERROR_NO_DEVICE"]),
    ],
)
def test_what_is_refused_at_the_start(either, machine, trouble, words):
    machine.trouble = {trouble}
    refused(lambda: TensorRtBackend(either), *words)
    assert not machine.memory and not machine.streams  # nothing is left behind


@pytest.mark.parametrize("trouble", ["create_runtime_config", "set_runtime_cache"])
def test_a_configuration_that_is_refused(rtx, machine, trouble):
    machine.trouble = {trouble}
    refused(lambda: TensorRtBackend(rtx), f"{trouble} was told to fail", "TensorRT for RTX 1.7.1.116")
    assert not machine.memory


@pytest.mark.parametrize(
    "trouble, words",
    [
        ("execute_async_v3", ["does not run 4 crops", "execute_async_v3 was told to fail"]),
        ("copy", ["CUDA failed to copy", "CUDA_ERROR_UNKNOWN"]),
        ("sync", ["finish the work", "CUDA_ERROR_LAUNCH_FAILED"]),
    ],
)
def test_what_is_refused_in_a_run(either, machine, trouble, words):
    with TensorRtBackend(either) as backend:
        machine.trouble = {trouble}
        refused(lambda: backend.run(*batch(3)), *words)
        machine.trouble = set()
        crops, cameras = batch(3)
        right(backend.run(crops, cameras), crops, cameras)


@pytest.mark.parametrize("trouble", ["capture", "launch"])
def test_a_graph_that_is_refused(classic, machine, trouble):
    with TensorRtBackend(classic) as backend:
        machine.trouble = {trouble}
        refused(lambda: backend.run(*batch(2)), "CUDA graph", f"{trouble} refused")
        machine.trouble = set()
        crops, cameras = batch(2)
        right(backend.run(crops, cameras), crops, cameras)


def test_an_engine_that_fails_while_it_is_captured(classic, machine):
    with TensorRtBackend(classic) as backend:
        execute = machine.contexts[0].__class__.execute_async_v3

        def only_outside(context, handle):
            return machine.streams[handle]._captured is None and execute(context, handle)

        machine.contexts[0].__class__.execute_async_v3 = only_outside
        refused(lambda: backend.run(*batch(2)), "does not run 2 crops")
        machine.contexts[0].__class__.execute_async_v3 = execute
        crops, cameras = batch(2)
        right(backend.run(crops, cameras), crops, cameras)  # the stream was not left capturing


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"joints": {"gone": True}}, ["it lacks joints"]),
        ({"cameras": {"gone": True}}, ["it lacks cameras"]),
        (
            {"extra": [{"name": "heat", "mode": "OUTPUT", "dtype": "FLOAT", "shape": [-1, 2], "location": "DEVICE"}]},
            ["it has heat"],
        ),
        ({"vertices": {"dtype": "HALF"}}, ["vertices is HALF, not float32"]),
        ({"vertices": {"dtype": "BF16"}}, ["vertices is BF16, not float32"]),
        ({"reference_pixel": {"dtype": "INT64"}}, ["reference_pixel is INT64, not int32"]),
        ({"crops": {"dtype": "INT8"}}, ["crops is INT8, not uint8"]),
        ({"betas": {"mode": "INPUT"}}, ["betas is not an output"]),
        ({"betas": {"location": "HOST"}}, ["betas is not in the GPU's memory"]),
        ({"vertices": {"shape": [-1, 6890, 3]}}, ["vertices is (-1, 6890, 3), not (-1, 5, 3)"]),
        ({"rotations": {"shape": [-1, 24, 9]}}, ["rotations is (-1, 24, 9)"]),
        ({"crops": {"shape": [-1, 64, 64, 3]}}, ["crops is (-1, 64, 64, 3), not (-1, 32, 32, 3)"]),
        ({"profile": (1, 4, 8)}, ["its profile of crops", "(8, 32, 32, 3)", "(6, 32, 32, 3)"]),
        ({"profile": (2, 4, 6)}, ["its profile of crops", "(2, 32, 32, 3)", "(1, 32, 32, 3)"]),
        ({"joints": {"gone": True}, "betas": {"dtype": "HALF"}}, ["it lacks joints; betas is HALF"]),
    ],
)
def test_an_engine_of_another_graph(install, machine, tmp_path, changes, words):
    install()
    bundle = make_bundle(tmp_path, engine_record(tmp_path, plan(**changes)))
    refused(lambda: TensorRtBackend(bundle), "is not of this bundle's graph", *words, "--trt")
    assert not machine.contexts and not machine.memory


# Before anything is loaded


@pytest.fixture
def choice_of(machine, tmp_path, monkeypatch):
    """What opening TensorRT says on a machine with a GPU, for a bundle with engines."""

    def choice(*engines, gpu="8.9"):
        monkeypatch.setattr(glnet_infer.devices, "gpus", lambda: [Gpu("A GPU", gpu)])
        return make_bundle(tmp_path, *(engine_record(tmp_path, **values) for values in engines))

    return choice


def test_no_gpu(classic, monkeypatch, machine):
    monkeypatch.setattr(glnet_infer.devices, "gpus", list)
    refused(lambda: open_backend("tensorrt", classic), "needs an NVIDIA GPU", "onnxruntime-cpu")
    assert not machine.events


def test_no_engine(choice_of, install):
    install()
    bundle = choice_of()
    refused(
        lambda: open_backend("tensorrt", bundle), "no TensorRT engine", f"glnet-export CHECKPOINT -o {bundle.directory}"
    )


@pytest.mark.parametrize(
    "flavor, title, extra", [("tensorrt", "TensorRT", "trt"), ("tensorrt-rtx", "TensorRT for RTX", "rtx")]
)
def test_no_module(choice_of, flavor, title, extra):
    bundle = choice_of({"flavor": flavor})
    error = refused(lambda: open_backend("tensorrt", bundle), f"{title} is not installed", "pip install")
    assert f"[{extra}]" in error.fix


def test_a_module_whose_libraries_are_broken(choice_of, monkeypatch):
    original = importlib.import_module

    def load(name):
        if name == "tensorrt_rtx":
            raise OSError("libtensorrt_rtx.so.1: cannot open shared object file")
        return original(name)

    monkeypatch.setattr("importlib.import_module", load)
    bundle = choice_of({"flavor": "tensorrt-rtx"})
    refused(lambda: open_backend("tensorrt", bundle), "not installed", "libtensorrt_rtx.so.1: cannot open")


def test_no_cuda_core(rtx, monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    error = refused(lambda: open_backend("tensorrt", rtx), "cuda-core is not installed")
    assert "[rtx]" in error.fix


def test_another_gpu(choice_of, install):
    install("tensorrt_rtx")
    bundle = choice_of({"flavor": "tensorrt-rtx", "compute_capabilities": ("8.9", "12.0")}, gpu="8.6")
    error = refused(lambda: open_backend("tensorrt", bundle), "built for sm 8.9, 12.0 with TensorRT for RTX 1.7.1.116")
    assert "here sm 8.6 (A GPU) with TensorRT for RTX 1.7.1.116" in error.why
    assert error.fix == f"rebuild with glnet-export CHECKPOINT -o {bundle.directory} --trt --sm 86"


def test_another_gpu_for_tensorrt_is_built_for_where_it_is(choice_of, install):
    install()
    error = refused(lambda: open_backend("tensorrt", choice_of({}, gpu="9.0")), "built for sm 8.9 with TensorRT 10.16.1.11")
    assert error.fix.startswith("rebuild on this machine with glnet-export") and "--sm" not in error.fix


def test_a_gpu_that_rtx_does_not_know(choice_of, install):
    install("tensorrt_rtx")
    error = refused(lambda: open_backend("tensorrt", choice_of({"flavor": "tensorrt-rtx"}, gpu="9.0")), "sm 9.0")
    assert "TensorRT for RTX does not support this GPU" in error.fix and "--sm" not in error.fix


@pytest.mark.parametrize("installed", ["1.7.2.3", "1.7.1.99", "1.8.1.116"])
def test_another_version(choice_of, install, machine, installed):
    install("tensorrt_rtx", installed)
    error = refused(lambda: open_backend("tensorrt", choice_of({"flavor": "tensorrt-rtx"})), "does not fit", installed)
    assert "pip install tensorrt-rtx==1.7.1.116" in error.fix and "--sm 89" in error.fix
    assert not machine.events


def test_versions_are_compared_as_far_as_both_go(choice_of, install):
    install()
    TensorRtBackend(choice_of({"version": "10.16.1"})).close()


def test_the_lean_runtime_runs_what_its_version_built(choice_of, install, machine):
    install(version="11.4.0.106")
    install("tensorrt_lean")
    with TensorRtBackend(choice_of({})) as backend:
        assert backend.name == "tensorrt-lean" and "tensorrt-lean" in repr(backend)


def test_tensorrts_engine_goes_before_rtxs(choice_of, install):
    install()
    install("tensorrt_rtx")
    bundle = choice_of({"flavor": "tensorrt-rtx"}, {})
    with open_backend("tensorrt", bundle) as backend:
        assert backend.name == "tensorrt"
    other = dataclasses.replace(bundle.manifest.engines[1], compute_capabilities=("9.0",))
    manifest = dataclasses.replace(bundle.manifest, engines=(bundle.manifest.engines[0], other))
    with open_backend("tensorrt", dataclasses.replace(bundle, manifest=manifest)) as backend:
        assert backend.name == "tensorrt-rtx"


def test_of_several_engines_that_do_not_fit_each_says_why(choice_of, install):
    install("tensorrt_rtx", "1.6.0.1")
    bundle = choice_of({}, {"flavor": "tensorrt-rtx"})
    error = refused(lambda: open_backend("tensorrt", bundle), "None of the 2 TensorRT engines")
    assert "model.tensorrt.engine: TensorRT is not installed" in error.why
    assert "model.tensorrt-rtx.engine: The engine" in error.why and "1.6.0.1" in error.why
    assert "[trt]" in error.fix and "tensorrt-rtx==1.7.1.116" in error.fix


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda path: path.write_bytes(path.read_bytes()[:100]), ["it has 100 bytes"]),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"FLOAT", b"FLOAD", 1)), ["SHA-256"]),
        (lambda path: path.unlink(), ["is missing"]),
    ],
)
def test_a_damaged_engine_is_not_given_to_tensorrt(either, machine, damage, words):
    damage(either.directory / either.manifest.engines[0].file.file)
    refused(lambda: TensorRtBackend(either), *words, kind=BundleError)
    assert not machine.named("deserialize") and not machine.memory


# Threads


def test_a_second_thread_is_refused_while_one_runs(either, machine):
    with TensorRtBackend(either, cuda_graphs=False) as backend:
        running, may_end = threading.Event(), threading.Event()

        def wait():
            running.set()
            assert may_end.wait(5)

        machine.during_execution = wait
        first = threading.Thread(target=lambda: backend.run(*batch(2)))
        first.start()
        assert running.wait(5)
        refused(lambda: backend.run(*batch(2)), "running in another thread", "clone()")
        may_end.set()
        first.join()
        crops, cameras = batch(2)
        right(backend.run(crops, cameras), crops, cameras)


def test_a_thread_after_the_other_may_use_it(either):
    crops, cameras = batch(3)
    with TensorRtBackend(either) as backend:
        found = []
        threads = [threading.Thread(target=lambda: found.append(backend.run(crops, cameras))) for _ in range(2)]
        for thread in threads:
            thread.start()
            thread.join()
    assert len(found) == 2
    for outputs in found:
        right(outputs, crops, cameras)


def test_closing_waits_for_the_run(classic, machine):
    backend = TensorRtBackend(classic, cuda_graphs=False)
    running, may_end, found = threading.Event(), threading.Event(), []

    def wait():
        running.set()
        assert may_end.wait(5)

    machine.during_execution = wait
    crops, cameras = batch(2)
    runner = threading.Thread(target=lambda: found.append(backend.run(crops, cameras)))
    runner.start()
    assert running.wait(5)
    closer = threading.Thread(target=backend.close)
    closer.start()
    closer.join(0.05)
    assert closer.is_alive() and machine.memory
    may_end.set()
    runner.join()
    closer.join(5)
    right(found[0], crops, cameras)
    assert not machine.memory


def test_clones_share_the_engine_and_nothing_else(either, machine):
    with TensorRtBackend(either) as first, first.clone() as second:
        assert len(machine.named("deserialize")) == 1 and first.name == second.name
        assert len(machine.streams) == 2
        addresses = [address for context in machine.contexts for address in context._addresses.values()]
        assert len(machine.contexts) == 2 and len(set(addresses)) == len(addresses)
        running, may_end, found = threading.Event(), threading.Event(), []

        def wait():
            if threading.current_thread() is thread:
                running.set()
                assert may_end.wait(5)

        machine.during_execution = wait
        one, other = batch(3), batch(3, seed=1)
        thread = threading.Thread(target=lambda: found.append(first.run(*one)))
        thread.start()
        assert running.wait(5)
        right(second.run(*other), *other)  # while the first one is at work
        may_end.set()
        thread.join()
        right(found[0], *one)


@pytest.mark.parametrize("first_to_close", [0, 1])
def test_clones_close_in_any_order(either, machine, first_to_close):
    first = TensorRtBackend(either)
    pair = [first, first.clone()]
    pair.pop(first_to_close).close()
    crops, cameras = batch(3)
    right(pair[0].run(crops, cameras), crops, cameras)
    third = pair[0].clone()
    pair[0].close()
    right(third.run(crops, cameras), crops, cameras)
    third.close()
    assert not machine.memory and not machine.streams
    with pytest.raises(BackendError, match="closed"):
        first.clone()
    with pytest.raises(BackendError, match="closed"):
        first._engine.share()  # what a clone meets that comes while the last one closes


def test_a_clone_that_fails_leaves_nothing_behind(either, machine):
    with TensorRtBackend(either) as backend:
        before = len(machine.memory)
        machine.trouble = {"create_execution_context"}
        refused(backend.clone, "no execution context")
        machine.trouble = {"device"}
        refused(backend.clone, "start the GPU")
        machine.trouble = set()
        assert len(machine.memory) == before and len(machine.streams) == 1
    assert not machine.memory and backend._engine.main._engine is None  # the failed clones do not count as users


def test_closing_twice_and_running_after(either, machine):
    backend = TensorRtBackend(either)
    backend.run(*batch(2))
    backend.close()
    backend.close()
    assert not machine.memory and not machine.streams
    with pytest.raises(BackendError, match="is closed"):
        backend.run(*batch(2))
    with pytest.raises(BackendError, match="is closed"):
        backend.clone()


# Kernels that TensorRT for RTX keeps


def run_once(bundle, **options):
    with TensorRtBackend(bundle, **options) as backend:
        backend.run(*batch(2))


def test_kernels_are_kept_in_the_bundle_and_used_again(rtx, machine):
    run_once(rtx)
    record = rtx.manifest.engines[0]
    [file] = (rtx.directory / "cache").iterdir()
    assert file.name == f"{record.file.sha256[:16]}.nvidia-l4.cache"
    assert file.read_bytes() == b"kernels of 1.7.1.116 for 2"
    with TensorRtBackend(rtx):
        assert machine.configs[-1]._cache._kernels == b"kernels of 1.7.1.116 for 2"
    assert Bundle.open(rtx.directory).manifest == rtx.manifest


def test_kernels_that_are_refused_are_replaced(rtx, machine):
    run_once(rtx)
    [file] = (rtx.directory / "cache").iterdir()
    file.write_bytes(b"kernels of 1.6.0.1 for 2")
    with TensorRtBackend(rtx) as backend:
        assert machine.configs[-1]._cache._kernels == b""
        backend.run(*batch(4))
    assert file.read_bytes() == b"kernels of 1.7.1.116 for 4"
    assert list(file.parent.iterdir()) == [file]  # nothing half-written beside it


def test_kernels_go_where_they_are_asked_to_go(rtx, tmp_path):
    run_once(rtx, cache_directory=tmp_path / "mine")
    assert len(list((tmp_path / "mine").iterdir())) == 1 and not (rtx.directory / "cache").exists()


def test_a_bundle_that_cannot_be_written_leaves_kernels_with_the_user(rtx, machine, tmp_path):
    (rtx.directory / "cache").write_bytes(b"a file where the folder would be")  # root may write anywhere else
    run_once(rtx)
    assert len(list((tmp_path / "user-cache/glnet-infer").iterdir())) == 1
    with TensorRtBackend(rtx):
        assert machine.configs[-1]._cache._kernels


def test_kernels_that_cannot_be_kept_are_said(rtx, tmp_path):
    (tmp_path / "blocked").write_bytes(b"")
    with pytest.warns(RuntimeWarning, match="compiled kernels were not kept"):
        run_once(rtx, cache_directory=tmp_path / "blocked")


def test_kernels_that_did_not_change_are_not_written(rtx):
    run_once(rtx)
    [file] = (rtx.directory / "cache").iterdir()
    before = file.stat().st_ino
    run_once(rtx)
    assert file.stat().st_ino == before


def test_an_interrupted_write_keeps_the_old_kernels(rtx, monkeypatch):
    run_once(rtx)
    [file] = (rtx.directory / "cache").iterdir()
    old = file.read_bytes()
    backend = TensorRtBackend(rtx)
    backend.run(*batch(6))

    def broken(path, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.warns(RuntimeWarning, match="No space left"):
        backend.close()
    assert file.read_bytes() == old and list(file.parent.iterdir()) == [file]


def test_only_the_last_clone_writes_the_kernels(rtx):
    first = TensorRtBackend(rtx)
    second = first.clone()
    first.run(*batch(2))
    first.close()
    assert not (rtx.directory / "cache").exists()
    second.close()
    assert (rtx.directory / "cache").is_dir()


def test_tensorrt_keeps_nothing(classic):
    run_once(classic)
    assert not (classic.directory / "cache").exists()


# Choosing, and the command line


@pytest.fixture
def onnx_runtime(monkeypatch):
    def install(*providers):
        module = types.ModuleType("onnxruntime")
        module.__version__ = "9.8.7"
        module.get_available_providers = lambda: list(providers)
        monkeypatch.setitem(sys.modules, "onnxruntime", module)

    return install


def test_auto_takes_tensorrt_where_all_fits(either, onnx_runtime):
    onnx_runtime("CUDAExecutionProvider")
    assert choose_backend(either).name == "tensorrt" and choose_backend(either).reason == ""
    with MeshRecoverer(either.directory) as recoverer:
        assert recoverer.backend in ("tensorrt", "tensorrt-rtx") and recoverer.backend_reason == ""


def test_auto_says_why_not_tensorrt(choice_of, install, onnx_runtime):
    install()
    onnx_runtime("CUDAExecutionProvider")
    choice = choose_backend(choice_of({}, gpu="8.6"))
    assert choice.name == "onnxruntime-cuda"
    assert "no TensorRT" in choice.reason and "built for sm 8.9" in choice.reason and "here sm 8.6" in choice.reason


def test_auto_on_the_cpu_beside_a_gpu_says_why(choice_of, onnx_runtime):
    onnx_runtime("CPUExecutionProvider")
    choice = choose_backend(choice_of({}))
    assert choice.name == "onnxruntime-cpu"
    assert "TensorRT is not installed" in choice.reason and "ONNX Runtime 9.8.7 is built without" in choice.reason
    assert "TensorRT" not in choose_backend(choice_of()).reason  # a bundle without engines was not meant for it


def test_auto_without_cuda_core_says_so(classic, monkeypatch, onnx_runtime):
    onnx_runtime("CUDAExecutionProvider")
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    choice = choose_backend(classic)
    assert choice.name == "onnxruntime-cuda" and "cuda-core is not installed" in choice.reason


def test_auto_without_a_gpu_has_nothing_to_explain(classic, monkeypatch, onnx_runtime):
    onnx_runtime("CPUExecutionProvider")
    monkeypatch.setattr(glnet_infer.devices, "gpus", list)
    assert dataclasses.astuple(choose_backend(classic)) == ("onnxruntime-cpu", "")


def test_auto_does_not_pass_over_a_damaged_engine(classic):
    (classic.directory / "model.tensorrt.engine").write_bytes(b"")
    with pytest.raises(BundleError, match=r"model\.tensorrt\.engine"):
        open_backend("auto", classic)


def test_a_named_backend_is_not_replaced(choice_of, install, onnx_runtime):
    install()
    onnx_runtime("CUDAExecutionProvider", "CPUExecutionProvider")
    refused(lambda: open_backend("tensorrt", choice_of({}, gpu="8.6")), "does not fit")


def infer(bundle, tmp_path, *options):
    image = tmp_path / "image.png"
    image.write_bytes(b"")
    return CliRunner().invoke(infer_app, [str(image), "-b", str(bundle), "-o", str(tmp_path / "out"), *options])


def test_the_command_line_says_why_it_cannot(classic, tmp_path, monkeypatch):
    monkeypatch.setattr(glnet_infer.devices, "gpus", list)
    result = infer(classic.directory, tmp_path, "--backend", "tensorrt", "--json")
    assert result.exit_code == BackendError.exit_code == 8
    assert "needs an NVIDIA GPU" in result.stderr and "what to do:" in result.stderr
    assert json.loads(result.stdout)["error"]["exit_code"] == 8


def test_the_command_line_says_once_that_it_could_be_faster(choice_of, onnx_runtime, tmp_path, monkeypatch):
    onnx_runtime("CPUExecutionProvider")
    bundle = choice_of({})

    class Backend:
        name = "onnxruntime-cpu"

        def close(self):
            pass

    monkeypatch.setattr("glnet_infer.recoverer.open_backend", lambda *_: Backend())
    result = infer(bundle.directory, tmp_path)
    assert result.stderr.count("It could be faster: no TensorRT: TensorRT is not installed.") == 1
    assert not result.stdout


# The manifest's record


def test_engine_records_survive_the_file(either):
    assert Manifest.read(either.directory) == either.manifest
    [record] = Manifest.read(either.directory).engines
    assert record.profile == (1, 4, 6) and record.compute_capabilities == ("8.9",)


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("file", {"file": "../model.engine", "sha256": "", "bytes": 1}, "not a file name"),
        ("file", None, ""),
        ("flavor", "trt", "flavor"),
        ("flavor", None, "flavor"),
        ("version", "", "version"),
        ("version", 10.16, "version"),
        ("compute_capabilities", [], "compute_capabilities"),
        ("compute_capabilities", ["89"], "compute_capabilities"),
        ("compute_capabilities", "8.9", "compute_capabilities"),
        ("compute_capabilities", [8.9], "compute_capabilities"),
        ("precision", "fp16", "precision"),
        ("profile", [1, 4], "profile"),
        ("profile", [0, 4, 8], "profile"),
        ("profile", [4, 1, 8], "profile"),
        ("profile", [1, 16, 8], "profile"),
        ("profile", [1, 4, 8.0], "profile"),
        ("profile", ["1", "4", "8"], "profile"),
        ("state", "tested", "state"),
    ],
)
def test_engine_records_that_cannot_be_used(classic, key, value, words):
    path = classic.directory / "manifest.json"
    document = json.loads(path.read_text())
    document["engines"][0][key] = value
    path.write_text(json.dumps(document))
    with pytest.raises(BundleError, match="is damaged") as error:
        Manifest.read(classic.directory)
    assert words in error.value.why


def test_engine_records_may_hold_more_and_must_not_hold_less(classic):
    path = classic.directory / "manifest.json"
    document = json.loads(path.read_text())
    document["engines"][0]["from_the_future"] = 1
    path.write_text(json.dumps(document))
    assert Manifest.read(classic.directory) == classic.manifest
    del document["engines"][0]["parity"]
    path.write_text(json.dumps(document))
    with pytest.raises(BundleError, match="parity"):
        Manifest.read(classic.directory)


# The log, and the stand-ins themselves


def test_a_module_has_one_log(install):
    one, other = install(), install("tensorrt_rtx")
    found = []
    threads = [threading.Thread(target=lambda: found.append(log_of(one))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1 and log_of(other) is not found[0]


def test_the_log_gives_errors_before_warnings_and_only_new_ones(install):
    trt = install()
    log, severity = TensorRtLog(trt), trt.ILogger.Severity
    log.logger.log(severity.ERROR, "an old one")
    mark = log.mark()
    assert log.since(mark) == "TensorRT gave no reason"
    log.logger.log(severity.INFO, "talk")
    log.logger.log(severity.WARNING, "a warning")
    assert log.since(mark) == "a warning"
    for text in ("first\n  line", "second", "second"):
        log.logger.log(severity.ERROR, text)
    log.logger.log(severity.INTERNAL_ERROR, "third")
    assert log.since(mark) == "first line; second; third"
    for number in range(1000):
        log.logger.log(severity.ERROR, f"number {number}")
    assert "number 999" in log.since(mark) and len(log.since(mark)) < 10_000  # it does not grow for ever


@pytest.fixture
def real_rtx(monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorrt_rtx")
    return pytest.importorskip("tensorrt_rtx")


def test_the_log_takes_the_real_tensorrts_words(real_rtx):
    log = log_of(real_rtx)
    mark = log.mark()
    assert real_rtx.Runtime(log.logger).deserialize_cuda_engine(b"no engine" * 20) is None
    assert "magicTag" in log.since(mark)


def test_the_stand_in_offers_what_the_real_tensorrt_has(real_rtx, machine):
    for name in ("tensorrt", "tensorrt_rtx"):
        module = stand_in.tensorrt(machine, name)
        kinds = stand_in.public_names(module)
        assert {"Runtime", "ICudaEngine", "IExecutionContext", "IRuntimeConfig", "ILogger"} <= set(kinds)
        for kind in kinds:
            real, fake = getattr(real_rtx, kind), getattr(module, kind)
            for attribute in stand_in.public_names(fake):
                assert hasattr(real, attribute), f"{kind}.{attribute}"
        assert all(hasattr(real_rtx.ILogger.Severity, severity.name) for severity in module.ILogger.Severity)
        for severity in module.ILogger.Severity:
            assert int(severity) == int(getattr(real_rtx.ILogger.Severity, severity.name))
        for kind in ("DataType", "TensorIOMode", "TensorLocation", "ExecutionContextAllocationStrategy"):
            assert all(hasattr(getattr(real_rtx, kind), member.name) for member in getattr(module, kind))


def test_the_stand_in_offers_what_the_real_cuda_core_has(machine):
    """By its type stubs: without a driver and its bindings it cannot be imported."""
    try:
        files = importlib.metadata.files("cuda-core")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("cuda-core is not installed")
    real = {}
    for file in files:
        if file.suffix in (".py", ".pyi") and "cu13" in file.parts and "system" not in file.parts:
            for node in ast.parse(file.locate().read_text()).body:
                if isinstance(node, ast.ClassDef):
                    real[node.name] = node
    assert {"ptr", "device_id", "readonly", "is_device_accessible"} <= {
        item.target.id for item in real["StridedMemoryView"].body if isinstance(item, ast.AnnAssign)
    }
    module = stand_in.cuda_core(machine)
    classes = [getattr(module, name) for name in stand_in.public_names(module) if name != "utils"]
    classes += [*module._graph_classes, module.utils.StridedMemoryView]
    assert len(classes) == 8
    for fake in classes:
        methods = _methods(real, fake.__name__)
        for name in stand_in.public_names(fake):
            assert name in methods, f"{fake.__name__}.{name}"
            attribute = vars(fake)[name]
            if isinstance(attribute, classmethod):
                attribute = attribute.__func__
            if isinstance(attribute, types.FunctionType):
                arguments = methods[name].args
                code = attribute.__code__
                taken = code.co_varnames[: code.co_argcount]
                assert taken == tuple(argument.arg for argument in arguments.args), name
                only_by_name = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
                assert only_by_name == tuple(argument.arg for argument in arguments.kwonlyargs), name


def _methods(real, name):
    """A stub class's own and inherited functions."""
    node = real[name]
    methods = {}
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in real:
            methods |= _methods(real, base.id)
    return methods | {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}
