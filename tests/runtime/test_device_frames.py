"""Crops cut on the GPU, and arrays of the GPU in and out, on stand-ins for TensorRT and cuda-core."""

import contextlib
import copy
import dataclasses
import gc
import json
import pickle
import sys
import threading
import weakref

import numpy as np
import pytest
import tensorrt_stand_in as stand_in
from tensorrt_stand_in import FRAME, OUTPUTS, SIDE, crop_plan, crop_record, engine_record, make_bundle

import glnet_infer.devices
from glnet_infer import BackendError, BundleError, InputError, Meshes, MeshRecoverer
from glnet_infer.backends import DeviceOutputs, FrameBackend
from glnet_infer.backends.tensorrt import TensorRtBackend
from glnet_infer.crops import CropSquares, cut_crops
from glnet_infer.devices import Gpu
from glnet_infer.images import check_image
from glnet_infer.manifest import CropSpec, Manifest

WIDTH, HEIGHT = FRAME
CROP_BYTES = SIDE * SIDE * 3


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with an L4, cuda-core and both TensorRTs."""
    machine = stand_in.Machine()
    monkeypatch.setattr(glnet_infer.devices, "gpus", lambda: [Gpu("NVIDIA L4", "8.9")])
    monkeypatch.setitem(sys.modules, "cuda.core", stand_in.cuda_core(machine))
    monkeypatch.setitem(sys.modules, "tensorrt_lean", None)
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in.tensorrt(machine))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", stand_in.tensorrt(machine, "tensorrt_rtx", "1.7.1.116"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return machine


def bundle_of(directory, flavor="tensorrt", crop=True, **values):
    directory.mkdir()
    if crop:
        values["crop"] = crop_record(directory, None if crop is True else crop, flavor=flavor)
    return make_bundle(directory, engine_record(directory, flavor=flavor, **values))


@pytest.fixture
def classic(machine, tmp_path):
    return bundle_of(tmp_path / "bundle")


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def either(request, machine, tmp_path):
    return bundle_of(tmp_path / "bundle", request.param)


def frame_of(width=WIDTH, height=HEIGHT, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def inputs(count, width=WIDTH, height=HEIGHT, seed=0):
    """Squares and cameras of boxes inside and over the edges."""
    generator = np.random.default_rng(seed)
    corners = generator.uniform(-0.2, 0.7, (count, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(0.2, 0.9, (count, 2))], axis=1)
    squares = CropSquares.around(boxes * [width, height, width, height], CropSpec(SIDE))
    return squares.in_frame(width, height), generator.normal(size=(count, 4)).astype(np.float32)


BOXES = np.array([[5.0, 3, 40, 60], [-10, 20, 30, 70], [50, -5, 110, 40], [2, 2, 8, 9], [-90, -90, 200, 200]])


def right(outputs, frame, squares, cameras):
    expected = stand_in.results(stand_in.cut(frame, squares), cameras)
    assert list(outputs) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(outputs[name], values, err_msg=name)


def refused(call, *words, kind=BackendError):
    with pytest.raises(kind) as error:
        call()
    for word in words:
        assert word in str(error.value), str(error.value)
    assert error.value.what and error.value.why and error.value.fix
    return error.value


def ways(machine):
    """Copies between host and device, as (from, to, bytes)."""
    return [event[1:] for event in machine.named("copy")]


# Crops cut on the GPU


def test_the_stand_in_cuts_what_the_library_cuts():
    frame, squares = frame_of(), CropSquares.around(BOXES, CropSpec(SIDE))
    found = stand_in.cut(frame, squares.in_frame(WIDTH, HEIGHT)).astype(int)
    assert np.abs(found - cut_crops(frame, squares)).max() <= 1


@pytest.mark.parametrize("count", [0, 1, 3, 6, 13])
def test_crops_are_handed_out_to_look_at(either, machine, count):
    frame, (squares, cameras) = frame_of(), inputs(count)
    there, expected = tensor(machine, frame), stand_in.cut(frame, squares)
    foreign = set(machine.memory)
    with TensorRtBackend(either) as backend:
        before = backend.run_frame(frame_of(seed=1), *inputs(2, seed=1))
        np.testing.assert_array_equal(backend.cut(frame, squares), expected)
        np.testing.assert_array_equal(backend.cut(backend.view(there), squares), expected)
        # Nothing was run, so earlier results are still there.
        np.testing.assert_array_equal(read(machine, before.device.vertices), before["vertices"])
        refused(lambda: backend.cut(frame, squares.astype(np.float64)), "squares is float64")
        refused(lambda: backend.cut(frame_of(15, 40), squares), "cannot cut crops from this frame")
        machine.trouble = {"cut"} if count else set()
        with contextlib.suppress(BackendError):
            backend.cut(frame, squares)
            assert count == 0
        machine.trouble = set()
        if count:
            right(backend.run_frame(frame, squares, cameras), frame, squares, cameras)
    assert set(machine.memory) == foreign


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 7, 13])
def test_every_row_is_its_squares(either, machine, count, graphs):
    with TensorRtBackend(either, cuda_graphs=graphs) as backend:
        for seed in range(3):  # the second time the graphs are there
            frame, (squares, cameras) = frame_of(seed=seed), inputs(count, seed=seed)
            machine.events.clear()
            right(backend.run_frame(frame, squares, cameras), frame, squares, cameras)
            buckets = [6] * (count // 6) + ([min(size for size in (1, 2, 4, 6) if size >= count % 6)] if count % 6 else [])
            assert [event[1:] for event in machine.named("cut")] == [(bucket, (HEIGHT, WIDTH)) for bucket in buckets]


def test_both_ways_take_turns(either):
    with TensorRtBackend(either) as backend:
        for seed, count in enumerate((2, 5, 2, 7, 1, 5)):
            frame, (squares, cameras) = frame_of(seed=seed), inputs(count, seed=seed)
            right(backend.run_frame(frame, squares, cameras), frame, squares, cameras)
            crops = np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
            expected = stand_in.results(crops, cameras)
            for name, values in backend.run(crops, cameras).items():
                np.testing.assert_array_equal(values, expected[name])


def test_a_recoverer_cuts_on_the_gpu(either, machine):
    frame = frame_of()
    with MeshRecoverer(either.directory, "tensorrt", batch_size=2) as recoverer:
        found = recoverer(frame, BOXES)
    assert len(machine.named("cut")) == 1  # all boxes at once: the engine bounds the memory
    squares = CropSquares.around(BOXES, CropSpec(SIDE))
    expected = stand_in.results(cut_crops(frame, squares), squares.cameras(found.intrinsics))
    for name in ("vertices", "joints", "betas", "confidence"):
        np.testing.assert_allclose(getattr(found, name), expected[name], rtol=0.01, atol=1)
    assert np.ptp(found.confidence) > 2  # rows differ by more than that


@pytest.mark.parametrize("size", [(WIDTH + 1, HEIGHT), (WIDTH, HEIGHT + 1), (HEIGHT, WIDTH), (15, 40), (40, 15)])
def test_frames_that_the_engine_was_not_built_for_are_cut_on_the_cpu(classic, machine, size):
    frame, boxes = frame_of(*size), [[1.0, 2, 12, 14]]
    with MeshRecoverer(classic.directory, "tensorrt") as recoverer:
        found = recoverer(frame, boxes)
    assert not machine.named("cut")
    squares = CropSquares.around(np.array(boxes), CropSpec(SIDE))
    expected = stand_in.results(cut_crops(frame, squares), squares.cameras(found.intrinsics))
    np.testing.assert_array_equal(found.vertices, expected["vertices"])


@pytest.mark.parametrize("size", [FRAME, (16, 16), (WIDTH, 16)])
def test_frames_at_the_bounds_are_cut_on_the_gpu(classic, machine, size):
    with MeshRecoverer(classic.directory, "tensorrt") as recoverer:
        recoverer(frame_of(*size), [[1.0, 2, 12, 14]])
    assert [event[2] for event in machine.named("cut")] == [size[::-1]]


def test_no_boxes_are_no_work(classic, machine):
    with MeshRecoverer(classic.directory, "tensorrt") as recoverer:
        machine.events.clear()
        meshes = recoverer(frame_of(), np.zeros((0, 4)))
    assert len(meshes) == 0 and meshes.device is None and not machine.named("cut", "execute", "copy")


def test_without_a_crop_engine_crops_are_cut_on_the_cpu(machine, tmp_path):
    bundle = bundle_of(tmp_path / "bundle", crop=False)
    with MeshRecoverer(bundle.directory, "tensorrt") as recoverer:
        assert len(recoverer(frame_of(), BOXES)) == 5
    assert not machine.named("cut")


def test_the_frame_goes_up_once_and_crops_never(classic, machine):
    with TensorRtBackend(classic) as backend:
        backend.run_frame(frame_of(), *inputs(13))
        machine.events.clear()
        backend.run_frame(frame_of(), *inputs(13))
        order = [event[0] for event in machine.events if event[0] != "shape"]
    frame, squares = ("host", "device", WIDTH * HEIGHT * 3), ("host", "device", 6 * 16)
    assert ways(machine) == [frame, squares, squares, ("host", "device", 16)]
    # One launch for each piece: cameras, engine and results are in the graph.
    assert order == ["copy", *["copy", "cut", "launch", "sync"] * 3]


def test_the_captured_graph_has_no_upload_of_crops(classic, machine):
    with TensorRtBackend(classic) as backend:
        machine.events.clear()
        backend.run_frame(frame_of(), *inputs(3))
        names = [event[0] for event in machine.events if event[0] != "shape"]
        first = names.index("begin")
        assert names[first : names.index("end") + 1] == ["begin", "copy", "execute", *["copy"] * len(OUTPUTS), "end"]
        assert names[first - 1] == "sync"  # the first run is plain, and waited for
        assert ("host", "device", 4 * CROP_BYTES) not in ways(machine)


def test_each_bucket_has_a_graph_and_a_context_for_each_way(classic, machine):
    with TensorRtBackend(classic) as backend:
        for _ in range(2):
            for count in (1, 3):
                squares, cameras = inputs(count)
                backend.run_frame(frame_of(), squares, cameras)
                backend.run(np.zeros((count, SIDE, SIDE, 3), np.uint8), cameras)
        assert len(machine.named("begin")) == 4
        mains = [context for context in machine.contexts if "frame" not in context._addresses]
        assert len(mains) == 5 and len(machine.contexts) == 6  # the session's first one, for the largest batch


def test_crops_are_written_where_the_main_engine_reads_them(either, machine):
    with TensorRtBackend(either) as backend:
        backend.run_frame(frame_of(), *inputs(3))
        assert len({context._addresses["crops"] for context in machine.contexts}) == 1
        kind, array = machine.memory[machine.contexts[0]._addresses["crops"]]
        assert kind == "device" and array.size > 6 * CROP_BYTES  # and what TensorRT may write beyond


def test_rtx_does_not_capture_the_crop_engine(machine, tmp_path):
    with TensorRtBackend(bundle_of(tmp_path / "bundle", "tensorrt-rtx")):
        assert [config.cuda_graph_strategy.name for config in machine.configs] == ["WHOLE_GRAPH_CAPTURE", "DISABLED"]


def test_rtx_keeps_the_kernels_of_both_engines(machine, tmp_path):
    bundle = bundle_of(tmp_path / "bundle", "tensorrt-rtx")
    with TensorRtBackend(bundle) as backend:
        backend.run_frame(frame_of(), *inputs(2))
    (record,) = bundle.manifest.engines
    assert sorted(path.name for path in (bundle.directory / "cache").iterdir()) == sorted(
        f"{file.sha256[:16]}.nvidia-l4.cache" for file in (record.file, record.crop.file)
    )


def test_buffers_grow_with_the_frame_and_are_used_again(classic, machine):
    small, large = 40 * 30 * 3, WIDTH * HEIGHT * 3
    with TensorRtBackend(classic) as backend:
        before = {kind: machine.sizes(kind) for kind in ("device", "host")}
        for size, expected in (((40, 30), small), (FRAME, large), ((40, 30), large), ((20, 60), large)):
            frame, (squares, cameras) = frame_of(*size), inputs(2, *size)
            right(backend.run_frame(frame, squares, cameras), frame, squares, cameras)
            for kind, sizes in before.items():
                assert machine.sizes(kind) == sorted([*sizes, expected])
    assert not machine.memory


def test_a_frame_of_other_memory_order_is_cut_as_it_reads(classic):
    frame = frame_of(2 * WIDTH, HEIGHT)[::-1, ::2]
    squares, cameras = inputs(2)
    with TensorRtBackend(classic) as backend:
        right(backend.run_frame(frame, squares, cameras), frame, squares, cameras)


def test_padding_before_the_first_batch_is_the_whole_frame(classic):
    with TensorRtBackend(classic) as backend:
        assert (backend._cropper.squares == (0, 0, 1, 1)).all()


def test_clones_cut_with_one_engine(either, machine):
    with TensorRtBackend(either) as first, first.clone() as second:
        assert len(machine.named("deserialize")) == 2
        for seed, backend in enumerate((first, second, first)):
            frame, (squares, cameras) = frame_of(seed=seed), inputs(3, seed=seed)
            right(backend.run_frame(frame, squares, cameras), frame, squares, cameras)
    assert first._engine.crop._engine is None and not machine.memory and not machine.streams


# Failures


@pytest.mark.parametrize(
    "trouble, words",
    [
        ("cut", ["does not cut 4 crops", "cut was told to fail"]),
        ("set_input_shape of frame", ["refuses 4 frame", "was told to fail"]),
        ("set_input_shape of squares", ["refuses 4 squares", "was told to fail"]),
        ("set_tensor_address", ["refuses the buffer of frame", "was told to fail"]),
        ("infer_shapes raises", ["no shapes for 4 crops", "the very words"]),
        ("execute_async_v3", ["execute_async_v3 was told to fail"]),
        ("allocate host", ["pinned memory", "CUDA_ERROR_OUT_OF_MEMORY"]),
        ("allocate device", ["on the GPU", "CUDA_ERROR_OUT_OF_MEMORY"]),
        ("copy", ["CUDA failed to copy"]),
        ("sync", ["finish the work", "CUDA_ERROR_LAUNCH_FAILED"]),
    ],
)
def test_what_is_refused_in_a_run(either, machine, trouble, words):
    frame, (squares, cameras) = frame_of(), inputs(3)
    with TensorRtBackend(either) as backend:
        small, (few, their) = frame_of(20, 20), inputs(1, 20, 20)
        backend.run_frame(small, few, their)
        machine.trouble = {trouble}
        refused(lambda: backend.run_frame(frame, squares, cameras), *words)
        machine.trouble = set()
        right(backend.run_frame(small, few, their), small, few, their)
        right(backend.run_frame(frame, squares, cameras), frame, squares, cameras)
    assert not machine.memory


@pytest.mark.parametrize(
    "trouble", ["deserialize_cuda_engine", "create_execution_context", "set_input_shape of frame", "allocate device"]
)
def test_what_is_refused_at_the_start_leaves_nothing(either, machine, trouble):
    machine.trouble = {trouble}
    refused(lambda: TensorRtBackend(either), "CUDA_ERROR_OUT_OF_MEMORY" if "allocate" in trouble else "was told to fail")
    assert not machine.memory and not machine.streams


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"frame": {"dtype": "FLOAT"}}, ["frame is FLOAT, not uint8"]),
        ({"frame": {"shape": [-1, -1, 4]}}, ["frame is (-1, -1, 4), not (-1, -1, 3)"]),
        ({"squares": {"mode": "OUTPUT"}}, ["squares is not an input"]),
        ({"crops": {"shape": [-1, 64, 64, 3]}}, ["crops is (-1, 64, 64, 3), not (-1, 32, 32, 3)"]),
        ({"largest": (640, 480)}, ["its profile of frame is (16, 16, 3) to (480, 640, 3)", "to (64, 96, 3)"]),
        ({"profile": (1, 4, 8)}, ["its profile of squares is (1, 4) to (8, 4)", "(1, 4) to (6, 4)"]),
    ],
)
def test_a_crop_engine_of_another_bundle(machine, tmp_path, changes, words):
    bundle = bundle_of(tmp_path / "bundle", crop=crop_plan(**changes))
    refused(lambda: TensorRtBackend(bundle), "crop.tensorrt.engine is not of this bundle's graph", *words, "--trt")
    assert not machine.memory


@pytest.mark.parametrize("damage, word", [(lambda p: p.unlink(), "is missing"), (lambda p: p.write_bytes(b"x"), "1 bytes")])
def test_a_damaged_crop_engine_is_not_given_to_tensorrt(classic, machine, damage, word):
    damage(classic.directory / "crop.tensorrt.engine")
    refused(lambda: TensorRtBackend(classic), word, kind=BundleError)
    assert len(machine.named("deserialize")) == 1 and not machine.memory


@pytest.mark.parametrize(
    "frame, squares, cameras, words",
    [
        (np.zeros((64, 96, 4), np.uint8), np.ones((2, 4), np.float32), np.ones((2, 4), np.float32), ["(64, 96, 4)"]),
        (np.zeros((64, 96, 3), np.float32), np.ones((2, 4), np.float32), np.ones((2, 4), np.float32), ["float32 (64"]),
        (np.zeros((64, 97, 3), np.uint8), np.ones((2, 4), np.float32), np.ones((2, 4), np.float32), ["up to 96 x 64"]),
        (np.zeros((64, 15, 3), np.uint8), np.ones((2, 4), np.float32), np.ones((2, 4), np.float32), ["from 16 on"]),
        (frame_of(), np.ones((2, 4)), np.ones((2, 4), np.float32), ["squares is float64"]),
        (frame_of(), np.ones((2, 3), np.float32), np.ones((2, 4), np.float32), ["squares is float32 (2, 3)"]),
        (frame_of(), np.ones((2, 4), np.float32), np.ones((3, 4), np.float32), ["cameras is float32 (3, 4)"]),
    ],
)
def test_arrays_that_are_not_the_crop_engines_inputs(classic, machine, frame, squares, cameras, words):
    with TensorRtBackend(classic) as backend:
        refused(lambda: backend.run_frame(frame, squares, cameras), *words)
        assert not machine.named("cut")


def test_a_backend_without_a_crop_engine_says_so(machine, tmp_path):
    with TensorRtBackend(bundle_of(tmp_path / "bundle", crop=False)) as backend:
        assert "no crop engine" in backend.frame_obstacle(64, 64)
        refused(lambda: backend.run_frame(frame_of(), *inputs(1)), "no crop engine")


def test_a_second_thread_is_refused(classic, machine):
    with TensorRtBackend(classic, cuda_graphs=False) as backend:
        running, may_end = threading.Event(), threading.Event()

        def wait():
            running.set()
            assert may_end.wait(5)

        machine.during_execution = wait
        first = threading.Thread(target=lambda: backend.run_frame(frame_of(), *inputs(2)))
        first.start()
        assert running.wait(5)
        refused(lambda: backend.run_frame(frame_of(), *inputs(2)), "running in another thread")
        refused(lambda: backend.view(on_gpu(machine, frame_of())), "running in another thread")
        may_end.set()
        first.join()


def test_running_after_closing(classic):
    backend = TensorRtBackend(classic)
    backend.run_frame(frame_of(), *inputs(1))
    backend.close()
    with pytest.raises(BackendError, match="is closed"):
        backend.run_frame(frame_of(), *inputs(1))


# Frames of the GPU


class Interface:
    """An array that speaks ``__cuda_array_interface__``, as PyCUDA's do."""

    def __init__(self, **interface):
        self.__cuda_array_interface__ = interface


class Tensor:
    """An array that speaks DLPack alone."""

    def __init__(self, machine, **values):
        self._machine, self._values, self.asked = machine, values, []

    def __dlpack_device__(self):
        return 2, self._values["device_id"]

    def __dlpack__(self, *, stream=None, max_version=None):
        self.asked.append(stream)
        self._machine.wait(stream, "torch")
        return self._values


def put(machine, frame, offset=0, stream=None, kind="device"):
    """The address of a frame that another library makes on a stream of its own, or has made."""
    address = machine.new(kind, frame.size + offset) + offset

    def work():
        machine.at(address, frame.size)[:] = frame.ravel()

    if stream is None:
        work()
    else:
        machine.foreign.append((stream, work))
    return address


def on_gpu(machine, frame, offset=0, stream=None, kind="device", **changes):
    address = put(machine, frame, offset, stream, kind)
    interface = {"shape": frame.shape, "typestr": frame.dtype.str, "data": (address, False), "strides": None}
    return Interface(**{**interface, "stream": stream, "version": 3, **changes})


def tensor(machine, frame, **changes):
    values = {"shape": frame.shape, "dtype": frame.dtype, "strides": None, "device_id": 0, "readonly": False}
    return Tensor(machine, **{"address": put(machine, frame, stream="torch"), **values, **changes})


@pytest.fixture
def recoverer(classic):
    with MeshRecoverer(classic.directory, "tensorrt") as recoverer:
        yield recoverer


@pytest.mark.parametrize("stream", [None, 1, 2, 0x7F00])
@pytest.mark.parametrize("offset", [0, 96 * 3])
def test_a_frame_of_the_gpu_is_cut_where_it_lies(recoverer, machine, stream, offset):
    frame = frame_of(seed=4)
    expected = recoverer(frame, BOXES)
    machine.events.clear()
    found = recoverer(on_gpu(machine, frame, offset, stream), BOXES)
    np.testing.assert_array_equal(found.vertices, expected.vertices)
    np.testing.assert_array_equal(found.keypoints_2d, expected.keypoints_2d)
    assert found.image_size == FRAME
    assert machine.named("wait") == ([] if stream is None else [("wait", stream)])
    # Nothing but squares and cameras goes up. TensorRT takes addresses of whole 256 bytes; others are copied on the GPU.
    assert max(size for source, target, size in ways(machine) if source != target and target == "device") <= 6 * 16
    assert [way for way in ways(machine) if way[0] == way[1]] == ([("device", "device", frame.size)] if offset else [])


def test_a_frame_that_speaks_dlpack(recoverer, machine):
    frame = frame_of(seed=5)
    expected = recoverer(frame, BOXES)
    array = tensor(machine, frame, strides=(WIDTH * 3, 3, 1))
    np.testing.assert_array_equal(recoverer(array, BOXES).vertices, expected.vertices)
    assert array.asked == [recoverer._backend._memory.stream]  # so that its library keeps the order


def test_a_read_only_frame_is_read(recoverer, machine):
    frame = frame_of(seed=6)
    address = put(machine, frame)
    found = recoverer(on_gpu(machine, frame, data=(address, True)), BOXES)
    np.testing.assert_array_equal(found.vertices, recoverer(frame, BOXES).vertices)
    np.testing.assert_array_equal(machine.at(address, frame.size), frame.ravel())


def test_frames_of_host_and_gpu_take_turns(recoverer, machine):
    for seed in range(3):
        frame = frame_of(seed=seed)
        left, right = recoverer(on_gpu(machine, frame), BOXES), recoverer(frame, BOXES)
        np.testing.assert_array_equal(left.vertices, right.vertices)


def test_a_frame_of_the_gpu_needs_no_buffer_of_ours(recoverer, machine):
    before = {kind: machine.sizes(kind) for kind in ("device", "host")}
    recoverer(on_gpu(machine, frame_of()), BOXES)
    assert machine.sizes("host") == before["host"] and len(machine.sizes("device")) == len(before["device"]) + 1


def test_a_view_keeps_the_frame_and_no_longer_than_it_lives(classic, machine):
    frame, (squares, cameras) = frame_of(), inputs(3)
    array = on_gpu(machine, frame)
    address = array.__cuda_array_interface__["data"][0]
    # As an array of a library would, it takes its memory back when nobody holds on to it.
    gone = weakref.finalize(array, lambda: machine.memory.pop(address))
    with TensorRtBackend(classic, cuda_graphs=False) as backend:
        view = backend.view(array)
        del array
        gc.collect()
        assert gone.alive
        right(backend.run_frame(view, squares, cameras), frame, squares, cameras)
        del view
        gc.collect()
        assert not gone.alive


def test_nothing_that_would_read_the_frame_is_left_after_a_failure(classic, machine):
    with TensorRtBackend(classic, cuda_graphs=False) as backend:
        view = backend.view(on_gpu(machine, frame_of()))
        machine.trouble = {"execute_async_v3"}  # after the crop engine was queued
        with contextlib.suppress(BackendError):
            backend.run_frame(view, *inputs(3))
        (stream,) = machine.streams.values()
        assert not stream._pending


@pytest.mark.parametrize(
    "shape, changes, words",
    [
        ((64, 96), {}, ["shape (64, 96)", "permute"]),
        ((3, 64, 96), {}, ["shape (3, 64, 96)", "permute(1, 2, 0)"]),
        ((1, 64, 96, 3), {}, ["one at a time"]),
        ((64, 96, 4), {}, ["shape (64, 96, 4)"]),
        ((64, 96, 3), {"typestr": "<f4"}, ["type float32", "uint8"]),
        ((64, 96, 3), {"strides": (3 * 64 * 2, 3, 1)}, ["not C-contiguous", "contiguous()"]),
        ((64, 96, 3), {"strides": (1, 64, 64 * 96)}, ["not C-contiguous"]),
        ((64, 96, 3), {"version": 2}, ["was not taken", "v3"]),
        ((64, 96, 3), {"stream": 0}, ["was not taken"]),
        ((64, 96, 3), {"mask": object()}, ["was not taken", "mask"]),
        ((64, 97, 3), {}, ["cannot cut crops", "up to 96 x 64", "--frame"]),
        ((64, 15, 3), {}, ["cannot cut crops", "from 16 on"]),
    ],
)
def test_arrays_of_the_gpu_that_are_not_taken(recoverer, machine, shape, changes, words):
    array = on_gpu(machine, np.zeros(shape, np.uint8), **changes)
    error = refused(lambda: recoverer(array, BOXES), *words, kind=InputError)
    assert "copy" in error.fix or "convert" in error.fix
    assert not machine.named("cut")
    recoverer(frame_of(), BOXES)


def test_contiguous_strides_may_be_said(recoverer, machine):
    frame = frame_of()
    found = recoverer(on_gpu(machine, frame, strides=(WIDTH * 3, 3, 1)), BOXES)
    np.testing.assert_array_equal(found.vertices, recoverer(frame, BOXES).vertices)


def test_arrays_elsewhere_are_not_taken(recoverer, machine):
    refused(lambda: recoverer(tensor(machine, frame_of(), device_id=1), BOXES), "is on GPU 1", kind=InputError)
    refused(lambda: recoverer(on_gpu(machine, frame_of(), kind="host"), BOXES), "not on this backend", kind=InputError)
    refused(lambda: recoverer(on_gpu(machine, frame_of(), data=(64, False)), BOXES), "was not taken", kind=InputError)


def test_a_bundle_without_a_crop_engine_takes_no_arrays_of_the_gpu(machine, tmp_path):
    with MeshRecoverer(bundle_of(tmp_path / "bundle", crop=False).directory, "tensorrt") as recoverer:
        error = refused(lambda: recoverer(on_gpu(machine, frame_of()), BOXES), "no crop engine", kind=InputError)
    assert "glnet-export" in error.fix and "copy it to the host" in error.fix


class HostBackend:
    """A backend that knows crops alone, as ONNX Runtime's and PyTorch's."""

    name = "onnxruntime-cpu"

    def run(self, crops, cameras):
        return stand_in.results(crops, cameras)

    def close(self):
        pass


def test_other_backends_refuse_arrays_of_the_gpu(classic, machine):
    recoverer = MeshRecoverer(classic.directory, HostBackend())
    assert not isinstance(HostBackend(), FrameBackend)
    for array in (on_gpu(machine, frame_of()), tensor(machine, frame_of())):
        error = refused(
            lambda array=array: recoverer(array, BOXES), "onnxruntime-cpu takes images of the host", kind=InputError
        )
        assert "tensorrt" in error.fix and ".cpu().numpy()" in error.fix and ".get()" in error.fix
    meshes = recoverer(frame_of(), BOXES)
    assert meshes.device is None


def test_the_shipped_backends_are_what_they_are_taken_for():
    from glnet_infer.backends.onnxruntime import OnnxRuntimeBackend

    for method in ("frame_obstacle", "view", "run_frame", "cut"):
        assert hasattr(TensorRtBackend, method) and not hasattr(OnnxRuntimeBackend, method)


def test_overlay_needs_an_image_of_the_host(recoverer, machine):
    meshes = recoverer(on_gpu(machine, frame_of()), BOXES)
    error = refused(lambda: meshes.overlay(on_gpu(machine, frame_of())), "on the GPU", kind=InputError)
    assert "copy it to the host" in error.fix


class CpuTensor:
    def __dlpack_device__(self):
        return 1, 0

    def __dlpack__(self, **_):
        raise AssertionError("nobody asked")


class GradientTensor(Tensor):
    @property
    def __cuda_array_interface__(self):
        raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad.")


def test_a_tensor_that_requires_gradients_is_refused_in_our_words(recoverer, machine):
    values = {"shape": (HEIGHT, WIDTH, 3), "dtype": np.dtype("f4"), "strides": None, "device_id": 0, "readonly": False}
    array = GradientTensor(machine, address=put(machine, frame_of()), **values)
    refused(lambda: recoverer(array, BOXES), "type float32", kind=InputError)


def test_arrays_of_the_host_are_not_taken_for_the_gpus(recoverer):
    with pytest.raises(InputError, match="is a CpuTensor"):
        recoverer(CpuTensor(), BOXES)
    frame = frame_of()
    assert check_image(frame) is frame  # NumPy's arrays speak DLPack too


# Results on the GPU


def read(machine, view):
    interface = view.__cuda_array_interface__
    assert interface["version"] == 3 and interface["stream"] is None and interface["strides"] is None
    address, readonly = interface["data"]
    assert not readonly and interface["shape"] == view.shape
    dtype = np.dtype(interface["typestr"])
    size = int(np.prod(view.shape)) * dtype.itemsize
    return machine.at(address, size).view(dtype).reshape(view.shape)


@pytest.mark.parametrize("count", [1, 3, 6])
def test_results_on_the_gpu_are_those_of_the_host(either, machine, count):
    with TensorRtBackend(either) as backend:
        for call in (
            lambda: backend.run_frame(frame_of(), *inputs(count)),
            lambda: backend.run(np.ones((count, SIDE, SIDE, 3), np.uint8), inputs(count)[1]),
        ):
            outputs = call()
            assert isinstance(outputs, DeviceOutputs)
            for spec in OUTPUTS:
                view = getattr(outputs.device, spec.name)
                assert view.dtype == spec.dtype and view.shape == (count, *spec.shape[1:])
                np.testing.assert_array_equal(read(machine, view), outputs[spec.name], err_msg=spec.name)
                assert view.__dlpack_device__() == (2, 0) and "DeviceArray" in repr(view)
                exported = view.__dlpack__(stream=7, max_version=(1, 0))
                assert (exported["address"], exported["shape"], exported["dtype"], exported["strides"]) == (
                    view.__cuda_array_interface__["data"][0],
                    view.shape,
                    view.dtype,
                    None,
                )
        assert [field.name for field in dataclasses.fields(outputs.device)] == [spec.name for spec in OUTPUTS]


def test_meshes_hand_them_out(recoverer, machine):
    meshes = recoverer(frame_of(), BOXES)
    np.testing.assert_array_equal(read(machine, meshes.device.vertices), meshes.vertices)
    squares = CropSquares.around(BOXES, CropSpec(SIDE))
    in_image = squares.to_image(read(machine, meshes.device.keypoints_2d))  # the GPU's are pixels of the crop
    np.testing.assert_allclose(in_image, meshes.keypoints_2d, rtol=1e-6)


@pytest.mark.parametrize(
    "after",
    [
        lambda recoverer, machine: recoverer(frame_of(), BOXES),
        lambda recoverer, machine: recoverer(np.zeros((80, 120, 3), np.uint8), BOXES),
        lambda recoverer, machine: recoverer.close(),
    ],
)
def test_results_on_the_gpu_end_with_the_next_call(recoverer, machine, after):
    device = recoverer(frame_of(), BOXES).device
    read(machine, device.vertices)
    after(recoverer, machine)
    for view in (device.vertices, device.confidence):
        for use in (
            lambda view=view: view.__cuda_array_interface__,
            lambda view=view: view.__dlpack__(),
            lambda view=view: view.__dlpack_device__(),
        ):
            refused(use, "no longer there", "the backend was c")


def test_results_end_with_a_call_that_fails(recoverer, machine):
    device = recoverer(frame_of(), BOXES).device
    machine.trouble = {"execute_async_v3"}
    with pytest.raises(BackendError):
        recoverer(frame_of(), BOXES)
    machine.trouble = set()
    refused(lambda: device.vertices.__cuda_array_interface__, "called again")


def test_a_frame_that_is_refused_ends_nothing(recoverer, machine):
    meshes = recoverer(frame_of(), BOXES)
    with pytest.raises(InputError):
        recoverer(on_gpu(machine, frame_of().astype(np.float32)), BOXES)
    np.testing.assert_array_equal(read(machine, meshes.device.vertices), meshes.vertices)


def test_numpy_does_not_make_an_object_of_results_on_the_gpu(recoverer):
    device = recoverer(frame_of(), BOXES).device
    refused(lambda: np.asarray(device.vertices), "on the GPU", "host")


def test_meshes_are_copied_and_pickled_without_what_is_on_the_gpu(recoverer):
    meshes = recoverer(frame_of(), BOXES)
    for other in (pickle.loads(pickle.dumps(meshes)), copy.deepcopy(meshes)):
        assert other.device is None and meshes.device is not None
        np.testing.assert_array_equal(other.vertices, meshes.vertices)
        assert other.intrinsics == meshes.intrinsics and other.backend == meshes.backend


def test_a_clones_call_ends_nothing(classic, machine):
    with TensorRtBackend(classic) as first, first.clone() as second:
        outputs = first.run_frame(frame_of(), *inputs(2))
        second.run_frame(frame_of(seed=1), *inputs(2, seed=1))
        np.testing.assert_array_equal(read(machine, outputs.device.vertices), outputs["vertices"])


def test_outputs_never_come_with_another_calls_results(classic, machine):
    # Two threads that share a backend against its documentation: what a call returns is its own, or over.
    with TensorRtBackend(classic) as backend:
        first = backend.run_frame(frame_of(), *inputs(2))
        second = backend.run_frame(frame_of(seed=1), *inputs(3, seed=1))
        refused(lambda: first.device.vertices.__cuda_array_interface__, "no longer there")
        np.testing.assert_array_equal(read(machine, second.device.vertices), second["vertices"])


def test_several_pieces_have_no_results_on_the_gpu(classic, machine):
    boxes = np.tile(BOXES, (3, 1))
    with MeshRecoverer(classic.directory, "tensorrt", batch_size=2) as recoverer:
        assert recoverer(frame_of(), boxes[:6]).device is not None
        meshes = recoverer(frame_of(), boxes[:7])  # more than the engine takes
        assert meshes.device is None and len(meshes) == 7
        assert recoverer(np.zeros((80, 120, 3), np.uint8), boxes[:2]).device is not None
        assert recoverer(np.zeros((80, 120, 3), np.uint8), boxes[:3]).device is None  # two calls


def test_results_on_the_gpu_are_not_saved(recoverer, tmp_path):
    meshes = recoverer(frame_of(), BOXES)
    assert meshes.device is not None
    loaded = Meshes.load(meshes.save(tmp_path / "meshes.npz"))
    assert loaded.device is None
    np.testing.assert_array_equal(loaded.vertices, meshes.vertices)
    assert "device" not in json.loads(meshes.save(tmp_path / "meshes.json").read_text())


# The manifest's record


def test_records_survive_the_file(classic):
    assert Manifest.read(classic.directory) == classic.manifest
    assert classic.manifest.engines[0].crop.largest_frame == FRAME


def changed(bundle, change):
    path = bundle.directory / "manifest.json"
    document = json.loads(path.read_text())
    change(document["engines"][0])
    path.write_text(json.dumps(document))
    return Manifest.read(bundle.directory)


@pytest.mark.parametrize("change", [lambda entry: entry.pop("crop"), lambda entry: entry.update(crop=None)])
def test_manifests_of_earlier_versions_have_none(classic, change):
    assert changed(classic, change).engines[0].crop is None


def test_records_may_hold_more(classic):
    assert changed(classic, lambda entry: entry["crop"].update(from_the_future=1)) == classic.manifest


@pytest.mark.parametrize(
    "key, value",
    [
        ("largest_frame", [96]),
        ("largest_frame", [96, 64, 3]),
        ("largest_frame", [96, 15]),
        ("largest_frame", [96.0, 64]),
        ("largest_frame", ["96", "64"]),
        ("largest_frame", None),
        ("file", {"file": "../crop.engine", "sha256": "", "bytes": 1}),
        ("file", None),
    ],
)
def test_records_that_cannot_be_used(classic, key, value):
    with pytest.raises(BundleError, match="is damaged"):
        changed(classic, lambda entry: entry["crop"].update({key: value}))
