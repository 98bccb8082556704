"""Triangles filled into a canvas: by depth with OpenCV 5's rasterizer, else from far to near."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_SHIFT = 4
"""Fractional bits of the coordinates handed to ``cv2.fillConvexPoly``: sixteenths of a canvas pixel."""

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
    """Fill with OpenCV 5's rasterizer: the nearest surface shows at every pixel."""
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
    return np.asarray(cv2.convertScaleAbs(colour, alpha=255), np.uint8), covered


def fill_by_order(size: tuple[int, int], surfaces: Sequence[Surface]) -> Canvas:
    """Fill from far to near, each triangle in the mean of its corners' colours.

    OpenCV's polygons include their outline, about half a canvas pixel too wide, which closes the cracks between neighbours.
    """
    width, height = size
    canvas = np.zeros((height, width, 4), np.uint8)
    corners, depths, shades = (
        np.concatenate(parts)
        for parts in zip(
            *(
                (
                    surface.pixels[surface.faces],
                    surface.depths[surface.faces].mean(axis=1),
                    surface.colors[surface.faces].mean(axis=1),
                )
                for surface in surfaces
            ),
            strict=True,
        )
    )
    # Stable: triangles at one distance keep the order of persons and faces, so the result is the same every time.
    order = np.argsort(-depths, kind="stable")
    # OpenCV puts the centre of the first pixel at (0, 0).
    triangles = np.rint((corners[order] - np.float32(0.5)) * (1 << _SHIFT)).astype(np.int32)
    bgra = np.concatenate([np.rint(shades[order]), np.full((len(order), 1), 255)], axis=1)
    for triangle, shade in zip(triangles, bgra.tolist(), strict=True):
        cv2.fillConvexPoly(canvas, triangle, shade, cv2.LINE_8, _SHIFT)
    return np.ascontiguousarray(canvas[..., :3]), np.ascontiguousarray(canvas[..., 3])


FILL: Callable[[tuple[int, int], Sequence[Surface]], Canvas] = (
    fill_by_depth if hasattr(cv2, "triangleRasterize") else fill_by_order
)
"""The faster one that this OpenCV has."""
