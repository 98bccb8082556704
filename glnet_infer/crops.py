"""The one definition of a person's crop, and its OpenCV implementation.

A crop is a square about the middle of the person's box, ``padding`` times its longer side, sampled bilinearly at pixel
centres; outside the image it is black. Training, export and every backend use this definition.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from glnet_infer.camera import Intrinsics
from glnet_infer.contract import CropSpec


@dataclass(frozen=True)
class CropSquares:
    """Places of N crops in the image.

    Attributes:
        centers: N x 2, image pixels.
        sides: N, image pixels.
        size: Side of every crop, in its own pixels.
    """

    centers: NDArray[np.float64]
    sides: NDArray[np.float64]
    size: int

    @classmethod
    def around(cls, boxes: NDArray[np.float64], spec: CropSpec) -> CropSquares:
        """The squares of N x 4 boxes (x1, y1, x2, y2)."""
        low, high = boxes[:, :2], boxes[:, 2:]
        wide_as_high = (high - low) / (spec.aspect, 1)
        return cls((low + high) / 2, wide_as_high.max(1, initial=0) * spec.padding, spec.size)

    def to_image(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Image pixels of points in crop pixels; N x 2 or N x K x 2, crop by crop."""
        points = np.asarray(points, dtype=np.float64)
        shape = (-1,) + (1,) * (points.ndim - 2)
        scale = (self.sides / self.size).reshape((*shape, 1))
        return (points - self.size / 2) * scale + self.centers.reshape((*shape, 2))

    def cameras(self, intrinsics: Intrinsics) -> NDArray[np.float32]:
        """The image's camera as each crop sees it: N x 4, the graph's ``cameras`` input."""
        focal = np.array([intrinsics.fx, intrinsics.fy]) / self.sides[:, None]
        center = (np.array([intrinsics.cx, intrinsics.cy]) - self.centers) / self.sides[:, None]
        return np.concatenate([focal, center], axis=1).astype(np.float32)

    def in_frame(self, width: int, height: int) -> NDArray[np.float32]:
        """The squares as crop engines take them: N x 4, ``glnet_infer.contract.CROP_INPUTS``."""
        frame = np.array([width, height], dtype=np.float64)
        return np.concatenate([self.centers * 2 / frame - 1, self.sides[:, None] / frame], axis=1).astype(np.float32)


def cut_crops(image: NDArray[np.uint8], squares: CropSquares) -> NDArray[np.uint8]:
    """Cut crops out of a BGR image.

    Args:
        image: H x W x 3 uint8, BGR.
        squares: Places of the N crops.

    Returns:
        N x size x size x 3 uint8, RGB.
    """
    size = squares.size
    crops = np.empty((len(squares.sides), size, size, 3), dtype=np.uint8)
    for crop, center, side in zip(crops, squares.centers, squares.sides, strict=True):
        scale = side / size
        # From crop to image, in OpenCV's coordinates, where whole numbers are pixel centres.
        shift = center - scale * (size - 1) / 2 - 0.5
        matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        warped = cv2.warpAffine(image, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_CONSTANT)
        cv2.cvtColor(warped, cv2.COLOR_BGR2RGB, dst=crop)
    return crops
