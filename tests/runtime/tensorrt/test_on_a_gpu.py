"""The engine runtime on a real GPU: the same results as ONNX Runtime, from graphs, for long, in several threads."""

import ctypes
import functools
import os
import subprocess
import sys
import threading
import types
from pathlib import Path

import cv2
import numpy as np
import pytest

from glnet_infer import BackendError, MeshRecoverer
from glnet_infer.backends import open_backend
from glnet_infer.backends.tensorrt import TensorRtBackend
from glnet_infer.bundle import Bundle
from glnet_infer.contract import GRAPH_OUTPUTS, CropSpec
from glnet_infer.crops import CropSquares, cut_crops
from glnet_infer.devices import gpus

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not gpus(), reason="no NVIDIA GPU")]

DEMO = Path(__file__).parents[3] / "models" / "demo" / "checkpoint.pth"
SAME = 1e-4  # m; TensorRT may take other kernels, with other roundings, from one context to the next
PRECISION = 1e-3  # m, on average over the vertices relative to the root: what an export lets half precision cost
GREY_LEVEL = 1e-2  # m, likewise, of crops equal to one: at random on all pixels, it moved the demo network by 2 to 7 mm
CALLS = 10_000


@pytest.fixture(scope="module")
def engine_bundle(tmp_path_factory):
    """The bundle that is given as GLNET_ENGINE_BUNDLE, or the demonstration network's, made by ``glnet-export --trt``."""
    given = os.environ.get("GLNET_ENGINE_BUNDLE")
    if given:
        return Bundle.open(given)
    directory = tmp_path_factory.mktemp("engine") / "bundle"
    command = [Path(sys.executable).with_name("glnet-export"), DEMO]
    subprocess.run([*command, "-o", directory, "--trt"], check=True, timeout=1800)
    return Bundle.open(directory)


@pytest.fixture(scope="module")
def backend(engine_bundle):
    with open_backend("tensorrt", engine_bundle) as backend:
        yield backend


@functools.cache
def rendered(spec, count, seed):
    """Persons, on whom a trained network's answers differ from one to the next: crops, RGB, and their cameras."""
    pytest.importorskip("torch")
    from glnet.body import Body, find_body, load_body
    from glnet_render import SyntheticSource

    sample = SyntheticSource(Body(load_body(find_body("demo"))), spec, seed=seed).sample(count)
    return sample.crops.numpy(), sample.cameras.numpy()


def batch(bundle, count, seed=0):
    return rendered(bundle.manifest.crop, count, seed)


def same(left, right, tolerance=SAME):
    assert list(left) == list(right)
    for name in ("vertices", "joints", "translation"):
        np.testing.assert_allclose(left[name], right[name], rtol=0, atol=tolerance, err_msg=name)


def close(left, right, agreeing, bound=PRECISION):
    """Two results are alike up to half precision, where they choose the same pixel; ties fall either way.

    And rows of one result are further apart than that, so that a row in another's place would show.
    """
    agree = (left["reference_pixel"] == right["reference_pixel"]).all(1)
    assert agree.mean() >= agreeing
    relative = [result["vertices"] - result["joints"][:, :1] for result in (left, right)]
    assert np.linalg.norm(relative[0] - relative[1], axis=-1)[agree].mean() < bound
    distance = [np.linalg.norm(result["translation"][agree], axis=-1) for result in (left, right)]
    np.testing.assert_allclose(*distance, rtol=2e-3)  # an export's report has 0.05 %
    if len(agree) > 1:
        others = np.linalg.norm(relative[1] - np.roll(relative[1], 1, axis=0), axis=-1).mean(1)
        assert others.min() > 10 * bound


def free_memory():
    """Bytes that the GPU has left."""
    driver = pytest.importorskip("cuda.bindings.driver")
    error, free, _ = driver.cuMemGetInfo()
    assert error == driver.CUresult.CUDA_SUCCESS
    return free


def test_results_are_onnx_runtimes(engine_bundle, backend):
    crops, cameras = batch(engine_bundle, 24)
    found = backend.run(crops, cameras)
    reference = open_backend("onnxruntime-cpu", engine_bundle)
    expected = reference.run(crops, cameras)
    for spec in GRAPH_OUTPUTS:
        assert found[spec.name].shape == expected[spec.name].shape and found[spec.name].dtype == spec.dtype
    close(found, expected, 0.9)


def test_every_batch_size_gives_each_row_its_own_result(engine_bundle, backend):
    most = backend.buckets[-1]
    crops, cameras = batch(engine_bundle, most + 3)
    together = backend.run(crops, cameras)
    for count in range(1, most + 3):
        found = backend.run(crops[:count], cameras[:count])
        close(found, {name: values[:count] for name, values in together.items()}, 0.75)


def test_replaying_a_graph_is_running_the_engine(engine_bundle, backend):
    with TensorRtBackend(engine_bundle, cuda_graphs=False) as plain:
        for count in (1, 3, backend.buckets[-1] + 1):
            for seed in range(3):  # the first run captures, the others replay
                crops, cameras = batch(engine_bundle, count, seed)
                same(backend.run(crops, cameras), plain.run(crops, cameras))


def test_memory_does_not_grow(engine_bundle, backend):
    batches = [batch(engine_bundle, count) for count in (1, 2, backend.buckets[-1])]
    for crops, cameras in batches * 20:  # kernels are compiled in the background at first
        backend.run(crops, cameras)
    before = free_memory()
    for call in range(CALLS):
        backend.run(*batches[0 if call % 100 else 2])
    assert before - free_memory() < 4 << 20


def test_opening_and_closing_gives_the_memory_back(engine_bundle, backend):
    backend.run(*batch(engine_bundle, 1))
    free = []
    for _ in range(5):
        with TensorRtBackend(engine_bundle) as other:
            other.run(*batch(engine_bundle, 2))
        free.append(free_memory())
    assert free[1] - free[-1] < 4 << 20  # the first one loads libraries


def test_two_clones_in_two_threads(engine_bundle, backend):
    batches = [batch(engine_bundle, 2, seed) for seed in range(2)]
    expected = [backend.run(*each) for each in batches]
    failures = []

    def work(clone, seed):
        try:
            for _ in range(200):
                same(clone.run(*batches[seed]), expected[seed])
        except BaseException as error:
            failures.append(error)

    with backend.clone() as first, backend.clone() as second:
        threads = [threading.Thread(target=work, args=pair) for pair in ((first, 0), (second, 1))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


# Crops cut on the GPU, and arrays of the GPU in and out


BOXES = np.array([[100.0, 50, 700, 1000], [-200, 300, 400, 1300], [900, 200, 960, 320], [1500, -50, 2000, 900]])


def picture(width=1920, height=1080, seed=0):
    """A frame with a rendered person in each of the boxes, which are given for a width of 1,920."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 40, width // 40, 3), dtype=np.uint8)
    frame = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)
    for crop, (left, top, right, bottom) in zip(
        rendered(CropSpec(), len(BOXES), seed)[0], BOXES * width / 1920, strict=True
    ):
        side = max(right - left, bottom - top) * 1.25  # as crops are cut
        scale = side / len(crop)
        place = np.float32([[scale, 0, (left + right - side) / 2], [0, scale, (top + bottom - side) / 2]])
        cv2.warpAffine(crop[..., ::-1], place, (width, height), frame, borderMode=cv2.BORDER_TRANSPARENT)
    return frame


@pytest.fixture(scope="module")
def recoverer(engine_bundle):
    (record, *_) = engine_bundle.manifest.engines
    if record.crop is None:
        pytest.skip("the bundle has no crop engine")
    with MeshRecoverer(engine_bundle.directory, "tensorrt") as recoverer:
        yield recoverer


def foreign(frame):
    """A frame on the GPU as ``__cuda_array_interface__`` alone describes it, made by cuda-core."""
    core = pytest.importorskip("cuda.core")
    device = core.Device(0)
    device.set_current()
    stream = device.create_stream()
    memory = core.DeviceMemoryResource(device).allocate(frame.nbytes, stream=stream)
    host = core.LegacyPinnedMemoryResource().allocate(frame.nbytes)
    ctypes.memmove(int(host.handle), frame.ctypes.data, frame.nbytes)
    memory.copy_from(host, stream=stream)  # not waited for: the interface says on which stream it happens

    interface = {
        "shape": frame.shape,
        "typestr": "|u1",
        "data": (int(memory.handle), True),
        "strides": None,
        "stream": int(stream.handle),
        "version": 3,
    }
    return types.SimpleNamespace(__cuda_array_interface__=interface, keeps=(memory, host, stream))


def test_crops_cut_on_the_gpu_give_the_meshes_of_crops_cut_on_the_cpu(recoverer):
    backend = recoverer._backend
    for width, height in ((1920, 1080), (3840, 2160), (640, 480), (1280, 720)):
        if backend.frame_obstacle(width, height):
            continue
        frame = picture(width, height)
        squares = CropSquares.around(BOXES * width / 1920, recoverer.bundle.manifest.crop)
        cameras = np.tile(np.float32([1000 / 256, 1000 / 256, 0, 0]), (len(BOXES), 1))
        cut = backend.cut(frame, squares.in_frame(width, height))
        assert np.abs(cut.astype(int) - cut_crops(frame, squares)).max() <= 1  # grey level
        for _ in range(3):  # the first captures, the others replay
            found = backend.run_frame(frame, squares.in_frame(width, height), cameras)
        expected = backend.run(cut_crops(frame, squares), cameras)
        close(found, expected, 0.75, GREY_LEVEL)  # which may decide a tie, too


def test_more_boxes_than_the_engine_takes(recoverer):
    boxes = np.tile(BOXES, (recoverer._backend.buckets[-1], 1))
    meshes, few = recoverer(picture(), boxes), recoverer(picture(), BOXES)
    assert meshes.device is None and len(meshes) == len(boxes)
    relative = [each.vertices[-4:] - each.joints[-4:, :1] for each in (meshes, few)]
    assert np.linalg.norm(relative[0] - relative[1], axis=-1).mean() < GREY_LEVEL


def test_a_frame_of_the_gpu_is_the_frame_of_the_host(recoverer):
    for seed in range(3):
        frame = picture(2000, 1000, seed=seed)
        expected = recoverer(frame, BOXES)
        np.testing.assert_allclose(recoverer(foreign(frame), BOXES).vertices, expected.vertices, rtol=0, atol=SAME)
        shifted = foreign(frame)  # rows from the third on, 12000 bytes later: an address that TensorRT does not take
        interface = shifted.__cuda_array_interface__
        interface["data"] = interface["data"][0] + 2 * frame.strides[0], True
        interface["shape"] = (frame.shape[0] - 2, *frame.shape[1:])
        part = recoverer(np.ascontiguousarray(frame[2:]), BOXES)
        np.testing.assert_allclose(recoverer(shifted, BOXES).vertices, part.vertices, rtol=0, atol=SAME)


def test_a_frame_of_torch(recoverer):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    frame = picture(seed=7)
    expected = recoverer(frame, BOXES)
    with torch.cuda.stream(torch.cuda.Stream()):  # torch's own work on a stream of its own
        array = torch.from_numpy(frame).pin_memory().cuda(non_blocking=True).flip(0).flip(0).contiguous()
        meshes = recoverer(array, BOXES)
    np.testing.assert_allclose(meshes.vertices, expected.vertices, rtol=0, atol=SAME)
    for value in (torch.from_dlpack(meshes.device.vertices), torch.as_tensor(meshes.device.vertices, device="cuda")):
        np.testing.assert_array_equal(value.cpu().numpy(), meshes.vertices)


def test_results_on_the_gpu_are_those_of_the_host(recoverer):
    core = pytest.importorskip("cuda.core")
    meshes = recoverer(picture(), BOXES)
    device = meshes.device
    stream = core.Device(0).create_stream()
    for name in ("vertices", "joints", "rotations", "betas", "translation", "confidence"):
        expected, view = getattr(meshes, name), getattr(device, name)
        taken = core.utils.StridedMemoryView.from_any_interface(view, stream_ptr=-1)
        assert (int(taken.ptr), tuple(taken.shape)) == (view.__cuda_array_interface__["data"][0], expected.shape)
        host = core.LegacyPinnedMemoryResource().allocate(expected.nbytes)
        host.copy_from(core.Buffer.from_handle(int(taken.ptr), expected.nbytes), stream=stream)
        stream.sync()
        found = np.ctypeslib.as_array((ctypes.c_uint8 * expected.nbytes).from_address(int(host.handle)))
        np.testing.assert_array_equal(found.view(expected.dtype).reshape(expected.shape), expected)
        assert view.__dlpack_device__() == (2, 0)
    recoverer(picture(seed=1), BOXES)
    with pytest.raises(BackendError, match="no longer there"):
        device.vertices.__cuda_array_interface__  # noqa: B018
