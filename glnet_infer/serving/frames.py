"""From the arrays of a request to the arrays of its answer: one image, its persons, their meshes.

This module is the one place where names, types and shapes of such requests and answers are written down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glnet_infer.backends import Backend
from glnet_infer.bundle import Bundle
from glnet_infer.camera import Intrinsics
from glnet_infer.contract import GRAPH_OUTPUTS, TensorSpec
from glnet_infer.detection import DEFAULT_DETECTOR
from glnet_infer.errors import InputError
from glnet_infer.image_files import decode_picture
from glnet_infer.persons import Persons
from glnet_infer.recoverer import MeshRecoverer
from glnet_infer.results.meshes import Meshes

MOST_BOXES = 1000
"""Persons in one request: each takes a crop in memory, and a request may name any number."""

FRAME_INPUTS: tuple[TensorSpec, ...] = (
    TensorSpec("image", "bytes", (1,), "an image file, such as a JPEG or PNG; this or frame"),
    TensorSpec("frame", "uint8", ("H", "W", 3), "an image as it is decoded, BGR; this or image"),
    TensorSpec("boxes", "float64", ("N", 4), "x1, y1, x2, y2 in image pixels; without them, persons are looked for"),
    TensorSpec("camera", "float64", (4,), "fx, fy, cx, cy in image pixels; without it, a guess"),
)
"""Inputs of a request. Each is optional, but that there is exactly one image. Triton puts a side of 1 before all others."""

_IN_THE_IMAGE = {"keypoints_2d": "regressed keypoints x, y in image pixels", "reference_pixel": ""}

FRAME_OUTPUTS: tuple[TensorSpec, ...] = (
    *(
        TensorSpec(spec.name, spec.dtype, spec.shape, _IN_THE_IMAGE.get(spec.name, spec.meaning))
        for spec in GRAPH_OUTPUTS
        if spec.name != "reference_pixel"
    ),
    TensorSpec("reference_points", "float32", ("N", 2), "the chosen pixel's place x, y in image pixels"),
    TensorSpec("boxes", "float64", ("N", 4), "as given, or as found, x1, y1, x2, y2 in image pixels"),
    TensorSpec("camera", "float64", (4,), "as given, or the guess, fx, fy, cx, cy in image pixels"),
    TensorSpec("image_size", "int32", (2,), "width and height of the image, as it is seen, in pixels"),
)
"""Outputs of a request: rows are persons, in the order of the boxes. ``V`` vertices, ``K`` keypoints.

Triton puts a side of 1 before all others here, too.
"""


class Frames:
    """Answers requests by the same code as :class:`glnet_infer.MeshRecoverer`.

    Args:
        directory: The bundle. Its graph need not be there.
        backend: What runs the graph.
        detector: What finds persons where a request has no boxes, as ``MeshRecoverer`` takes it.

    Raises:
        BundleError: The bundle is missing, damaged or changed.
        BackendError: The detector cannot start.
    """

    def __init__(self, directory: str | Path, backend: Backend, detector: str = DEFAULT_DETECTOR) -> None:
        self._recoverer = MeshRecoverer(Bundle.open(directory, graph=False), backend, detector=detector)

    def prepare(self, inputs: Mapping[str, NDArray[Any]]) -> Persons:
        """Check one request and cut its crops. Nothing of the request is held afterwards but its boxes.

        Args:
            inputs: Those of :data:`FRAME_INPUTS` that are given. ``image`` is an array of one ``bytes``.

        Raises:
            InputError: The request cannot be used.
            BackendError: The detector failed.
        """
        boxes, camera = inputs.get("boxes"), inputs.get("camera")
        if boxes is not None and len(boxes) > MOST_BOXES:
            raise InputError(
                f"The request has {len(boxes)} boxes.",
                why=f"at most {MOST_BOXES} are taken in one",
                fix="send several requests",
            )
        return self._recoverer.prepare(image_of(inputs), boxes, None if camera is None else camera_of(camera))

    def answers(self, requests: Sequence[Persons]) -> list[dict[str, NDArray[Any]] | Exception]:
        """Answer several requests, whose crops are run together.

        Args:
            requests: What :meth:`prepare` gave.

        Returns:
            For each request all of :data:`FRAME_OUTPUTS`, C-contiguous; or what its crops failed with when they ran alone.
        """
        try:
            return [answer(meshes) for meshes in self._recoverer.recover(requests)]
        except Exception as error:  # whatever one of them fails with, the others are answered
            return [error] if len(requests) == 1 else [each for one in requests for each in self.answers([one])]

    def close(self) -> None:
        """Free what it holds."""
        self._recoverer.close()

    def __enter__(self) -> Frames:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def image_of(inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    """The image of a request, H x W x 3, BGR.

    Raises:
        InputError: There is none, or there are two, or it cannot be decoded.
    """
    given = [name for name in ("image", "frame") if inputs.get(name) is not None]
    if len(given) != 1:
        raise InputError(
            f"The request has {'two images' if given else 'no image'}.",
            why=f"it gives {' and '.join(given) or 'neither image nor frame'}",
            fix="give image, the bytes of a JPEG or PNG file, or frame, decoded pixels in BGR",
        )
    array = inputs[given[0]]
    if given == ["frame"]:
        return array
    if array.size != 1 or not isinstance(array.flat[0], bytes):
        raise InputError(f"The request's image has the shape {array.shape}.", why="it is one file's bytes", fix="give one")
    return decode_picture(array.flat[0]).image


def camera_of(array: NDArray[Any]) -> Intrinsics:
    """The camera of a request.

    Raises:
        InputError: It is none.
    """
    if array.shape != (4,):
        raise InputError(
            f"The camera has the shape {array.shape}.", why="it is four numbers: fx, fy, cx, cy", fix="give four"
        )
    return Intrinsics(*array.tolist())


def answer(meshes: Meshes) -> dict[str, NDArray[Any]]:
    """Meshes as the arrays of an answer."""
    camera = meshes.intrinsics
    others = {
        "camera": np.array([camera.fx, camera.fy, camera.cx, camera.cy]),
        "image_size": np.array(meshes.image_size, np.int32),
    }
    return {
        spec.name: np.ascontiguousarray(others[spec.name] if spec.name in others else getattr(meshes, spec.name))
        for spec in FRAME_OUTPUTS
    }
