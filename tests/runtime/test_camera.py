"""The pinhole camera against OpenCV's, and the crops' cameras against the image's."""

import cv2
import numpy as np
import pytest

from glnet_infer import InputError, Intrinsics
from glnet_infer.contract import CropSpec
from glnet_infer.crops import CropSquares

CAMERA = Intrinsics(812.5, 790.25, 611.0, 402.5)
POINTS = np.random.default_rng(0).uniform((-2, -2, 0.5), (2, 2, 9), (200, 3))


def test_guess_has_the_diagonal_as_focal_length_and_looks_at_the_middle():
    assert Intrinsics.guess(300, 400) == Intrinsics(500.0, 500.0, 150.0, 200.0)


def test_matrix_and_back_is_the_same_camera():
    assert Intrinsics.from_matrix(CAMERA.matrix) == CAMERA
    assert CAMERA.matrix.tolist() == [[812.5, 0, 611.0], [0, 790.25, 402.5], [0, 0, 1]]
    assert Intrinsics.from_matrix([[500, 0, 320], [0, 510, 240], [0, 0, 1]]) == Intrinsics(500, 510, 320, 240)


@pytest.mark.parametrize(
    "matrix, words",
    [
        ([500, 510, 320, 240], "3 x 3"),
        (np.eye(4), "3 x 3"),
        ([[500, 2, 320], [0, 510, 240], [0, 0, 1]], "undistort"),
        ([[500, 0, 320], [3, 510, 240], [0, 0, 1]], "3 x 3"),
        ([[500, 0, 320], [0, 510, 240], [0, 0, -1]], "3 x 3"),
        ([[500, 0, 0], [0, 510, 0], [320, 240, 1]], "3 x 3"),
        ([[0, 0, 320], [0, 510, 240], [0, 0, 1]], "positive"),
        ([[500, 0, 320], [0, -510, 240], [0, 0, 1]], "positive"),
        ([[500, 0, np.nan], [0, 510, 240], [0, 0, 1]], "finite"),
        ([[np.inf, 0, 320], [0, 510, 240], [0, 0, 1]], "finite"),
        ([[1e300, 0, 320], [0, 1e300, 240], [0, 0, 1e-300]], "finite"),
        ("camera", "numbers"),
        ([[500, 0], [0, 510, 240], [0, 0, 1]], "numbers"),
        ({"fx": 500}, "numbers"),
    ],
)
def test_what_is_no_camera_matrix_is_refused_in_words(matrix, words):
    with pytest.raises(InputError, match=words):
        Intrinsics.from_matrix(matrix)


@pytest.mark.parametrize("values", [(0, 1, 1, 1), (1, -1, 1, 1), (1, 1, np.nan, 1), (1, np.inf, 1, 1), (None, 1, 1, 1)])
def test_values_that_are_no_camera_are_refused_in_words(values):
    with pytest.raises(InputError, match="focal lengths are positive"):
        Intrinsics(*values)


def test_projection_is_opencvs():
    # OpenCV's formula knows no pixel raster: with the matrix in continuous pixels, so is its result.
    expected, _ = cv2.projectPoints(POINTS, np.zeros(3), np.zeros(3), CAMERA.matrix, None)
    assert np.abs(CAMERA.project(POINTS) - expected[:, 0]).max() < 1e-9  # px; float64 at some thousand pixels
    stacked = CAMERA.project(POINTS.reshape(4, 50, 3))
    assert stacked.shape == (4, 50, 2)
    assert np.array_equal(stacked.reshape(-1, 2), CAMERA.project(POINTS))


@pytest.mark.parametrize(
    "box",
    [
        (400, 200, 700, 650),
        (-300, -200, 90.5, 60.25),
        (1100, 700, 1500, 1090),
        (600, 400, 603, 404.5),
        (-5000, -4000, 6000, 5000),
    ],
)
@pytest.mark.parametrize("camera", [CAMERA, Intrinsics.guess(1200, 800), Intrinsics(300.0, 900.0, -40.0, 1000.0)])
def test_a_crops_camera_sees_what_the_images_camera_sees(box, camera):
    squares = CropSquares.around(np.array([box], dtype=np.float64), CropSpec())
    fx, fy, cx, cy = squares.cameras(camera)[0].astype(np.float64)
    assert squares.cameras(camera).dtype == np.float32
    # In crop sides from the crop's centre (manifest.GRAPH_INPUTS), by OpenCV.
    matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    in_sides = cv2.projectPoints(POINTS, np.zeros(3), np.zeros(3), matrix, None)[0][:, 0]
    in_image = squares.to_image(((in_sides + 0.5) * 256)[None])[0]
    # 1e-3 px: the camera is float32, 6e-8 of some thousand pixels.
    assert np.abs(in_image - camera.project(POINTS)).max() < 1e-3
