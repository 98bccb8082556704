"""Pictures of what a network recovers, to look at."""

import cv2
import numpy as np
from numpy.typing import NDArray

from glnet_infer.results.drawing import draw_meshes
from glnet_render.contact_sheet import contact_sheet

SIDE = 192
"""Side of a crop in the pictures, pixels."""

SHOWN = 10
"""Crops of each kind (best, median, worst) on a sheet."""


def overlay(
    crop: NDArray[np.uint8], vertices: NDArray[np.float32], faces: NDArray[np.int32], camera: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """A crop with the recovered mesh on it, SIDE x SIDE x 3, RGB.

    Args:
        crop: S x S x 3, RGB.
        vertices: V x 3, camera coordinates, metres.
        faces: F x 3.
        camera: 4, the camera of the crop, in crop sides.
    """
    fx, fy, cx, cy = (float(value) * SIDE for value in camera)
    matrix = np.array([[fx, 0, cx + SIDE / 2], [0, fy, cy + SIDE / 2], [0, 0, 1]])
    drawn = draw_meshes(enlarged(crop)[..., ::-1], vertices[None], faces, matrix)
    return np.ascontiguousarray(drawn[..., ::-1])


def enlarged(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A crop at the size of the pictures."""
    return np.asarray(cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def best_median_worst(errors: NDArray[np.float64]) -> list[int]:
    """Rows of the crops of least, middle and greatest error: :data:`SHOWN` of each kind, or fewer where there are fewer."""
    order = np.argsort(errors, kind="stable")
    shown = min(SHOWN, len(order))
    middle = (len(order) - shown) // 2
    return [*order[:shown], *order[middle : middle + shown], *order[len(order) - shown :]]


def sheet(
    crops: NDArray[np.uint8],
    vertices: NDArray[np.float32],
    faces: NDArray[np.int32],
    cameras: NDArray[np.float32],
    columns: int = SHOWN,
) -> NDArray[np.uint8]:
    """Rows of ``columns`` crops, and below each row the same crops with their meshes.

    Args:
        crops: N x S x S x 3, RGB.
        vertices: N x V x 3, camera coordinates, metres.
        faces: F x 3.
        cameras: N x 4, the cameras of the crops, in crop sides.
        columns: Crops in a row.
    """
    rows = []
    for start in range(0, len(crops), columns):
        part = range(start, min(start + columns, len(crops)))
        rows += [enlarged(crops[index]) for index in part]
        rows += [overlay(crops[index], vertices[index], faces, cameras[index]) for index in part]
    return contact_sheet(np.stack(rows), columns)
