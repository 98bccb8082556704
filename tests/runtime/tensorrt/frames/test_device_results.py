"""Results on the GPU: those of the host, until the next call."""

import copy
import dataclasses
import json
import pickle

import numpy as np
import pytest
from tensorrt_stand_in import BOXES, OUTPUTS, SIDE, frame_of, inputs, on_gpu, read, refused

from glnet_infer import BackendError, InputError, Meshes, MeshRecoverer
from glnet_infer.backends import DeviceOutputs
from glnet_infer.backends.tensorrt import TensorRtBackend
from glnet_infer.contract import CropSpec
from glnet_infer.crops import CropSquares


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
    """As where two threads share a backend against its documentation: what a call returns is its own, or over."""
    with TensorRtBackend(classic) as backend:
        run_frame, others = backend.run_frame, []

        def overtaken(frame, squares, cameras):
            outputs = run_frame(frame, squares, cameras)
            others.append(run_frame(frame_of(seed=1), *inputs(3, seed=1)))  # before the first call's meshes are made
            return outputs

        backend.run_frame = overtaken
        meshes = MeshRecoverer(classic.directory, backend)(frame_of(), BOXES)
        refused(lambda: meshes.device.vertices.__cuda_array_interface__, "no longer there")
        np.testing.assert_array_equal(read(machine, others[0].device.vertices), others[0]["vertices"])


def test_crops_that_are_cut_on_the_host_run_as_many_at_once_as_the_engine_takes(classic):
    with MeshRecoverer(classic.directory, "tensorrt") as recoverer:
        assert recoverer.batch_size == 6
        assert recoverer(np.zeros((80, 120, 3), np.uint8), np.tile(BOXES, (2, 1))[:6]).device is not None


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
    meshes.confidence[:] = 0.5  # the stand-in's is not from 0 to 1
    loaded = Meshes.load(meshes.save(tmp_path / "meshes.npz"))
    assert loaded.device is None
    np.testing.assert_array_equal(loaded.vertices, meshes.vertices)
    assert "device" not in json.loads(meshes.save(tmp_path / "meshes.json").read_text())
