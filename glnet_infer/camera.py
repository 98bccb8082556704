"""The image's camera.

Image coordinates are continuous pixels: (0, 0) is the upper left corner of the upper left pixel, whose centre is
(0.5, 0.5); an image of width W spans 0 to W. Camera coordinates are OpenCV's: x right, y down, z forward, metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glnet_infer.errors import InputError
from glnet_infer.fields import quote
from glnet_infer.numbers import as_floats, is_number

LARGEST_LENGTH = 1e6
"""Pixels. No lens sees so little of the world, and squares of it are far inside what float32 can hold."""

SMALLEST_FOCAL_LENGTH = 1e-3
"""Pixels. Cameras see half a world from a third of the image's side on."""

_SHORTEST = 0.1
"""Focal length by the image's longer side: a field of view of 157 degrees, which no pinhole camera has."""

_ROUNDING = 1e-6
"""Relative error of a matrix that was computed in float32, and multiplied a few times."""


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera without distortion, all in pixels. Numbers of any library become Python's.

    Attributes:
        fx: Focal length along x.
        fy: Focal length along y.
        cx: Principal point, x.
        cy: Principal point, y.

    Raises:
        InputError: A value is no finite number, or is beyond any camera.
    """

    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        values = tuple(getattr(self, name) for name in ("fx", "fy", "cx", "cy"))
        if not all(map(is_number, values)) or self.fx <= 0 or self.fy <= 0:
            raise InputError(
                f"The camera is not valid: fx, fy, cx, cy = {quote(values)}.",
                why="focal lengths are positive and all four are finite pixels",
                fix="give the intrinsics of the image as it is handed in, after any resizing",
            )
        for name, value in zip(("fx", "fy", "cx", "cy"), values, strict=True):
            object.__setattr__(self, name, float(value))
        lengths = (self.fx, self.fy, abs(self.cx), abs(self.cy))
        if min(lengths[:2]) < SMALLEST_FOCAL_LENGTH or max(lengths) > LARGEST_LENGTH:
            raise InputError(
                f"The camera is not valid: fx, fy, cx, cy = {quote(values)}.",
                why=f"focal lengths are {SMALLEST_FOCAL_LENGTH:g} to {LARGEST_LENGTH:g} pixels, and cx, cy no more either",
                fix="give all four in pixels",
            )

    @classmethod
    def guess(cls, width: int, height: int) -> Intrinsics:
        """The field's guess for an unknown camera: focal length equal to the image's diagonal.

        Li et al., "CLIFF: Carrying Location Information in Full Frames", ECCV 2022, section 3.2.
        """
        focal = float(np.hypot(width, height))
        return cls(focal, focal, width / 2, height / 2)

    @classmethod
    def from_matrix(cls, matrix: ArrayLike) -> Intrinsics:
        """From a 3 x 3 camera matrix without skew, up to rounding. A factor of the whole matrix is divided out.

        Raises:
            InputError: The matrix has another shape or form.
        """
        k = as_floats(matrix, "The intrinsics are not numbers.", fix="give a 3 x 3 camera matrix, or Intrinsics")
        if not _is_camera_matrix(k):
            raise InputError(
                "The intrinsics are not a camera matrix.",
                why="a 3 x 3 matrix [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] is needed",
                fix="give it in pixels of an undistorted image, or Intrinsics(fx, fy, cx, cy)",
            )
        with np.errstate(over="ignore"):  # infinity is refused as a length
            k = k / k[2, 2]
        return cls(float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2]))

    def check_image(self, width: int, height: int) -> None:
        """Refuse the camera of an image where its unit can hardly be pixels.

        Raises:
            InputError: A focal length is less than a tenth of the image's longer side.
        """
        if min(self.fx, self.fy) < _SHORTEST * max(width, height):
            raise InputError(
                f"The focal length is {min(self.fx, self.fy):g} pixels in an image of {width} x {height}.",
                why="that is less than a tenth of the image: it may be in millimetres, or in units of the image's size",
                fix="give it in pixels: millimetres over the size of a pixel, or a share of the width times the width",
            )

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The 3 x 3 camera matrix."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], dtype=np.float64)

    def project(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Image pixels (... x 2) of points in camera coordinates (... x 3, metres)."""
        points = np.asarray(points, dtype=np.float64)
        return points[..., :2] / points[..., 2:] * (self.fx, self.fy) + (self.cx, self.cy)


def _is_camera_matrix(k: NDArray[np.float64]) -> bool:
    """Whether all is zero that has to be, up to rounding, and the scale is positive."""
    if k.shape != (3, 3) or not k[2, 2] > 0:
        return False
    lengths, directions = np.abs(k[[0, 1], [1, 0]]), np.abs(k[2, :2])
    focal = np.nanmax(np.abs([k[0, 0], k[1, 1], 1.0]))
    # What is multiplied by a pixel's coordinates, some thousands, and by a direction's, about 1.
    return bool((directions <= 1e-3 * _ROUNDING * k[2, 2]).all() and (lengths <= _ROUNDING * focal).all())


def behind_camera(count: int, persons: int) -> tuple[str, ...]:
    """What is said where some of the persons reach behind the camera."""
    note = f"{count} of {persons} persons reach behind the camera: its focal length may be in other units"
    return (note,) if count else ()
