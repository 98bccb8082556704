"""How far the crops that an engine cuts are from what their definition says, in grey levels.

The reference is bilinear interpolation of averages in float64, which OpenCV equals to one grey level.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glnet_export.textures import textured_crops
from glnet_infer.contract import CROP_REDUCTIONS, CropSpec
from glnet_infer.crops import CropSquares

LARGEST_DIFFERENCE = 1
"""Grey levels of 255: values that lie halfway are rounded either way."""

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
            f"{self.crops} crops cut on the GPU from {width} x {height}: {self.largest_difference} grey level(s) off at "
            f"most, {self.equal:.1%} of the values equal"
        )

    def to_document(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return asdict(self) | {"frame": list(self.frame), "bound": LARGEST_DIFFERENCE}


def compare_crops(
    cut: Callable[[NDArray[np.uint8], NDArray[np.float32]], NDArray[np.uint8]],
    spec: CropSpec,
    largest_frame: tuple[int, int],
) -> CropReport:
    """Compare crops of a textured frame with the definition of crops (``glnet_infer.crops``).

    Args:
        cut: Cuts crops from a frame, such as ``TensorRtBackend.cut``.
        spec: The bundle's crops.
        largest_frame: Width and height that it takes.
    """
    width, height = (min(sides) for sides in zip(_USUAL, largest_frame, strict=True))
    frame = np.ascontiguousarray(textured_crops(1, max(width, height))[0, :height, :width])
    squares = _squares(width, height, spec)
    found = cut(frame, squares.in_frame(width, height))
    differences = np.abs(found.astype(np.int16) - exact_crops(frame, squares))
    return CropReport(len(found), (width, height), int(differences.max()), float((differences == 0).mean()))


def _squares(width: int, height: int, spec: CropSpec) -> CropSquares:
    """Squares of :data:`_BOXES`, and one that is sampled from each reduction of the frame, over its lower right corner."""
    boxes = CropSquares.around(np.array(_BOXES) * [width, height, width, height], spec)
    sides = 1.4 * spec.size * np.array(CROP_REDUCTIONS)
    centers = np.array([width, height]) - sides[:, None] * [0.3, 0.2]
    return CropSquares(np.concatenate([boxes.centers, centers]), np.concatenate([boxes.sides, sides]), spec.size)


def exact_crops(frame: NDArray[np.uint8], squares: CropSquares) -> NDArray[np.int16]:
    """Crops by bilinear interpolation in float64, rounded: N x C x C x 3, RGB."""
    images = {reduction: _averaged(frame, reduction) for reduction in set(squares.reductions.tolist())}
    centers = (np.arange(squares.size) + 0.5) / squares.size - 0.5
    crops = []
    places = np.column_stack([squares.centers, squares.sides]) / squares.reductions[:, None]
    for (x, y, side), reduction in zip(places, squares.reductions.tolist(), strict=True):
        padded = np.pad(images[reduction], ((1, 1), (1, 1), (0, 0)))  # black outside
        height, width = padded.shape[:2]
        left, across = _neighbours(x + centers * side + 0.5, width - 1)
        top, down = _neighbours(y + centers * side + 0.5, height - 1)
        across, down = across[None, :, None], down[:, None, None]
        upper = padded[top][:, left] * (1 - across) + padded[top][:, left + 1] * across
        lower = padded[top + 1][:, left] * (1 - across) + padded[top + 1][:, left + 1] * across
        crops.append(upper * (1 - down) + lower * down)
    return np.rint(np.stack(crops)[..., ::-1]).astype(np.int16)


def _averaged(frame: NDArray[np.uint8], reduction: int) -> NDArray[np.float64]:
    """Means of squares of pixels, those over the lower or right edge with black."""
    height, width = frame.shape[:2]
    whole = np.pad(frame.astype(np.float64), ((0, -height % reduction), (0, -width % reduction), (0, 0)))
    squares = whole.reshape(whole.shape[0] // reduction, reduction, whole.shape[1] // reduction, reduction, 3)
    return np.asarray(squares.mean(axis=(1, 3)))


def _neighbours(places: NDArray[np.float64], last: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The pixel before each place, and how far behind its centre the place lies; places beyond the border are on it."""
    places = np.clip(places, 0, last)
    before = np.minimum(places.astype(np.int64), last - 1)
    return before, places - before
