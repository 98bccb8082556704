"""The one definition of a person's crop, and its OpenCV implementation.

A crop is a square about the middle of the person's box, ``padding`` times its longer side, sampled bilinearly at pixel
centres; outside the image it is black. Where a crop pixel covers two image pixels or more along a side, the image is
reduced first, so that none is left out: squares of 2, 4, 8 or 16 pixels (:data:`glnet_infer.contract.CROP_REDUCTIONS`),
counted from the image's upper left corner, are averaged, and the crop is sampled from the averages. The largest that a crop
pixel covers are taken. A square that reaches over the image's edge has black there.

Training, export and every backend use this definition. What is computed may be off by one grey level: averages are exact in
the crop engine and whole grey levels in OpenCV.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from glnet_infer.camera import Intrinsics
from glnet_infer.contract import CROP_REDUCTIONS, NO_SQUARE, CropSpec


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
        longer = ((high - low) * spec.counts).max(1, initial=0)
        return cls((low + high) / 2, longer * spec.padding, spec.size)

    @property
    def reductions(self) -> NDArray[np.int64]:
        """Image pixels along a side that are averaged before each crop is sampled: N of ``CROP_REDUCTIONS``."""
        return np.array(CROP_REDUCTIONS)[self._levels]

    @property
    def _levels(self) -> NDArray[np.intp]:
        """Places of :attr:`reductions` in ``CROP_REDUCTIONS``."""
        return np.maximum(np.searchsorted(CROP_REDUCTIONS, self.sides / self.size, side="right") - 1, 0)

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
        """The squares as crop engines take them: N x levels x 4, ``glnet_infer.contract.CROP_INPUTS``."""
        reductions = self.reductions[:, None]
        # The reduced frame ends with a whole square of pixels.
        frame = -(-np.array([width, height]) // reductions) * reductions
        squares = np.tile(np.array(NO_SQUARE, np.float32), (len(self.sides), len(CROP_REDUCTIONS), 1))
        squares[np.arange(len(self.sides)), self._levels] = np.concatenate(
            [self.centers * 2 / frame - 1, self.sides[:, None] / frame], axis=1
        )
        return squares


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
    for crop, center, side, reduction in zip(crops, squares.centers, squares.sides, squares.reductions, strict=True):
        source, corner = (image, 0) if reduction == 1 else _reduced(image, center, side, int(reduction))
        scale = side / reduction / size
        # From crop to image, in OpenCV's coordinates, where whole numbers are pixel centres.
        shift = center / reduction - corner - scale * (size - 1) / 2 - 0.5
        matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        warped = cv2.warpAffine(source, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_CONSTANT)
        cv2.cvtColor(warped, cv2.COLOR_BGR2RGB, dst=crop)
    return crops


def _reduced(
    image: NDArray[np.uint8], center: NDArray[np.float64], side: float, reduction: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The part of an image that a crop shows, reduced, and the place of its corner, x and y in reduced pixels."""
    height, width = image.shape[:2]
    whole = np.ceil(np.array([width, height]) / reduction)
    # The outermost samples are half a crop pixel inside, so that their neighbours are too. Where the crop shows nothing of
    # the image, one pixel is left.
    first = np.clip(np.floor((center - side / 2) / reduction), 0, whole - 1)
    last = np.clip(np.ceil((center + side / 2) / reduction), first + 1, whole)
    (left, top), (right, bottom) = (places.astype(np.int64) * reduction for places in (first, last))
    part = image[top:bottom, left:right]
    below, beside = max(bottom - height, 0), max(right - width, 0)
    if below or beside:
        part = np.asarray(cv2.copyMakeBorder(part, 0, below, 0, beside, cv2.BORDER_CONSTANT), np.uint8)
    size = ((right - left) // reduction, (bottom - top) // reduction)
    return np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8), first
