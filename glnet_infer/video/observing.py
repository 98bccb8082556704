"""What is seen in frames: boxes by a detector, meshes by the network. Following persons needs no more of a frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glnet_infer.camera import Intrinsics
from glnet_infer.detection import Detector, find_persons
from glnet_infer.results.meshes import Meshes
from glnet_infer.video.sources import VideoFrame
from glnet_infer.video.tracks import colours


class Recovers(Protocol):
    """What recovers persons: a :class:`glnet_infer.MeshRecoverer`, for example."""

    def prepare(self, image: Any, boxes: ArrayLike | None, intrinsics: Any) -> Any:
        """The persons of an image, ready for :meth:`recover`."""

    def recover(self, images: Sequence[Any]) -> list[Meshes]:
        """The meshes of several images' persons, in the order of their boxes."""


@dataclass(frozen=True, eq=False)
class Seen:
    """Who is detected in a frame.

    Attributes:
        boxes: N x 4 float64, x1, y1, x2, y2 in pixels.
        scores: N float32, 0 to 1.
        looks: N x 64 float64, what :func:`glnet_infer.video.tracks.colours` says of the boxes.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float32]
    looks: NDArray[np.float64]


class Observes(Protocol):
    """What sees persons in frames: :class:`Observer`, or what remembers one's answers."""

    def find(self, frame: VideoFrame) -> Seen:
        """Who is detected in a frame.

        Raises:
            InputError: The frame cannot be used.
            BackendError: The detector failed.
        """

    def recover(self, frames: Sequence[VideoFrame], boxes: Sequence[NDArray[np.float64]]) -> list[Meshes]:
        """The meshes of each frame's persons, in the order of their boxes, N x 4.

        Raises:
            InputError: A frame cannot be used.
            BackendError: The network failed.
        """


class Observer:
    """Sees persons by a detector and a network.

    Args:
        recoverer: What recovers persons from boxes.
        detector: What finds boxes; better with unsure ones, too.
        intrinsics: The camera; None: guessed from the image's size.
    """

    def __init__(self, recoverer: Recovers, detector: Detector, intrinsics: Intrinsics | None = None) -> None:
        self._recoverer, self._detector, self._intrinsics = recoverer, detector, intrinsics

    def find(self, frame: VideoFrame) -> Seen:
        """See :class:`Observes`."""
        found = find_persons(self._detector, frame.image)
        return Seen(found.boxes, found.scores, colours(frame.image, found.boxes))

    def recover(self, frames: Sequence[VideoFrame], boxes: Sequence[NDArray[np.float64]]) -> list[Meshes]:
        """See :class:`Observes`."""
        return self._recoverer.recover(
            [
                self._recoverer.prepare(frame.image, each, self._intrinsics)
                for frame, each in zip(frames, boxes, strict=True)
            ]
        )
