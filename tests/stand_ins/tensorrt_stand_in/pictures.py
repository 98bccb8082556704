"""Crops, frames, boxes and cameras made for tests."""

import numpy as np

from glnet_infer.contract import CropSpec
from glnet_infer.crops import CropSquares
from tensorrt_stand_in.computing import FRAME, SIDE

WIDTH, HEIGHT = FRAME
BOXES = np.array([[5.0, 3, 40, 60], [-10, 20, 30, 70], [50, -5, 110, 40], [2, 2, 8, 9], [-90, -90, 200, 200]])


def batch(count, seed=0):
    generator = np.random.default_rng(seed)
    crops = generator.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
    return crops, generator.normal(size=(count, 4)).astype(np.float32)


def frame_of(width=WIDTH, height=HEIGHT, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def inputs(count, width=WIDTH, height=HEIGHT, seed=0):
    """Squares and cameras of boxes inside and over the edges."""
    generator = np.random.default_rng(seed)
    corners = generator.uniform(-0.2, 0.7, (count, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(0.2, 0.9, (count, 2))], axis=1)
    squares = CropSquares.around(boxes * [width, height, width, height], CropSpec(SIDE))
    return squares.in_frame(width, height), generator.normal(size=(count, 4)).astype(np.float32)
