"""The recoverer on a real exported network, against ONNX Runtime used directly and geometry done by hand."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest

from glnet_infer import BackendError, BundleError, InputError, Intrinsics, Meshes, MeshRecoverer
from glnet_infer.contract import CropSpec
from glnet_infer.crops import CropSquares, cut_crops
from glnet_infer.detection import Detections, open_detector

METRES = 1e-4
"""Kernels for other batch sizes sum in another order; a mistake in the order of persons is centimetres."""

ARRAYS = ("vertices", "joints", "keypoints_2d", "rotations", "betas", "translation", "confidence", "reference_points")
SKEWED = Intrinsics(900.0, 1400.0, 250.0, 777.0)


def assert_same(found: Meshes, expected: Meshes, order=slice(None)):
    assert np.array_equal(found.boxes, expected.boxes[order])
    for name in ARRAYS:
        difference = np.abs(getattr(found, name) - getattr(expected, name)[order])
        # Pixels: 1e-5 of a crop side, and crops are up to 2,700 px wide here.
        assert difference.max() <= (0.03 if name in ("keypoints_2d", "reference_points") else METRES), name


@pytest.fixture(scope="module")
def session(shared_bundle):
    return onnxruntime.InferenceSession(str(shared_bundle / "model.onnx"), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def result(recoverer, photograph, many_boxes) -> Meshes:
    return recoverer(photograph, many_boxes)


def crop_camera(box, camera):
    """fx, fy, cx, cy in crop sides from the crop's centre, as the manifest defines the graph's input."""
    x1, y1, x2, y2 = box
    side = 1.25 * max(x2 - x1, y2 - y1)
    return np.array(
        [camera.fx / side, camera.fy / side, (camera.cx - (x1 + x2) / 2) / side, (camera.cy - (y1 + y2) / 2) / side]
    )


def crop_to_image(pixels, box):
    x1, y1, x2, y2 = box
    side = 1.25 * max(x2 - x1, y2 - y1)
    corner = np.array([(x1 + x2) / 2 - side / 2, (y1 + y2) / 2 - side / 2])
    return corner + pixels.astype(np.float64) * side / 256


def test_shapes_and_types_are_the_documented_ones(result, many_boxes, shared_bundle):
    count, vertices = len(many_boxes), 12_408
    shapes = {
        "vertices": (count, vertices, 3),
        "joints": (count, 29, 3),
        "keypoints_2d": (count, 31, 2),
        "rotations": (count, 24, 3, 3),
        "betas": (count, 10),
        "translation": (count, 3),
        "confidence": (count,),
        "reference_points": (count, 2),
    }
    for name, shape in shapes.items():
        array = getattr(result, name)
        assert array.shape == shape and array.dtype == np.float32 and np.isfinite(array).all(), name
    with np.load(shared_bundle / "topology.npz") as topology:
        assert np.array_equal(result.faces, topology["faces"])
    assert result.faces.dtype == np.int32 and result.faces.max() == vertices - 1
    assert result.boxes.dtype == np.float64 and np.array_equal(result.boxes, many_boxes)
    assert len(result) == count and result.image_size == (1200, 800) and result.backend == "onnxruntime-cpu"
    assert ((result.confidence > 0) & (result.confidence < 1)).all()
    products = result.rotations @ result.rotations.swapaxes(-1, -2)
    assert np.abs(products - np.eye(3)).max() < 1e-5  # float32
    assert np.linalg.det(result.rotations.astype(np.float64)).min() > 0.999


def test_results_are_onnx_runtimes_own_for_crop_and_camera(session, result, photograph, many_boxes):
    guess = Intrinsics.guess(1200, 800)
    for i, box in enumerate(many_boxes):
        crop = cut_crops(photograph, CropSquares.around(box[None], CropSpec(size=256, padding=1.25)))
        camera = crop_camera(box, guess).astype(np.float32)[None]
        names = [output.name for output in session.get_outputs()]
        raw = dict(zip(names, session.run(None, {"crops": crop, "cameras": camera}), strict=True))
        for name in ("vertices", "joints", "rotations", "betas", "translation", "confidence"):
            assert np.abs(getattr(result, name)[i] - raw[name][0]).max() < METRES, name
        keypoints = crop_to_image(raw["keypoints_2d"][0], box)
        cell = crop_to_image(raw["reference_pixel"][0] * 4 + 2.0, box)  # the middle of a cell of 4 x 4 crop pixels
        side = 1.25 * max(box[2] - box[0], box[3] - box[1])
        assert np.abs(result.keypoints_2d[i] - keypoints).max() < 1e-5 * side + 1e-3
        assert np.abs(result.reference_points[i] - cell).max() < 1e-3  # px; float32 at 2,000
        corners = crop_to_image(np.array([[0, 0], [256, 256]]), box)
        assert (result.reference_points[i] > corners[0]).all() and (result.reference_points[i] < corners[1]).all()


@pytest.mark.parametrize("camera", [None, Intrinsics(1000, 1000, 600, 400), SKEWED], ids=["guessed", "given", "skewed"])
def test_the_3d_root_lies_on_the_ray_through_its_2d_keypoint(recoverer, photograph, many_boxes, camera):
    # The graph lifts keypoints with the crop's camera; the runtime maps them to the image. The root is lifted unchanged,
    # so both ways meet in the image only if crop, camera and mapping all fit together.
    meshes = recoverer(photograph, many_boxes, camera)
    sides = 1.25 * (many_boxes[:, 2:] - many_boxes[:, :2]).max(1)
    distance = np.linalg.norm(meshes.projected_joints[:, 0] - meshes.keypoints_2d[:, 0], axis=1)
    assert (distance < np.maximum(0.05, 5e-5 * sides)).all()  # px
    assert distance[:6].max() < 0.05


@pytest.mark.parametrize("camera", [None, Intrinsics(1000, 1000, 600, 400), SKEWED], ids=["guessed", "given", "skewed"])
def test_projected_joints_are_those_that_the_crops_camera_sees(recoverer, photograph, many_boxes, camera):
    meshes = recoverer(photograph, many_boxes, camera)
    used = camera or Intrinsics(np.hypot(1200, 800), np.hypot(1200, 800), 600, 400)
    for i, box in enumerate(many_boxes):
        fx, fy, cx, cy = crop_camera(box, used)
        matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        joints = meshes.joints[i].astype(np.float64)
        in_sides = cv2.projectPoints(joints, np.zeros(3), np.zeros(3), matrix, None)[0][:, 0]
        assert np.abs(meshes.projected_joints[i] - crop_to_image((in_sides + 0.5) * 256, box)).max() < 0.05  # px


def test_meshes_lie_where_their_persons_are(result, many_boxes):
    # Random weights give a standing body about the crop's middle: projected, it overlaps its own box's square.
    projected = result.intrinsics.project(result.vertices)
    middle = (projected.min(1) + projected.max(1)) / 2
    sides = 1.25 * (many_boxes[:, 2:] - many_boxes[:, :2]).max(1)
    assert (np.abs(middle - (many_boxes[:, :2] + many_boxes[:, 2:]) / 2) < 0.15 * sides[:, None]).all()


def test_translation_puts_the_body_in_front_of_the_camera(result):
    assert (result.vertices[..., 2] > 0).all()
    # translation + rest root = posed root, and the rest root of SMPL bodies lies within half a metre of the origin.
    assert np.abs(result.joints[:, 0] - result.translation).max() < 0.5


def test_twice_the_focal_length_is_twice_as_far_away(recoverer, photograph, many_boxes):
    near = recoverer(photograph, many_boxes, Intrinsics(700, 900, 600, 400))
    far = recoverer(photograph, many_boxes, Intrinsics(1400, 1800, 600, 400))
    ratio = far.joints[:, 0, 2] / near.joints[:, 0, 2]
    # The root's own depth, random here, is added to the distance: some millimetres of several metres.
    assert ratio == pytest.approx(2.0, rel=0.01)
    assert np.abs(far.keypoints_2d - near.keypoints_2d).max() < 0.05  # px: what the network sees is the same


def test_matrix_and_intrinsics_agree(recoverer, photograph, person_boxes):
    by_matrix = recoverer(photograph, person_boxes, SKEWED.matrix)
    by_lists = recoverer(photograph, person_boxes, SKEWED.matrix.tolist())
    given = recoverer(photograph, person_boxes, SKEWED)
    assert by_matrix.intrinsics == by_lists.intrinsics == given.intrinsics == SKEWED
    assert np.array_equal(by_matrix.vertices, given.vertices) and np.array_equal(by_lists.vertices, given.vertices)


def test_guessed_camera_is_the_diagonals(recoverer, photograph, result, many_boxes):
    guess = Intrinsics(np.hypot(1200, 800), np.hypot(1200, 800), 600, 400)
    assert result.intrinsics == guess
    assert np.array_equal(recoverer(photograph, many_boxes, guess).vertices, result.vertices)


def test_no_boxes_mean_one_person_who_fills_the_image(recoverer, photograph):
    whole = recoverer(photograph, [[0, 0, 1200, 800]])
    assert_same(recoverer(photograph), whole)


@pytest.fixture(scope="module")
def finder(shared_bundle):
    """A recoverer that finds persons."""
    with MeshRecoverer(shared_bundle, "onnxruntime-cpu", detector="nanodet") as finder:
        yield finder


def test_a_detector_finds_the_persons_of_images_without_boxes(finder, recoverer, photograph, person_boxes):
    found = open_detector("nanodet")(photograph)
    meshes = finder(photograph)
    assert len(meshes) == 2 and np.array_equal(meshes.boxes, found.boxes)
    assert_same(meshes, recoverer(photograph, found.boxes))
    assert finder(photograph, person_boxes).boxes.tolist() == person_boxes
    assert len(finder(photograph, [])) == 0


def test_a_detector_finds_nobody(finder):
    assert len(finder(np.full((200, 300, 3), 114, np.uint8))) == 0


def test_persons_of_many_images_are_found(finder, photograph):
    images = [photograph, np.zeros_like(photograph), photograph[:, 600:]]
    assert [len(meshes) for meshes in finder.recover_many(images)] == [2, 0, 1]
    whole, given = finder.recover_many(images[:2], [None, [[0, 0, 100, 200]]])
    assert len(whole) == 2 and given.boxes.tolist() == [[0, 0, 100, 200]]


def test_a_detector_of_ones_own_is_called(shared_bundle, photograph):
    boxes = np.array([[10.0, 20, 300, 400]])
    detector = lambda image: Detections(boxes, np.ones(1, np.float32))  # noqa: E731
    with MeshRecoverer(shared_bundle, "onnxruntime-cpu", detector=detector) as own:
        assert own.detector is detector and np.array_equal(own(photograph).boxes, boxes)


@pytest.mark.parametrize("boxes", [[[np.nan, 0, 1, 1]], [[1, 2, 3]], [[2000, 2000, 2100, 2100]]])
def test_a_detector_whose_boxes_cannot_be_used_is_refused(shared_bundle, photograph, boxes):
    detector = lambda image: Detections(np.array(boxes), np.ones(1, np.float32))  # noqa: E731
    with (
        MeshRecoverer(shared_bundle, "onnxruntime-cpu", detector=detector) as own,
        pytest.raises(BackendError, match="The detector gave boxes that cannot be used"),
    ):
        own(photograph)


def test_a_detector_that_is_not_there_is_refused(shared_bundle):
    with pytest.raises(InputError, match="There is no detector 'yolo'"):
        MeshRecoverer(shared_bundle, "onnxruntime-cpu", detector="yolo")


def test_none_is_the_detector_of_one_person_who_fills_the_image(shared_bundle, recoverer, photograph):
    with MeshRecoverer(shared_bundle, "onnxruntime-cpu", detector="none") as whole:
        assert_same(whole(photograph), recoverer(photograph))


@pytest.mark.parametrize("order", [[6, 5, 4, 3, 2, 1, 0], [3, 0, 6, 1, 5, 2, 4]])
def test_permuted_boxes_permute_the_results(recoverer, photograph, many_boxes, result, order):
    # Neighbours differ by more than the tolerance, so a wrong order is seen.
    assert np.abs(np.diff(result.joints[:, 0], axis=0)).max(1).min() > 10 * METRES
    assert_same(recoverer(photograph, many_boxes[order]), result, order)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_batches_of_any_size_give_the_same_meshes(shared_bundle, photograph, many_boxes, result, batch_size):
    with MeshRecoverer(shared_bundle, "onnxruntime-cpu", batch_size=batch_size) as recoverer:
        assert_same(recoverer(photograph, many_boxes), result)


def test_threads_do_not_change_the_meshes(shared_bundle, photograph, many_boxes, result):
    with MeshRecoverer(shared_bundle, "onnxruntime-cpu", threads=1) as recoverer:
        assert_same(recoverer(photograph, many_boxes), result)


@pytest.mark.parametrize("boxes", [[], np.zeros((0, 4))])
def test_no_persons_give_empty_meshes_that_save_and_draw(recoverer, photograph, boxes, tmp_path, result):
    empty = recoverer(photograph, boxes)
    assert len(empty) == 0 and empty.boxes.shape == (0, 4)
    for name in ARRAYS:
        array, other = getattr(empty, name), getattr(result, name)
        assert array.shape == (0, *other.shape[1:]) and array.dtype == other.dtype, name
    assert empty.projected_joints.shape == (0, 29, 2)
    assert np.array_equal(empty.overlay(photograph), photograph)
    for suffix in ("glb", "obj", "ply", "npz", "json"):
        path = empty.save(tmp_path / f"none.{suffix}")
        assert path.stat().st_size > 0
    loaded = Meshes.load(tmp_path / "none.npz")
    assert loaded.vertices.shape == empty.vertices.shape and loaded.intrinsics == empty.intrinsics
    assert "0 persons" in repr(empty)


@pytest.mark.parametrize("box", [[600, 400, 602, 400.01], [-1e5, -1e5, 1e5, 1e5], [1199.5, 799.5, 2200, 1700]])
def test_extreme_boxes_give_finite_meshes(recoverer, photograph, box):
    meshes = recoverer(photograph, [box])
    for name in ARRAYS:
        assert np.isfinite(getattr(meshes, name)).all(), name


def test_the_image_is_not_modified_and_may_be_read_only(recoverer, photograph, person_boxes):
    image = photograph.copy()
    image.setflags(write=False)
    boxes = np.array(person_boxes, dtype=np.float64)
    recoverer(image, boxes).overlay(image)
    assert np.array_equal(image, photograph) and np.array_equal(boxes, person_boxes)


def test_results_do_not_change_when_the_caller_reuses_its_boxes(recoverer, photograph, person_boxes):
    # A tracker that updates its array of boxes in place must not rewrite results it has kept.
    boxes = np.array(person_boxes, dtype=np.float64)
    meshes = recoverer(photograph, boxes)
    boxes += 100
    assert np.array_equal(meshes.boxes, person_boxes)


def test_two_threads_get_what_one_gets(recoverer, photograph, many_boxes, result):
    orders = [np.roll(np.arange(len(many_boxes)), shift).tolist() for shift in range(6)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda order: recoverer(photograph, many_boxes[order]), orders))
    for meshes, order in zip(found, orders, strict=True):
        assert_same(meshes, result, order)


def test_a_closed_recoverer_says_so(shared_bundle, photograph):
    with MeshRecoverer(shared_bundle, "onnxruntime-cpu") as recoverer:
        recoverer(photograph)
    with pytest.raises(BackendError, match="closed") as error:
        recoverer(photograph)
    assert "MeshRecoverer" in error.value.fix
    recoverer.close()  # twice is allowed
    assert "onnxruntime-cpu" in repr(recoverer)


def test_the_context_manager_closes_on_errors_too(shared_bundle, photograph):
    with pytest.raises(ZeroDivisionError), MeshRecoverer(shared_bundle, "onnxruntime-cpu") as recoverer:
        raise ZeroDivisionError
    with pytest.raises(BackendError, match="closed"):
        recoverer(photograph)


def test_repr_names_network_body_and_backend(recoverer):
    assert repr(recoverer) == "MeshRecoverer(small, body='demo', backend='onnxruntime-cpu')"


def test_repr_admits_random_weights(bundle):
    path = bundle / "manifest.json"
    path.write_text(path.read_text().replace('"weights": "checkpoint"', '"weights": "random"'))
    with MeshRecoverer(bundle, "onnxruntime-cpu") as recoverer:
        assert "random weights" in repr(recoverer)


class Recorded:
    """A backend that runs nothing: person i of a batch stands i metres away; calls are kept."""

    name = "recorded"

    def __init__(self, specs):
        self.specs, self.batches, self.closed, self.count = specs, [], 0, 0

    def run(self, crops, cameras):
        assert crops.flags.c_contiguous and crops.dtype == np.uint8 and cameras.dtype == np.float32
        assert len(crops) == len(cameras)
        self.batches.append(len(crops))
        sizes = {"N": len(crops), "V": 12_408, "K": 31}
        outputs = {
            spec.name: np.zeros([sizes.get(side, side) for side in spec.shape], dtype=spec.dtype) for spec in self.specs
        }
        outputs["confidence"] += np.arange(self.count, self.count + len(crops))
        self.count += len(crops)
        return outputs

    def close(self):
        self.closed += 1


@pytest.mark.parametrize("batch_size, batches", [(1, [1] * 7), (2, [2, 2, 2, 1]), (3, [3, 3, 1]), (7, [7]), (16, [7])])
def test_a_backend_of_ones_own_is_used_batch_by_batch(
    shared_bundle, recoverer, photograph, many_boxes, batch_size, batches
):
    backend = Recorded(recoverer.bundle.manifest.outputs)
    with MeshRecoverer(shared_bundle, backend, batch_size=batch_size) as own:
        meshes = own(photograph, many_boxes)
        assert own.backend == meshes.backend == "recorded" and "recorded" in repr(own)
    assert backend.batches == batches
    assert meshes.confidence.tolist() == list(range(7))
    assert backend.closed == 1


def test_a_backend_says_how_many_crops_suit_it(shared_bundle, recoverer, photograph, many_boxes):
    plain, choosy = (Recorded(recoverer.bundle.manifest.outputs) for _ in range(2))
    choosy.batch_size = 3
    for backend, batch_size, batches in ((plain, None, [7]), (choosy, None, [3, 3, 1]), (choosy, 5, [5, 2])):
        backend.batches.clear()
        MeshRecoverer(shared_bundle, backend, batch_size=batch_size)(photograph, many_boxes)
        assert backend.batches == batches


def test_no_boxes_do_not_bother_the_backend(shared_bundle, recoverer, photograph):
    backend = Recorded(recoverer.bundle.manifest.outputs)
    MeshRecoverer(shared_bundle, backend)(photograph, [])
    assert backend.batches == []


@pytest.mark.parametrize("batch_size", [0, -3, None, 2.0])
def test_a_backend_that_wants_no_number_of_crops_is_refused(shared_bundle, recoverer, batch_size):
    backend = Recorded(recoverer.bundle.manifest.outputs)
    backend.batch_size = batch_size
    with pytest.raises(BackendError, match=f"recorded has batch_size {batch_size}"):
        MeshRecoverer(shared_bundle, backend)


@pytest.mark.parametrize("batch_size", [0, -3, 1.5, "x"])
def test_batches_of_nothing_are_refused(shared_bundle, batch_size):
    with pytest.raises(InputError, match=f"batch_size is {batch_size!r}"):
        MeshRecoverer(shared_bundle, batch_size=batch_size)


def test_no_bundle_no_recoverer(tmp_path):
    with pytest.raises(BundleError, match="no such directory"):
        MeshRecoverer(tmp_path / "nothing")


def test_the_manuals_recipe_gives_the_same_mesh(shared_bundle, monkeypatch):
    """Without this library: the person is large enough that the picture is averaged."""
    root = Path(__file__).parents[2]
    (recipe,) = re.findall(r"```python\n(import cv2.*?)```", (root / "docs/coordinates.md").read_text("utf-8"), re.DOTALL)
    monkeypatch.chdir(root)
    made = {}
    exec(recipe.replace("demo-bundle", shared_bundle.as_posix()), made)
    box = [made[name] for name in ("x1", "y1", "x2", "y2")]
    assert made["scale"] > 2
    with MeshRecoverer(shared_bundle, "onnxruntime-cpu") as recoverer:
        meshes = recoverer(made["image"], [box])
    np.testing.assert_allclose(made["outputs"]["vertices"], meshes.vertices, rtol=0, atol=METRES)
    np.testing.assert_allclose(made["keypoints"], meshes.keypoints_2d[0], rtol=0, atol=0.03)
