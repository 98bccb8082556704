"""Triangles filled into a canvas by OpenCV's rasterizer, which has a depth buffer."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_FAR = 1e4
"""Metres. Nobody who is farther away is a pixel large."""


@dataclass(frozen=True, eq=False)
class Surface:
    """Triangles that face the camera.

    Attributes:
        pixels: (V,2) continuous pixels of the canvas, whose first pixel's centre is (0.5, 0.5).
        depths: (V,) metres, positive.
        faces: (T,3) int32.
        colors: (V,3) BGR 0..255.
    """

    pixels: NDArray[np.float32]
    depths: NDArray[np.float32]
    faces: NDArray[np.int32]
    colors: NDArray[np.float32]


Canvas = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""Colour (H,W,3) BGR, and coverage (H,W), 0 or 255; both 0 where nothing is."""


def fill_by_depth(size: tuple[int, int], surfaces: Sequence[Surface]) -> Canvas:
    """Fill a canvas of some width and height; the nearest surface shows at every pixel."""
    width, height = size
    colour = np.zeros((height, width, 3), np.float32)
    depth = np.full((height, width), _FAR, np.float32)
    # All at once: a second call would read the first one's depths through another scale, and round them.
    pixels = np.concatenate([surface.pixels for surface in surfaces])
    depths = np.concatenate([surface.depths for surface in surfaces])
    colors = np.concatenate([surface.colors for surface in surfaces]) / np.float32(255)
    starts = np.cumsum([0, *(len(surface.depths) for surface in surfaces[:-1])])
    faces = np.concatenate([surface.faces + start for surface, start in zip(surfaces, starts.tolist(), strict=True)])
    # A camera of 90 degrees that sees the canvas as it is: OpenGL's axes, y up, z towards the viewer.
    half = np.float32(height / 2)
    points = np.empty((len(depths), 3), np.float32)
    points[:, 0] = (pixels[:, 0] - np.float32(width / 2)) / half * depths
    points[:, 1] = (half - pixels[:, 1]) / half * depths
    points[:, 2] = -depths
    nearest = float(depths.min()) / 2
    camera = np.eye(4, dtype=np.float32)
    cv2.triangleRasterize(points, faces, colors, colour, depth, camera, np.pi / 2, nearest, _FAR)
    covered = (depth < np.float32(_FAR / 2)).view(np.uint8) * np.uint8(255)
    canvas = np.asarray(cv2.convertScaleAbs(colour, alpha=255), np.uint8)
    _close_pinholes(canvas, covered)
    return canvas, covered


_NEIGHBOURS = np.array(((0, 1, 0), (1, 0, 1), (0, 1, 0)), np.uint8)


def _close_pinholes(colour: NDArray[np.uint8], covered: NDArray[np.uint8]) -> None:
    """Fill single pixels that both triangles at an edge have left out: the rasterizer rounds each one for itself."""
    surrounded = cv2.erode(covered, _NEIGHBOURS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    holes = cv2.findNonZero(cv2.subtract(surrounded, covered))
    if holes is not None:
        columns, rows = holes.reshape(-1, 2).T
        colour[rows, columns] = colour[rows, columns - 1]
        covered[rows, columns] = 255
