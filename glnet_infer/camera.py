"""The image's camera.

Image coordinates are continuous pixels: (0, 0) is the upper left corner of the upper left pixel, whose centre is
(0.5, 0.5); an image of width W spans 0 to W. Camera coordinates are OpenCV's: x right, y down, z forward, metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glnet_infer.errors import InputError, first_line


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera without distortion, all in pixels.

    Attributes:
        fx: Focal length along x.
        fy: Focal length along y.
        cx: Principal point, x.
        cy: Principal point, y.
    """

    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        values = (self.fx, self.fy, self.cx, self.cy)
        numbers = all(isinstance(value, int | float | np.number) for value in values)
        if not numbers or not np.isfinite(values).all() or self.fx <= 0 or self.fy <= 0:
            raise InputError(
                f"The camera is not valid: fx, fy, cx, cy = {values}.",
                why="focal lengths are positive and all four are finite pixels",
                fix="give the intrinsics of the image as it is handed in, after any resizing",
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
        """From a 3 x 3 camera matrix without skew.

        Raises:
            InputError: The matrix has another shape or form.
        """
        try:
            k = np.asarray(matrix, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(
                "The intrinsics are not numbers.", why=first_line(error), fix="give a 3 x 3 camera matrix, or Intrinsics"
            ) from error
        if k.shape != (3, 3) or not np.array_equal(k[[0, 1, 2, 2, 2], [1, 0, 0, 1, 2]], [0, 0, 0, 0, 1]):
            raise InputError(
                "The intrinsics are not a camera matrix.",
                why="a 3 x 3 matrix [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] is needed",
                fix="give it in pixels of an undistorted image, or Intrinsics(fx, fy, cx, cy)",
            )
        return cls(float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2]))

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The 3 x 3 camera matrix."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], dtype=np.float64)

    def project(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Image pixels (... x 2) of points in camera coordinates (... x 3, metres)."""
        points = np.asarray(points, dtype=np.float64)
        return points[..., :2] / points[..., 2:] * (self.fx, self.fy) + (self.cx, self.cy)
