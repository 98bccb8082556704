"""Every failure of cutting crops on the GPU: what is said of it, and that nothing is left behind."""

import threading

import numpy as np
import pytest
from tensorrt_stand_in import bundle_of, crop_plan, frame_of, inputs, on_gpu, refused, right

from glnet_infer import BackendError, BundleError
from glnet_infer.backends.tensorrt import TensorRtBackend


@pytest.mark.parametrize(
    "trouble, words",
    [
        ("cut", ["does not cut 4 crops", "cut was told to fail"]),
        ("set_input_shape of frame", ["refuses frame of shape (64, 96, 3)", "was told to fail"]),
        ("set_input_shape of squares", ["refuses squares of shape (4, 5, 4)", "was told to fail"]),
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
        ({"profile": (1, 4, 8)}, ["its profile of squares is (1, 5, 4) to (8, 5, 4)", "(1, 5, 4) to (6, 5, 4)"]),
    ],
)
def test_a_crop_engine_of_another_bundle(machine, tmp_path, changes, words):
    bundle = bundle_of(tmp_path / "bundle", crop=crop_plan(**changes))
    refused(
        lambda: TensorRtBackend(bundle), "crop.tensorrt.engine is not of this bundle's graph", *words, "glnet-export engine"
    )
    assert not machine.memory


@pytest.mark.parametrize("damage, word", [(lambda p: p.unlink(), "is missing"), (lambda p: p.write_bytes(b"x"), "1 bytes")])
def test_a_damaged_crop_engine_is_not_given_to_tensorrt(classic, machine, damage, word):
    damage(classic.directory / "crop.tensorrt.engine")
    refused(lambda: TensorRtBackend(classic), word, kind=BundleError)
    assert len(machine.named("deserialize")) == 1 and not machine.memory


@pytest.mark.parametrize(
    "frame, squares, cameras, words",
    [
        (np.zeros((64, 96, 4), np.uint8), np.ones((2, 5, 4), np.float32), np.ones((2, 4), np.float32), ["(64, 96, 4)"]),
        (np.zeros((64, 96, 3), np.float32), np.ones((2, 5, 4), np.float32), np.ones((2, 4), np.float32), ["float32 (64"]),
        (np.zeros((64, 97, 3), np.uint8), np.ones((2, 5, 4), np.float32), np.ones((2, 4), np.float32), ["up to 96 x 64"]),
        (np.zeros((64, 15, 3), np.uint8), np.ones((2, 5, 4), np.float32), np.ones((2, 4), np.float32), ["from 16 on"]),
        (frame_of(), np.ones((2, 5, 4)), np.ones((2, 4), np.float32), ["squares is float64"]),
        (frame_of(), np.ones((2, 4), np.float32), np.ones((2, 4), np.float32), ["squares is float32 (2, 4)", "N x 5 x 4"]),
        (frame_of(), np.ones((2, 5, 4), np.float32), np.ones((3, 4), np.float32), ["cameras is float32 (3, 4)"]),
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
