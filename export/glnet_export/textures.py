"""Crops to compare numbers on: no photographs needed, yet with the structure that noise lacks."""

import cv2
import numpy as np
from numpy.typing import NDArray


def textured_crops(count: int, size: int, seed: int = 0) -> NDArray[np.uint8]:
    """Crops with shading, overlapping shapes with edges, and texture at several scales.

    Pure noise excites a convolutional network evenly; shading and edges give the spread of activations, and the clear
    maxima of the confidence map, that rounding errors must be judged on.

    Args:
        count: How many.
        size: Side in pixels.
        seed: Seed of the pictures.

    Returns:
        count x size x size x 3 uint8.
    """
    generator = np.random.default_rng(seed)
    return np.stack([_picture(generator, size) for _ in range(count)])


def _picture(generator: np.random.Generator, size: int) -> NDArray[np.uint8]:
    canvas = cv2.resize(generator.uniform(0, 255, (3, 3, 3)).astype(np.float32), (size, size))
    for _ in range(generator.integers(8, 24)):
        center = generator.uniform(0, size, 2)
        axes = generator.uniform(size / 40, size / 4, 2)
        color = generator.uniform(0, 255, 3).tolist()
        cv2.ellipse(canvas, (center.tolist(), axes.tolist(), generator.uniform(0, 360)), color, -1, cv2.LINE_AA)
    for cells in (8, 32, 128):
        texture = generator.normal(0, 12, (cells, cells, 3)).astype(np.float32)
        canvas += np.asarray(cv2.resize(texture, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)
    return canvas.clip(0, 255).astype(np.uint8)
