"""The model of images as the repository holds it, in a stand-in for Triton's python backend."""

import json
import runpy
import sys

import cv2
import numpy as np
import pytest
from triton_backend_stand_in import Request, Tensor, Utils

from glnet_export.triton.repository import RepositoryOptions, write_repository
from glnet_infer import BackendError, BundleError, Intrinsics, MeshRecoverer
from glnet_infer.backends import open_backend
from glnet_infer.bundle import Bundle
from glnet_infer.serving import triton_frames
from glnet_infer.serving.frames import FRAME_OUTPUTS

ARRAYS = [spec.name for spec in FRAME_OUTPUTS if spec.name not in ("camera", "image_size")]


@pytest.fixture(scope="module")
def repository(shared_bundle, tmp_path_factory):
    target = tmp_path_factory.mktemp("triton") / "repository"
    write_repository(shared_bundle, target, RepositoryOptions(most_crops=2))
    return target


@pytest.fixture(scope="module")
def backend(shared_bundle):
    backend = open_backend("onnxruntime-cpu", Bundle.open(shared_bundle), 1)
    yield backend
    backend.close()


@pytest.fixture
def utils(backend, monkeypatch):
    utils = Utils(backend)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils)
    return utils


def arguments(repository, **parameters):
    values = {"network": "glnet", "detector": "nanodet", "most_crops": "2", **parameters}
    config = {"parameters": {name: {"string_value": value} for name, value in values.items()}}
    return {
        "model_config": json.dumps(config),
        "model_repository": str(repository / "glnet_frames"),
        "model_version": "1",
    }


@pytest.fixture
def model(utils, repository):
    """The class of the repository's own file, loaded as the server loads it."""
    kind = runpy.run_path(str(repository / "glnet_frames" / "1" / "model.py"))["TritonPythonModel"]
    model = kind()
    model.initialize(arguments(repository))
    yield model
    model.finalize()


@pytest.fixture(scope="module")
def here(shared_bundle):
    with MeshRecoverer(shared_bundle, "onnxruntime-cpu", batch_size=2, threads=1, detector="nanodet") as recoverer:
        yield recoverer


def arrays_of(response):
    assert not response.has_error(), response.error().message()
    assert all(tensor.as_numpy().shape[0] == 1 for tensor in response.tensors.values())
    return {name: tensor.as_numpy()[0] for name, tensor in response.tensors.items()}


def file_of(image):
    return np.array([cv2.imencode(".png", image)[1].tobytes()], object)


def test_answers_are_the_runtimes_for_files_and_frames(model, utils, here, photograph, person_boxes):
    boxes, camera = np.array(person_boxes * 2, np.float64), np.array([1500.0, 1400.0, 600.0, 400.0])
    requests = [
        Request(image=file_of(photograph), boxes=boxes),
        Request(frame=photograph, boxes=boxes, camera=camera),
        Request(image=file_of(photograph)),
    ]
    wanted = [
        here(photograph, boxes),
        here(photograph, boxes, Intrinsics(1500.0, 1400.0, 600.0, 400.0)),
        here(photograph),
    ]
    responses = model.execute(requests)
    assert len(responses) == 3 and utils.calls == [2, 2, 2, 2, 2]  # ten persons, at most two of them in a call
    for response, meshes in zip(responses, wanted, strict=True):
        found = arrays_of(response)
        for name in ARRAYS:
            np.testing.assert_array_equal(found[name], getattr(meshes, name), err_msg=name)
        intrinsics = meshes.intrinsics
        assert found["camera"].tolist() == [intrinsics.fx, intrinsics.fy, intrinsics.cx, intrinsics.cy]
        assert found["image_size"].tolist() == [1200, 800] and found["image_size"].dtype == np.int32


def test_nobody_is_an_answer_without_rows(model, utils, here):
    found = arrays_of(*model.execute([Request(frame=np.zeros((50, 60, 3), np.uint8))]))
    assert not utils.calls
    for spec in FRAME_OUTPUTS:
        assert found[spec.name].dtype == spec.dtype and found[spec.name].ndim == len(spec.shape)
    assert found["vertices"].shape == (0, here.bundle.manifest.body.vertices, 3)


GREY = np.full((40, 50, 3), 128, np.uint8)
BAD = {
    "nothing": ({}, "no image"),
    "both": ({"image": file_of(GREY), "frame": GREY}, "two images"),
    "two files": ({"image": np.array([b"a", b"b"], object)}, "shape (2,)"),
    "no bytes": ({"image": np.array([3], object)}, "shape (1,)"),
    "text": ({"image": np.array([b"text"], object)}, "not an image that is read"),
    "half a file": ({"image": np.array([file_of(GREY)[0][:60]], object)}, "cannot be decoded"),
    "grey frame": ({"frame": GREY[..., 0].copy()}, "grey"),
    "other type": ({"frame": GREY.astype(np.float32)}, "type float32"),
    "boxes of three": ({"frame": GREY, "boxes": np.ones((2, 3))}, "boxes have shape"),
    "outside": ({"frame": GREY, "boxes": np.array([[500.0, 500, 600, 600]])}, "outside"),
    "too many": ({"frame": GREY, "boxes": np.tile([[1.0, 1, 9, 9]], (1001, 1))}, "1001 boxes"),
    "camera of three": ({"frame": GREY, "camera": np.ones(3)}, "shape (3,)"),
    "no camera": ({"frame": GREY, "camera": np.full(4, np.nan)}, "camera is not valid"),
    "normalised camera": ({"frame": GREY, "camera": np.array([1.2, 1.2, 0.5, 0.5])}, "focal length"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_fails_alone(model, utils, here, photograph, person_boxes, name):
    arrays, words = BAD[name]
    good = Request(frame=photograph, boxes=np.array(person_boxes, np.float64))
    first, bad, last = model.execute([good, Request(**arrays), good])
    assert bad.error().code == "invalid" and words in bad.error().message() and not utils.logged
    for response in (first, last):
        np.testing.assert_array_equal(arrays_of(response)["vertices"], here(photograph, person_boxes).vertices)


@pytest.fixture
def roomy(utils, repository):
    """The model with room for more crops in a call than the requests of a test have."""
    frames = triton_frames.TritonFrames(utils, arguments(repository, detector="none", most_crops="64"))
    yield frames
    frames.close()


def person(photograph, number, persons=1):
    """A request for persons in places of its own."""
    boxes = np.array([[600.0 + 8 * number, 30 + each, 960, 740] for each in range(persons)]).reshape(-1, 4)
    return Request(frame=photograph, boxes=boxes)


def test_the_crops_of_all_requests_are_one_call(roomy, utils, here, photograph):
    """Bad ones among them take no part, and each answer is its request's."""
    persons = [1, 3, 1, 2, 0, 1]
    requests = [person(photograph, number, count) for number, count in enumerate(persons)]
    bad = {1: Request(**BAD["half a file"][0]), 4: Request(**BAD["outside"][0]), 8: Request(**BAD["too many"][0])}
    requests = [bad[place] if place in bad else requests.pop(0) for place in range(9)]
    responses = roomy.answers(requests)
    assert utils.calls == [sum(persons)]
    for place, (request, response) in enumerate(zip(requests, responses, strict=True)):
        if place in bad:
            assert response.error().code == "invalid"
            continue
        found, boxes = arrays_of(response), request.tensors["boxes"].as_numpy()[0]
        np.testing.assert_array_equal(found["boxes"], boxes)
        wanted = here(photograph, boxes)
        for name in ARRAYS:  # metres and pixels; sums are split by the size of the batch
            np.testing.assert_allclose(found[name], getattr(wanted, name), atol=1e-5, rtol=2e-6, err_msg=name)


def test_a_call_that_fails_is_repeated_for_each_request_and_fails_one(roomy, utils, here, photograph, monkeypatch):
    """Who asks for what the network cannot do does not take others' answers along."""
    requests = [person(photograph, number, persons) for number, persons in enumerate((1, 3, 1))]
    real = utils.InferenceRequest.exec

    def fails_on_three(request):
        utils.failure = "" if len(request._inputs["crops"]) < 3 else "overflow"
        return real(request)

    monkeypatch.setattr(utils.InferenceRequest, "exec", fails_on_three)
    first, second, third = roomy.answers(requests)
    assert utils.calls == [5, 1, 3, 1]
    assert second.error().code == "internal" and "overflow" in second.error().message()
    for request, response in ((requests[0], first), (requests[2], third)):
        wanted = here(photograph, request.tensors["boxes"].as_numpy()[0]).vertices
        np.testing.assert_array_equal(arrays_of(response)["vertices"], wanted)


def test_memory_is_bounded_however_many_ask_together(roomy, utils, photograph, monkeypatch):
    monkeypatch.setattr(triton_frames, "MOST_BOXES", 4)
    responses = roomy.answers([person(photograph, number, persons) for number, persons in enumerate((3, 1, 2, 6, 1))])
    assert utils.calls == [4, 2, 6, 1]
    assert [len(arrays_of(response)["boxes"]) for response in responses] == [3, 1, 2, 6, 1]


@pytest.mark.parametrize("images", [0, 2])
def test_a_request_of_another_number_of_images_fails_alone(roomy, utils, photograph, images):
    """Triton takes several images as well as one wherever it may run requests together."""
    bad, good = person(photograph, 0), person(photograph, 1)
    bad.tensors = {name: Tensor(name, np.repeat(tensor.as_numpy(), images, axis=0)) for name, tensor in bad.tensors.items()}
    first, second = roomy.answers([bad, good])
    assert first.error().code == "invalid" and f"shape ({images}, 800, 1200, 3)" in first.error().message()
    assert len(arrays_of(second)["boxes"]) == 1


def test_a_failure_of_the_network_is_its_requests(model, utils, photograph, person_boxes):
    utils.failure = "CUDA out of memory"
    request = Request(frame=photograph, boxes=np.array(person_boxes, np.float64))
    (response,) = model.execute([request])
    assert response.error().code == "internal" and "CUDA out of memory" in response.error().message()
    utils.failure = ""
    assert len(arrays_of(*model.execute([request]))["boxes"]) == 2


def test_a_mistake_of_ours_is_logged_and_ends_nothing(model, utils, photograph, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("by mistake")

    monkeypatch.setattr("glnet_infer.serving.frames.answer", fail)
    (response,) = model.execute([Request(frame=photograph)])
    assert response.error().code == "internal" and "ZeroDivisionError: by mistake" in response.error().message()
    assert "Traceback" in utils.logged[0]


def test_memory_of_a_response_is_not_held(utils, repository, backend, photograph, person_boxes):
    """Triton may use it for the next one: the arrays of an answer are copies."""
    network = triton_frames.CalledNetwork(
        utils, "glnet", Bundle.open(repository / "glnet_frames/1/bundle", graph=False).manifest.outputs, 2
    )
    kept, as_numpy = [], Tensor.as_numpy

    def remembered(tensor):
        kept.append(as_numpy(tensor))
        return kept[-1]

    side = Bundle.open(repository / "glnet_frames/1/bundle", graph=False).manifest.crop.size
    crops, cameras = np.zeros((1, side, side, 3), np.uint8), np.ones((1, 4), np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "as_numpy", remembered)
        found = network.run(crops, cameras)
    assert len(kept) > len(found)
    assert not any(np.shares_memory(array, each) for array in found.values() for each in kept)


def test_a_numpy_that_the_server_was_not_built_for_is_refused(utils, repository, monkeypatch):
    """As measured in Triton 24.10 with NumPy 2.4: every element is the first one."""
    real = Tensor.from_dlpack
    monkeypatch.setattr(
        Tensor, "from_dlpack", staticmethod(lambda name, array: real(name, np.full_like(array, array.flat[0])))
    )
    with pytest.raises(BackendError, match="does not fit NumPy") as error:
        triton_frames.TritonFrames(utils, arguments(repository))
    assert "24.11" in error.value.fix


def test_a_bundle_that_was_changed_is_refused_when_the_model_is_loaded(utils, shared_bundle, tmp_path):
    write_repository(shared_bundle, tmp_path / "r", RepositoryOptions())
    (tmp_path / "r" / "glnet_frames" / "1" / "bundle" / "topology.npz").write_bytes(b"other")
    with pytest.raises(BundleError, match=r"topology\.npz"):
        triton_frames.TritonFrames(utils, arguments(tmp_path / "r"))


def test_the_detector_is_the_configurations(utils, repository, here):
    frames = triton_frames.TritonFrames(utils, arguments(repository, detector="none"))
    found = arrays_of(*frames.answers([Request(frame=GREY)]))
    frames.close()
    np.testing.assert_array_equal(found["boxes"], [[0, 0, 50, 40]])
