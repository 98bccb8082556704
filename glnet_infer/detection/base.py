"""The protocol of person detectors, and what they return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from glnet_infer.errors import BackendError, InputError
from glnet_infer.images import check_boxes, check_image
from glnet_infer.numbers import as_floats

DEFAULT_THRESHOLD = 0.4
"""Score from which a detection counts as a person."""


@dataclass(frozen=True, eq=False)
class Detections:
    """The persons that a detector found in one image, the surest first.

    Attributes:
        boxes: N x 4 float64, x1, y1, x2, y2 in image pixels, inside the image.
        scores: N float32, 0 to 1.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.boxes)

    def best(self, most: int | None) -> Detections:
        """The ``most`` detections with the highest scores; all of them where it is None."""
        order = np.argsort(-self.scores, kind="stable")[:most]
        return Detections(self.boxes[order], self.scores[order])


class Detector(Protocol):
    """Finds the persons in an image. May be called from several threads at once."""

    def __call__(self, image: NDArray[np.uint8]) -> Detections:
        """The persons in an image: H x W x 3 uint8, BGR.

        Raises:
            InputError: The image cannot be used.
            BackendError: The detector failed.
        """


def find_persons(detector: Detector, image: NDArray[np.uint8]) -> Detections:
    """What a detector finds, checked: it may be another package's.

    Raises:
        InputError: The image cannot be used.
        BackendError: The detector failed, or gave boxes or scores that cannot be used.
    """
    found = detector(image)
    try:
        boxes = check_boxes(found.boxes, image.shape[1], image.shape[0])
        scores = as_floats(found.scores, "The scores are not numbers.", fix="").astype(np.float32)
        if scores.shape != (len(boxes),):
            raise InputError(f"The scores have shape {scores.shape} for {len(boxes)} boxes.")
    except InputError as error:
        raise BackendError(
            "The detector gave boxes that cannot be used.", why=error.what, fix="correct it, or use the detector nanodet"
        ) from error
    return Detections(boxes, scores)


class WholeImage:
    """The detector ``none``: one person fills the image, with score 1."""

    def __call__(self, image: NDArray[np.uint8]) -> Detections:
        """See :class:`Detector`."""
        height, width = check_image(image).shape[:2]
        return Detections(np.array([[0.0, 0.0, width, height]]), np.ones(1, np.float32))
