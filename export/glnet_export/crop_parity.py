"""How far the crops that an engine cuts are from OpenCV's, in grey levels."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from glnet_export.textures import textured_crops
from glnet_infer.backends import FrameBackend
from glnet_infer.crops import CropSquares, cut_crops
from glnet_infer.manifest import CropSpec

LARGEST_DIFFERENCE = 1
"""Grey levels of 255. OpenCV interpolates with 5 bits of a pixel's fraction, so halves are rounded either way."""

_USUAL = (1280, 720)

# x1, y1, x2, y2 in shares of the frame: inside, tiny, the frame itself, over each edge, far beyond it.
_BOXES = (
    (0.3, 0.1, 0.5, 0.9),
    (0.501, 0.497, 0.511, 0.52),
    (0.0, 0.0, 1.0, 1.0),
    (-0.2, 0.4, 0.1, 0.8),
    (0.9, -0.3, 1.3, 0.3),
    (0.4, 0.7, 0.6, 1.4),
    (-2.0, -2.0, 3.0, 3.0),
)


@dataclass(frozen=True)
class CropReport:
    """The comparison's figures.

    Attributes:
        crops: How many were compared.
        frame: Width and height of the frame that they were cut from.
        largest_difference: Grey levels.
        equal: Share of values that are the same.
    """

    crops: int
    frame: tuple[int, int]
    largest_difference: int
    equal: float

    def __str__(self) -> str:
        width, height = self.frame
        return (
            f"{self.crops} crops cut on the GPU from {width} x {height}: {self.largest_difference} grey level(s) from "
            f"OpenCV's at most, {self.equal:.1%} of the values equal"
        )

    def to_document(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return asdict(self) | {"frame": list(self.frame), "bound": LARGEST_DIFFERENCE}


def compare_crops(backend: FrameBackend, spec: CropSpec, largest_frame: tuple[int, int]) -> CropReport:
    """Let a backend and OpenCV cut the same crops.

    Args:
        backend: Cuts crops itself.
        spec: The bundle's crops.
        largest_frame: Width and height that the backend takes.
    """
    width, height = (min(sides) for sides in zip(_USUAL, largest_frame, strict=True))
    frame = np.ascontiguousarray(textured_crops(1, max(width, height))[0, :height, :width])
    squares = CropSquares.around(np.array(_BOXES) * [width, height, width, height], spec)
    found = backend.cut(frame, squares.in_frame(width, height))
    differences = np.abs(found.astype(np.int16) - cut_crops(frame, squares))
    return CropReport(len(found), (width, height), int(differences.max()), float((differences == 0).mean()))
