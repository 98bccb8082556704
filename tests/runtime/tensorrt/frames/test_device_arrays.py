"""Arrays of the GPU as frames: cut where they lie, and refused in plain words where they cannot be."""

import contextlib
import gc
import weakref

import numpy as np
import pytest
import tensorrt_stand_in as stand_in
from tensorrt_stand_in import (
    BOXES,
    FRAME,
    HEIGHT,
    WIDTH,
    Tensor,
    bundle_of,
    frame_of,
    inputs,
    on_gpu,
    put,
    refused,
    right,
    tensor,
    ways,
)
from tensorrt_stand_in.cuda import OTHER_GPUS_STREAM

from glnet_infer import BackendError, InputError, MeshRecoverer
from glnet_infer.backends import FrameBackend
from glnet_infer.backends.tensorrt import TensorRtBackend
from glnet_infer.images import check_image


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
    assert max(size for source, target, size in ways(machine) if source != target and target == "device") <= 6 * 5 * 16
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


def test_arrays_of_another_gpu_are_refused_before_their_streams_are_touched(recoverer, machine):
    """An event of one GPU cannot be recorded on another one's stream, and CUDA's error would not say so."""
    array = tensor(machine, frame_of(), device_id=1)
    refused(lambda: recoverer(array, BOXES), "is on GPU 1", kind=InputError)
    assert not array.asked
    array = on_gpu(machine, frame_of(), stream=OTHER_GPUS_STREAM)
    machine.places[array.__cuda_array_interface__["data"][0]] = {"gpu": 1}
    refused(lambda: recoverer(array, BOXES), "is on GPU 1", "CUDA_VISIBLE_DEVICES", kind=InputError)


def test_arrays_of_another_context_are_refused(recoverer, machine):
    array = on_gpu(machine, frame_of())
    address = array.__cuda_array_interface__["data"][0]
    machine.places[address] = {"context": 0xA1}  # as pycuda.autoinit makes one
    refused(lambda: recoverer(array, BOXES), "another CUDA context", "pycuda.autoprimaryctx", kind=InputError)
    for place in ({"context": 0}, None):  # memory of pools belongs to no context; of some, CUDA says nothing
        machine.places[address] = place
        np.testing.assert_array_equal(recoverer(array, BOXES).vertices, recoverer(frame_of(), BOXES).vertices)


def test_a_detector_takes_no_arrays_of_the_gpu(classic, machine):
    with MeshRecoverer(classic.directory, "tensorrt", detector="none") as recoverer:
        array = on_gpu(machine, frame_of())
        assert len(recoverer(array, BOXES)) == len(BOXES)
        refused(
            lambda: recoverer(array), "came without boxes", "images of the host", "give the persons' boxes", kind=InputError
        )


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
