"""Persons of images, ready for the network, and images in groups that it runs together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glnet_infer.backends import Frame
from glnet_infer.camera import Intrinsics
from glnet_infer.crops import CropSquares
from glnet_infer.detection import Detector, find_persons
from glnet_infer.device_arrays import COPY_TO_HOST
from glnet_infer.errors import InputError


@dataclass(frozen=True, eq=False)
class Persons:
    """The persons of one image, ready for the network.

    Attributes:
        boxes: N x 4 float64, x1, y1, x2, y2 in image pixels.
        squares: Places of their crops.
        cameras: N x 4 float32, the image's camera as each crop sees it.
        intrinsics: The image's camera.
        image_size: Width and height in pixels.
        crops: N x C x C x 3 uint8, RGB; None where the backend cuts them out of the frame.
        frame: The image, where the backend cuts the crops; else None, so that nothing holds on to it.
    """

    boxes: NDArray[np.float64]
    squares: CropSquares
    cameras: NDArray[np.float32]
    intrinsics: Intrinsics
    image_size: tuple[int, int]
    crops: NDArray[np.uint8] | None
    frame: Frame | None

    def __len__(self) -> int:
        return len(self.boxes)


_Item = TypeVar("_Item")


def in_groups(items: Iterable[_Item], fits: Callable[[list[_Item]], bool]) -> Iterator[list[_Item]]:
    """Neighbours in groups that fit, as large as they can be; what does not fit by itself is a group of its own."""
    group: list[_Item] = []
    for item in items:
        if group and not fits([*group, item]):
            yield group
            group = []
        group.append(item)
    if group:
        yield group


def with_boxes(images: Iterable[Any], boxes: Iterable[ArrayLike | None]) -> Iterator[tuple[Any, ArrayLike | None]]:
    """Each image with its boxes.

    Raises:
        InputError: There are not as many boxes as images.
    """
    try:
        yield from zip(images, boxes, strict=True)
    except ValueError as error:
        if "zip()" not in str(error):
            raise
        raise InputError(
            "There are not as many boxes as images.",
            why=str(error),
            fix="give one list of boxes for each image; an empty one where nobody is",
        ) from error


def found_boxes(frame: Frame, detector: Detector) -> NDArray[np.float64]:
    """Boxes of the persons that a detector finds in an image, N x 4.

    Raises:
        InputError: The image lies on the GPU.
        BackendError: The detector failed.
    """
    if not isinstance(frame, np.ndarray):
        raise InputError(
            "The image on the GPU came without boxes.",
            why="the detector takes images of the host",
            fix=f"give the persons' boxes, or {COPY_TO_HOST}",
        )
    return find_persons(detector, frame).boxes
