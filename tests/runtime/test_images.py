"""Images and boxes that cannot be used, and the words that they are refused with."""

import numpy as np
import pytest

from glnet_infer import GlnetError, InputError
from glnet_infer.images import check_boxes, check_image

GOOD = np.zeros((4, 6, 3), dtype=np.uint8)


def message(error) -> str:
    assert isinstance(error.value, GlnetError) and isinstance(error.value, ValueError)
    assert "why:" in str(error.value) or "what to do:" in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "image, words",
    [
        pytest.param(None, ["NoneType", "cv2.imread"], id="None"),
        pytest.param("photo.jpg", ["str", "cv2.imread"], id="path"),
        pytest.param(GOOD.tolist(), ["list", "numpy"], id="nested lists"),
        pytest.param(GOOD[..., 0], ["grey", "(4, 6)", "COLOR_GRAY2BGR"], id="grey"),
        pytest.param(GOOD[..., :1], ["grey", "(4, 6, 1)", "COLOR_GRAY2BGR"], id="grey with channel"),
        pytest.param(np.zeros((4, 6, 4), np.uint8), ["four channels", "COLOR_BGRA2BGR"], id="alpha"),
        pytest.param(GOOD.astype(np.float32), ["float32", "0..255", "uint8"], id="float"),
        pytest.param(GOOD.astype(np.uint16), ["uint16", "uint8"], id="16 bits"),
        pytest.param(GOOD.astype(bool), ["bool", "uint8"], id="mask"),
        pytest.param(GOOD[:0], ["empty", "(0, 6, 3)"], id="no rows"),
        pytest.param(GOOD[:, :0], ["empty", "(4, 0, 3)"], id="no columns"),
        pytest.param(GOOD[None], ["(1, 4, 6, 3)", "H x W x 3"], id="batch of one"),
        pytest.param(GOOD.transpose(2, 0, 1), ["(3, 4, 6)", "H x W x 3"], id="channels first"),
        pytest.param(GOOD.ravel(), ["(72,)", "H x W x 3"], id="flat"),
    ],
)
def test_what_is_no_bgr_image_is_refused_with_the_remedy(image, words):
    with pytest.raises(InputError) as error:
        check_image(image)
    for word in words:
        assert word in message(error)


def test_a_good_image_is_handed_on_without_a_copy():
    assert check_image(GOOD) is GOOD


@pytest.mark.parametrize(
    "boxes, words",
    [
        pytest.param([[0, 0, 5, 4], [0, np.nan, 5, 4]], ["Box 1", "not finite", "NaN"], id="NaN"),
        pytest.param([[0, 0, np.inf, 4]], ["Box 0", "not finite"], id="infinite"),
        pytest.param([[0, 0, -np.inf, 4]], ["Box 0", "not finite"], id="minus infinite"),
        pytest.param([[np.inf, 2, np.inf, 4]], ["Box 0", "not finite"], id="infinite twice, without a warning of NumPy's"),
        pytest.param([[5, 0, 1, 4]], ["Box 0", "no area", "x1 < x2"], id="inverted in x"),
        pytest.param([[1, 4, 5, 0]], ["Box 0", "no area", "y1 < y2"], id="inverted in y"),
        pytest.param([[1, 1, 4, 3], [2, 1, 2, 3]], ["Box 1", "no area"], id="zero width"),
        pytest.param([[2, 1, 4, 1]], ["Box 0", "no area"], id="zero height"),
        pytest.param([0, 0, 5, 4], ["(4,)", "[[x1, y1, x2, y2]]"], id="flat list of four"),
        pytest.param([[0, 0, 5, 4, 0.9]], ["(1, 5)", "score"], id="with score"),
        pytest.param([[0, 0, 5]], ["(1, 3)", "x1, y1, x2, y2"], id="three columns"),
        pytest.param([[[0, 0, 5, 4]]], ["(1, 1, 4)", "N rows"], id="batch of one"),
        pytest.param(7, ["()", "N rows"], id="a number"),
        pytest.param("0,0,5,4", ["not numbers", "N rows"], id="text"),
        pytest.param([["left", 0, 5, 4]], ["not numbers", "N rows"], id="text inside"),
        pytest.param([[0, 0, 5, 4], [0, 0, 5]], ["not numbers", "N rows"], id="ragged"),
        pytest.param({"box": [0, 0, 5, 4]}, ["not numbers", "N rows"], id="dict"),
        pytest.param([[6, 0, 9, 4]], ["Box 0", "outside the 6 x 4 image", "resized"], id="right of the image"),
        pytest.param([[-9, 0, 0, 4]], ["Box 0", "outside the 6 x 4 image"], id="left of the image"),
        pytest.param([[0, 4, 5, 9]], ["Box 0", "outside the 6 x 4 image"], id="below the image"),
        pytest.param([[0, -9, 5, -1]], ["Box 0", "outside the 6 x 4 image"], id="above the image"),
        pytest.param([[0.2, 0.1, 0.7, 0.9]], ["Box 0", "smaller than 2 pixels", "normalised"], id="in image sizes"),
        pytest.param([[-1e9, -1e9, 1e9, 1e9]], ["Box 0", "pixels of the image"], id="astronomical"),
        pytest.param([[], []], ["(2, 0)"], id="two boxes without numbers"),
    ],
)
def test_what_are_no_boxes_is_refused_with_the_number_of_the_box(boxes, words):
    with pytest.raises(InputError) as error:
        check_boxes(boxes, 6, 4)
    for word in words:
        assert word in message(error)


def test_no_boxes_given_means_the_whole_image():
    assert check_boxes(None, 6, 4).tolist() == [[0, 0, 6, 4]]


@pytest.mark.parametrize("boxes", [[], (), np.zeros((0, 4)), np.zeros((0, 4), np.int64)])
def test_an_empty_list_of_boxes_stays_empty(boxes):
    checked = check_boxes(boxes, 6, 4)
    assert checked.shape == (0, 4) and checked.dtype == np.float64


@pytest.mark.parametrize("box", [[-2, -1, 3, 2], [5.9, 3.9, 60, 40], [-50, -50, 50, 50], [1, 1, 3, 1.01]])
@pytest.mark.parametrize("kind", [list, np.float32, np.float64])
def test_boxes_over_the_edge_are_kept_as_given(box, kind):
    given = [box] if kind is list else np.array([box], dtype=kind)
    assert check_boxes(given, 6, 4).tolist() == np.asarray(given, dtype=np.float64).tolist()


def test_boxes_of_whole_numbers_are_taken():
    assert check_boxes(np.array([[1, 1, 3, 2]], dtype=np.int32), 6, 4).tolist() == [[1, 1, 3, 2]]


def test_the_recoverer_checks_image_boxes_and_intrinsics(recoverer):
    image = np.zeros((40, 60, 3), np.uint8)
    with pytest.raises(InputError, match=r"cv2\.imread"):
        recoverer(None)
    with pytest.raises(InputError, match="no area"):
        recoverer(image, [[5, 0, 1, 4]])
    with pytest.raises(InputError, match="camera matrix"):
        recoverer(image, intrinsics=[500, 500, 30, 20])
