"""Frames with persons' boxes to measure on: made, not read, so that everyone measures on the same pixels."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from glnet_bench.settings import Frame
from glnet_export.textures import textured_crops

_TEXTURE_SIDE = 1024

JPEG_QUALITY = 90
"""JPEG quality of the encoded frame, for the decoding stage."""


@dataclass(frozen=True)
class Scene:
    """A frame with persons.

    Attributes:
        image: H x W x 3 uint8, BGR.
        encoded: The same as a JPEG file's bytes.
        boxes: N x 4, image pixels.
    """

    image: NDArray[np.uint8]
    encoded: NDArray[np.uint8]
    boxes: NDArray[np.float64]

    @classmethod
    def make(cls, frame: Frame, persons: int) -> Scene:
        """Textures with shading and edges, and boxes of standing persons, half the frame high, side by side."""
        image, encoded = _picture(frame.width, frame.height)
        height = frame.height / 2
        width = min(height / 2, frame.width / 2)
        left = np.linspace(0, frame.width - width, persons) if persons > 1 else np.array([(frame.width - width) / 2])
        top = np.where(np.arange(persons) % 2, 0.4, 0.1) * frame.height
        boxes = np.stack([left, top, left + width, top + height], axis=1)
        return cls(image, encoded, boxes)


@functools.cache
def _picture(width: int, height: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A frame and its file, once for all numbers of persons: a 4K frame has 25 MB."""
    image = cv2.resize(_texture(), (width, height), interpolation=cv2.INTER_CUBIC)
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return np.asarray(image, dtype=np.uint8), np.asarray(encoded, dtype=np.uint8)


@functools.cache
def _texture() -> NDArray[np.uint8]:
    return np.asarray(textured_crops(1, _TEXTURE_SIDE, seed=0)[0])


def decode(encoded: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A JPEG's pixels."""
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), dtype=np.uint8)


def batch(crops: int, size: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Crops and their cameras, as the graph takes them."""
    pictures = textured_crops(min(crops, 4), size, seed=1)
    cameras = np.tile(np.array([1000 / 256, 1000 / 256, 0, 0], dtype=np.float32), (crops, 1))
    return np.ascontiguousarray(np.resize(pictures, (crops, size, size, 3))), cameras
