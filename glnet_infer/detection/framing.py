"""Images brought to a detector's input size, and its boxes brought back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from glnet_infer.detection.base import Detections
from glnet_infer.images import MINIMUM_SIDE

OVERLAP = 0.6
"""Intersection over union from which two boxes are one person, in detectors that leave duplicates."""

_MOST_CANDIDATES = 3000
"""Boxes that are compared with each other; the surest. A network that finds persons everywhere must not take minutes."""


@dataclass(frozen=True)
class Framed:
    """An image at the size that a detector takes.

    Attributes:
        canvas: H x W x 3 uint8, BGR.
        scale: Canvas pixels per image pixel, along x and y.
        corner: Where the image's top left corner lies on the canvas, x and y.
        size: Width and height of the image.
    """

    canvas: NDArray[np.uint8]
    scale: tuple[float, float]
    corner: tuple[int, int]
    size: tuple[int, int]

    def to_image(self, boxes: NDArray[np.floating]) -> NDArray[np.float64]:
        """Boxes in image pixels, of boxes N x 4 in canvas pixels."""
        return (boxes.astype(np.float64) - self.corner * 2) / (self.scale * 2)


def stretched(image: NDArray[np.uint8], width: int, height: int) -> Framed:
    """The whole canvas filled, whatever the proportions."""
    size = (image.shape[1], image.shape[0])
    canvas = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return Framed(np.asarray(canvas, np.uint8), (width / size[0], height / size[1]), (0, 0), size)


def letterboxed(
    image: NDArray[np.uint8],
    width: int,
    height: int,
    *,
    pad: int,
    centred: bool = False,
    rounded: Callable[[float], int] = round,
    smooth: bool = False,
) -> Framed:
    """Proportions kept, the rest of the canvas filled with grey.

    Args:
        image: H x W x 3 uint8.
        width: The canvas's width in pixels.
        height: The canvas's height in pixels.
        pad: Grey level of what the image leaves.
        centred: Whether the image lies in the middle of the canvas; else at its top left.
        rounded: Makes whole pixels of the image's new sides.
        smooth: Whether pixels are averaged where the image shrinks; else they are interpolated.
    """
    size = (image.shape[1], image.shape[0])
    ratio = min(width / size[0], height / size[1])
    inner = (max(rounded(size[0] * ratio), 1), max(rounded(size[1] * ratio), 1))
    how = cv2.INTER_AREA if smooth and ratio < 1 else cv2.INTER_LINEAR
    left, top = ((width - inner[0]) // 2, (height - inner[1]) // 2) if centred else (0, 0)
    canvas = np.full((height, width, 3), pad, np.uint8)
    canvas[top : top + inner[1], left : left + inner[0]] = cv2.resize(image, inner, interpolation=how)
    return Framed(canvas, (inner[0] / size[0], inner[1] / size[1]), (left, top), size)


def detections(
    boxes: ArrayLike, scores: ArrayLike, size: tuple[int, int], threshold: float, *, duplicates: bool
) -> Detections:
    """A network's boxes as persons: sure enough, cut off at the image's edge, each once, the surest first.

    Args:
        boxes: N x 4, in image pixels.
        scores: N.
        size: Width and height of the image.
        threshold: Least score.
        duplicates: Whether the network gives several boxes of one person.
    """
    found, sure = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(scores, np.float32).reshape(-1)
    kept = (sure >= threshold) & (sure > 0) & np.isfinite(sure) & np.isfinite(found).all(1)
    found = np.clip(found[kept], 0, size * 2)
    sure = sure[kept]
    large = (found[:, 2] - found[:, 0] >= MINIMUM_SIDE) & (found[:, 3] - found[:, 1] >= MINIMUM_SIDE)
    ordered = Detections(found[large], sure[large]).best(_MOST_CANDIDATES)
    if not duplicates or len(ordered) < 2:
        return ordered
    corners_and_sides = np.concatenate([ordered.boxes[:, :2], ordered.boxes[:, 2:] - ordered.boxes[:, :2]], axis=1)
    first = cv2.dnn.NMSBoxes(corners_and_sides.tolist(), ordered.scores.tolist(), 0.0, OVERLAP)
    chosen = np.sort(np.asarray(first, np.int64).reshape(-1))
    return Detections(ordered.boxes[chosen], ordered.scores[chosen])
