"""A real Triton server serves what glnet-export triton wrote. The graph is run by a python model around ONNX Runtime."""

import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import onnx
import pytest
from detector_graphs import FLOAT, constant_graph
from triton_server import on_the_cpu, served

from glnet_export.triton.repository import RepositoryOptions, write_repository
from glnet_infer import Intrinsics, MeshRecoverer
from glnet_infer.serving.frames import FRAME_OUTPUTS

SAME = 1e-6
"""Metres. A unit of float32's last place at 8 metres: what is computed alike, in batches of the same size, is the same."""

IN_A_BATCH = 1e-5
"""Metres: ten such units, where sums are split by the size of the batch."""

TOGETHER, BAD = 6, 2
"""Requests that become one batch, and those among them that cannot be used."""


@pytest.fixture(scope="module")
def server(triton, shared_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("triton")
    write_repository(shared_bundle, folder / "repository", RepositoryOptions(most_crops=TOGETHER, frame_instances=1))
    on_the_cpu(folder / "repository")
    with served(folder / "repository", triton, folder / "log") as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    import tritonclient.grpc as grpc

    with grpc.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
        yield client


def ask(client, **arrays):
    """The answer of glnet_frames to one image, by name."""
    import tritonclient.grpc as grpc
    from tritonclient.utils import np_to_triton_dtype

    inputs = []
    for name, array in arrays.items():
        if isinstance(array, bytes):
            array = np.array([array], object)
        elif name in ("boxes", "camera"):
            array = np.asarray(array, np.float64)
        inputs.append(grpc.InferInput(name, [1, *array.shape], np_to_triton_dtype(array.dtype)))
        inputs[-1].set_data_from_numpy(array[None])
    result = client.infer("glnet_frames", inputs, client_timeout=60)
    return {spec.name: result.as_numpy(spec.name)[0] for spec in FRAME_OUTPUTS}


@pytest.fixture(scope="module")
def picture(request):
    return (request.config.rootpath / "examples" / "person.jpg").read_bytes()


@pytest.fixture(scope="module")
def here(shared_bundle):
    with MeshRecoverer(shared_bundle, "onnxruntime-cpu", threads=1, detector="nanodet") as recoverer:
        yield recoverer


ARRAYS = ("vertices", "joints", "rotations", "betas", "translation", "confidence")


@pytest.mark.parametrize(
    "has_boxes, camera",
    [(True, None), (True, (1500.0, 1520.0, 610.0, 390.0)), (False, None)],
    ids=["boxes", "camera", "found"],
)
def test_meshes_are_those_of_the_runtime_by_itself(client, here, picture, photograph, person_boxes, has_boxes, camera):
    boxes = person_boxes if has_boxes else None
    wanted = here(photograph, boxes, None if camera is None else Intrinsics(*camera))
    given = {"boxes": boxes, "camera": camera}
    found = ask(client, image=picture, **{name: each for name, each in given.items() if each is not None})
    assert len(found["boxes"]) == 2
    np.testing.assert_array_equal(found["boxes"], wanted.boxes)
    assert found["image_size"].tolist() == [1200, 800]
    assert found["camera"].tolist() == [*wanted.focal_length, wanted.intrinsics.cx, wanted.intrinsics.cy]
    for name in ARRAYS:
        np.testing.assert_allclose(found[name], getattr(wanted, name), atol=SAME, rtol=0, err_msg=name)
    for name in ("keypoints_2d", "reference_points"):  # pixels; float32 has a thousandth of them in a photograph
        np.testing.assert_allclose(found[name], getattr(wanted, name), atol=1e-3, rtol=0, err_msg=name)


def test_a_decoded_frame_is_taken_as_well_as_a_file(client, photograph, person_boxes):
    lossless = cv2.imencode(".png", photograph)[1].tobytes()
    decoded, encoded = (
        ask(client, **{name: image}, boxes=person_boxes) for name, image in (("frame", photograph), ("image", lossless))
    )
    for name, array in decoded.items():
        np.testing.assert_array_equal(array, encoded[name])
    nobody = ask(client, frame=np.zeros((60, 80, 3), np.uint8))
    assert nobody["vertices"].shape[0] == 0 and nobody["image_size"].tolist() == [80, 60]


def test_the_model_of_the_graph_is_a_backend(server, here, shared_bundle, photograph, person_boxes):
    wanted = here(photograph, person_boxes)
    for address in (f"triton://127.0.0.1:{server.grpc}/glnet", f"triton+http://127.0.0.1:{server.http}/glnet"):
        with MeshRecoverer(shared_bundle, f"{address}?timeout=60") as recoverer:
            assert recoverer.batch_size == TOGETHER
            found = recoverer(photograph, person_boxes)
        for name in ARRAYS:
            np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), atol=SAME, rtol=0, err_msg=name)


@pytest.fixture
def patient(triton, shared_bundle, tmp_path):
    """A client of a server whose one process for images waits until as many requests are there as it may take at once."""
    import tritonclient.grpc as grpc

    repository = tmp_path / "repository"
    write_repository(shared_bundle, repository, RepositoryOptions(most_crops=TOGETHER + BAD, frame_instances=1))
    on_the_cpu(repository)
    config = repository / "glnet_frames" / "config.pbtxt"
    text = config.read_text(encoding="utf-8")
    assert "dynamic_batching {\n}" in text
    waiting = "dynamic_batching {\n  max_queue_delay_microseconds: 30000000\n}"
    config.write_text(text.replace("dynamic_batching {\n}", waiting), encoding="utf-8")
    with (
        served(repository, triton, tmp_path / "log") as running,
        grpc.InferenceServerClient(f"127.0.0.1:{running.grpc}") as client,
    ):
        yield client


def batches(client, model):
    """How often a model ran with each size of a batch, by the server's statistics."""
    statistics = client.get_inference_statistics(model, as_json=True)["model_stats"][0].get("batch_stats", [])
    return {int(each["batch_size"]): int(each["compute_infer"]["count"]) for each in statistics}


def settled_batches(client, model, wanted):
    """The same, once it is what is wanted, or after some seconds: the server counts a batch after it has answered."""
    end = time.monotonic() + 10
    while (found := batches(client, model)) != wanted and time.monotonic() < end:
        time.sleep(0.05)
    return found


def test_concurrent_requests_become_one_batch_and_a_bad_one_fails_alone(patient, client, picture, many_places):
    alone = [ask(client, image=picture, boxes=box[None]) for box in many_places]
    before = batches(patient, "glnet")  # its warm-up
    with ThreadPoolExecutor(TOGETHER + BAD) as threads:
        half, box = picture[: len(picture) // 2], many_places[:1]
        bad = [threads.submit(ask, patient, image=half, boxes=box) for _ in range(BAD)]
        found = list(threads.map(lambda box: ask(patient, image=picture, boxes=box[None]), many_places))
    images, crops = {TOGETHER + BAD: 1}, {**before, TOGETHER: 1}
    assert settled_batches(patient, "glnet_frames", images) == images  # the bad ones were among them
    assert settled_batches(patient, "glnet", crops) == crops
    for box, one, other in zip(many_places, alone, found, strict=True):
        np.testing.assert_array_equal(other["boxes"], box[None])
        np.testing.assert_allclose(other["vertices"], one["vertices"], atol=IN_A_BATCH, rtol=0)
    for each in bad:
        error = each.exception()
        assert "cannot be decoded" in error.message() and error.status() == "StatusCode.INVALID_ARGUMENT"


def test_pictures_of_many_sizes_are_run_together(patient, client, photograph):
    """Triton gives inputs of different shapes to a model at once where its configuration says that they may differ."""
    frames = [photograph[: 400 + 50 * number, : 1200 - 50 * number].copy() for number in range(TOGETHER + BAD)]
    boxes = [np.array([[100.0 + each, 20, 400, 380] for each in range(number % 3)]) for number in range(len(frames))]
    requests = [{"frame": frame, "boxes": each.reshape(-1, 4)} for frame, each in zip(frames, boxes, strict=True)]
    alone = [ask(client, **each) for each in requests]
    with ThreadPoolExecutor(len(requests)) as threads:
        found = list(threads.map(lambda each: ask(patient, **each), requests))
    assert settled_batches(patient, "glnet_frames", {len(requests): 1}) == {len(requests): 1}
    for request, one, other in zip(requests, alone, found, strict=True):
        np.testing.assert_array_equal(other["boxes"], request["boxes"])
        assert other["image_size"].tolist() == one["image_size"].tolist()
        np.testing.assert_allclose(other["vertices"], one["vertices"], atol=IN_A_BATCH, rtol=0)


def test_several_images_in_one_request_are_refused(client, picture):
    import tritonclient.grpc as grpc
    from tritonclient.utils import InferenceServerException

    image = grpc.InferInput("image", [2, 1], "BYTES")
    image.set_data_from_numpy(np.array([[picture], [picture]], object))
    with pytest.raises(InferenceServerException) as error:
        client.infer("glnet_frames", [image], client_timeout=60)
    assert "shape (2, 1)" in error.value.message() and error.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_a_detectors_file_is_served_from_the_repository(triton, shared_bundle, tmp_path):
    import tritonclient.grpc as grpc

    rows = np.zeros((1, 300, 6), np.float32)
    rows[0, 0] = [5, 6, 40, 60, 0.9, 0]
    path, repository = tmp_path / "persons.onnx", tmp_path / "repository"
    onnx.save(constant_graph({"x": (FLOAT, [1, 3, 64, 64])}, {"y": rows}), path)
    write_repository(shared_bundle, repository, RepositoryOptions(detector=f"{path}:end2end", frame_instances=1))
    path.unlink()
    repository = repository.rename(tmp_path / "elsewhere")
    on_the_cpu(repository)
    with (
        served(repository, triton, tmp_path / "log") as running,
        grpc.InferenceServerClient(f"127.0.0.1:{running.grpc}") as client,
    ):
        found = ask(client, frame=np.zeros((64, 64, 3), np.uint8))
    np.testing.assert_allclose(found["boxes"], [[5, 6, 40, 60]], atol=1e-4)


@pytest.fixture
def many_places():
    return np.array([[600.0 + 8 * place, 30 + place, 960, 740] for place in range(TOGETHER)])


@pytest.mark.parametrize(
    "arrays, words",
    [
        ({}, "request has 0 inputs"),  # Triton's own words
        ({"image": b"not a picture"}, "not an image that is read"),
        ({"image": b""}, "it is empty"),
        ({"frame": np.zeros((0, 5, 3), np.uint8)}, "empty"),
        ({"frame": np.zeros((20, 30, 3), np.uint8), "boxes": np.array([[5.0, 5, 4, 9]])}, "Box 0 has no area"),
        ({"frame": np.zeros((20, 30, 3), np.uint8), "boxes": np.full((1, 4), np.nan)}, "Box 0 is not finite"),
        ({"frame": np.zeros((20, 30, 3), np.uint8), "boxes": np.tile([[1.0, 1, 9, 9]], (1001, 1))}, "at most 1000"),
        ({"frame": np.zeros((20, 30, 3), np.uint8), "camera": np.array([0.0, 1, 1, 1])}, "camera is not valid"),
    ],
    ids=["nothing", "text", "no bytes", "no pixels", "no area", "no numbers", "too many", "no camera"],
)
def test_what_cannot_be_used_is_said(client, arrays, words):
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException) as error:
        ask(client, **arrays)
    assert words in error.value.message() and error.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_health_and_metrics_are_tritons_own(server):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics}/metrics", timeout=20) as answer:
        assert 'nv_inference_request_success{model="glnet"' in answer.read().decode()
