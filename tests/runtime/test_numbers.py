"""Numbers of other libraries: taken exactly, or refused in words."""

import dataclasses
import json
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from glnet_infer import BackendError, InputError, Intrinsics
from glnet_infer.detection import find_persons, open_detector
from glnet_infer.images import check_boxes
from glnet_infer.numbers import as_floats, is_number
from glnet_infer.results.motion_builder import MotionBuilder
from glnet_infer.video.following import FollowOptions
from glnet_infer.video.sources import Window

FLAT = [3.0, 4.0, 50.0, 60.0]


def repr_of(value):
    return "huge" if isinstance(value, int) and value > 1e9 else repr(value)


def floats(values, **options):
    return as_floats(values, "These are not numbers.", fix="give numbers", **options)


@pytest.mark.parametrize(
    "values",
    [
        FLAT,
        tuple(FLAT),
        [np.float32(3), np.int64(4), 50, np.float16(60)],
        np.array(FLAT, ">f4"),
        np.array(FLAT, np.float16),
        np.array(FLAT, np.int8),
        np.array(FLAT, np.longdouble),
        np.ma.masked_array(FLAT, mask=[False] * 4),
        np.array([FLAT, FLAT]).T[:, 1],
        [Decimal(3), Fraction(4), 50, 60.0],
        np.array(FLAT, object),
    ],
    ids=lambda values: type(values).__name__,
)
def test_numbers_of_every_kind_are_the_same_numbers(values):
    found = floats(values)
    assert found.dtype == np.float64 and found.tolist() == FLAT


def test_what_is_taken_is_a_copy():
    given = np.array(FLAT)
    floats(given)[0] = 7
    assert given.tolist() == FLAT


def test_tensors_are_taken_without_their_gradients_and_in_every_floating_type():
    torch = pytest.importorskip("torch")
    weight = torch.tensor(FLAT, requires_grad=True)
    for tensor in (weight, weight * 1, weight.bfloat16(), weight.half(), weight.detach(), weight.detach().int()):
        assert floats(tensor).tolist() == FLAT
    assert floats([weight, weight * 2]).tolist() == [FLAT, [2 * each for each in FLAT]]
    assert floats([list(weight)]).tolist() == [FLAT]


def test_floating_types_that_numpy_does_not_know_are_taken():
    types = pytest.importorskip("ml_dtypes")
    assert floats(np.array(FLAT, types.bfloat16)).tolist() == FLAT


def in_itself():
    values = [1.0]
    values.append(values)
    return values


def of_torch(make):
    return lambda: make(pytest.importorskip("torch"))


def raising():
    class Array:
        def __array__(self, *_, **__):
            raise KeyError("mine")

    return Array()


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: "3,4,50,60", "type is <U"),
        (lambda: ["3", "4"], "type is <U"),
        (lambda: [3, "4"], "type is <U"),
        (lambda: np.array(["3"], "S4"), r"type is \|S"),
        (lambda: [True, False], "True is not a number"),
        (lambda: [3.0, True], "True is not a number"),
        (lambda: np.array([True]), "type is bool"),
        (lambda: np.array([1j]), "type is complex"),
        (lambda: [1.0, 1j], "type is complex"),
        (lambda: np.array(["2020-01-01"], "datetime64[D]"), "type is datetime64"),
        (lambda: np.array([3], "timedelta64[s]"), "type is timedelta64"),
        (lambda: np.zeros(3, [("x", float)]), "type is"),
        (lambda: np.ma.masked_array(FLAT, mask=[False, True, False, False]), "masked"),
        (lambda: [np.ma.masked_array(FLAT, mask=True)], "masked"),
        (lambda: [1, 10**400], "too large"),
        (lambda: [1, 10**5000], "too large"),
        (lambda: [1.0, None], "NoneType"),
        (lambda: None, "NoneType"),
        (lambda: {"x": 1}, "dict"),
        (lambda: object(), "object"),
        (in_itself, "lists in lists"),
        (lambda: np.broadcast_to(1.0, (1 << 40, 4)), "numbers"),
        (raising, "mine"),
        (of_torch(lambda torch: torch.tensor([True])), "bool"),
        (of_torch(lambda torch: torch.tensor([1j], requires_grad=True)), "complex"),
        (of_torch(lambda torch: torch.zeros(4, device="meta")), "meta"),
    ],
)
def test_what_is_no_number_is_refused_in_words(make, words):
    with pytest.raises(InputError, match=words) as error:
        floats(make())
    assert error.value.what == "These are not numbers." and error.value.fix == "give numbers"


@pytest.mark.parametrize("dtype, end", [(np.uint8, 255), (np.int8, 127)])
def test_whole_numbers_that_may_have_wrapped_around_are_refused(dtype, end):
    narrow = np.array([[3, 4, 50, 60]], dtype)
    assert floats(narrow, up_to=end).tolist() == [FLAT]
    with pytest.raises(InputError, match="wrapped around"):
        floats(narrow, up_to=end + 1)
    with pytest.raises(InputError, match="wrapped around"):
        check_boxes(list(narrow), 640, 480)
    assert check_boxes(narrow, 100, 90).tolist() == [FLAT]


@pytest.mark.parametrize("value", [1, 1.5, np.float32(2), np.int64(3), Fraction(1, 3)])
def test_one_number_is_a_number(value):
    assert is_number(value)


@pytest.mark.parametrize(
    "value", [True, np.True_, "1", None, 1j, np.nan, np.inf, 10**400, np.complex64(1), np.ones(1), [1]]
)
def test_what_is_not_one_finite_number_is_none(value):
    assert not is_number(value)


def test_detections_of_other_libraries_are_boxes_by_their_corners():
    found = SimpleNamespace(xyxy=np.array([FLAT], np.float32), confidence=np.array([0.9]))
    assert check_boxes(found, 640, 480).tolist() == [FLAT]


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, np.float16, Fraction, int])
def test_a_camera_holds_plain_numbers(kind):
    camera = Intrinsics(*(kind(each) for each in (500, 510, 320, 240)))
    assert [type(each) for each in (camera.fx, camera.fy, camera.cx, camera.cy)] == [float] * 4
    assert camera == Intrinsics(500, 510, 320, 240)


@pytest.mark.parametrize(
    "value", [True, "500", 1j, np.complex64(500), 10**400, 10**5000, 1e-300, 1e-4, 1e7, 1e308, None], ids=repr_of
)
def test_what_no_lens_has_for_a_focal_length_is_refused(value):
    with pytest.raises(InputError, match="focal lengths"):
        Intrinsics(value, 500, 320, 240)


@pytest.mark.parametrize("value", [1e300, -1e300, 1e7, 10**400])
def test_a_principal_point_beyond_any_image_is_refused(value):
    with pytest.raises(InputError, match="camera is not valid"):
        Intrinsics(500, 500, value, 240)


def test_a_matrix_with_rounding_errors_and_a_factor_is_taken():
    exact = Intrinsics(1012.5, 1013.25, 640.5, 360.25)
    rotated = np.linalg.inv(np.linalg.inv(exact.matrix.astype(np.float32)).astype(np.float32)).astype(np.float32)
    for matrix in (rotated, rotated * 3):
        found = Intrinsics.from_matrix(matrix)
        # The inverse of an inverse in float32: some units in the last place of numbers up to 1,013.
        assert np.allclose([found.fx, found.fy, found.cx, found.cy], [1012.5, 1013.25, 640.5, 360.25], rtol=1e-5)
    skewed = exact.matrix
    skewed[0, 1] = 1e-12
    assert Intrinsics.from_matrix(skewed) == exact
    assert Intrinsics.from_matrix(exact.matrix * 2) == exact


@pytest.mark.parametrize("matrix", [-np.eye(3), np.diag([500.0, 500, 0]), np.diag([500.0, 500, np.nan])])
def test_a_matrix_without_a_positive_scale_is_refused(matrix):
    with pytest.raises(InputError, match="not a camera matrix"):
        Intrinsics.from_matrix(matrix)


def test_meshes_of_a_numpy_camera_are_a_json_document(meshes):
    camera = Intrinsics(*np.float32([300, 310, 155, 125]))
    assert json.loads(json.dumps(dataclasses.replace(meshes, intrinsics=camera).to_document()))["intrinsics"]["fx"] == 300


@pytest.mark.parametrize("value", ["0.5", None, True, np.nan, 1j, 10**400, [0.5], -0.1])
def test_options_that_are_no_numbers_are_refused(value):
    for name in ("detect_every", "score", "confidence"):
        with pytest.raises(InputError, match=name):
            FollowOptions(**{name: value})
    with pytest.raises(InputError, match="threshold"):
        open_detector("nanodet", threshold=value)
    for window in [Window(start=value), Window(end=value)] if value is not None else []:
        with pytest.raises(InputError, match=r"start|end"):
            window.check()


@pytest.mark.parametrize("value", ["2", True, 1.5, 0, -1, 10**400 * -1])
def test_counts_that_are_no_whole_numbers_are_refused(value):
    with pytest.raises(InputError, match="most"):
        FollowOptions(most=value)
    with pytest.raises(InputError, match="stride"):
        Window(every=value).check()


@pytest.mark.parametrize("scores", [["0.9"], [True], [1j], [10**400], None])
def test_a_detectors_scores_that_are_no_numbers_are_refused(scores):
    found = SimpleNamespace(boxes=[FLAT], scores=scores)
    with pytest.raises(BackendError, match="cannot be used"):
        find_persons(lambda image: found, np.zeros((90, 100, 3), np.uint8))


@pytest.mark.parametrize(
    "frame, time", [(10**400, 0.0), (1 << 62, 0.0), ("1", 0.0), (True, 0.0), (1, 10**400), (1, "0"), (1, np.nan)]
)
def test_a_frame_whose_number_or_time_is_none_is_refused(frame, time):
    with MotionBuilder() as builder, pytest.raises(InputError, match="cannot be added"):
        builder.add(frame, time)


@pytest.mark.parametrize("scores", [["0.9", "0.8"], [True, True], [10**400, 1]])
def test_scores_of_a_motion_that_are_no_numbers_are_refused(meshes, scores):
    with MotionBuilder() as builder, pytest.raises(InputError, match="scores are not numbers"):
        builder.add(0, 0.0, meshes, [1, 2], scores)
