"""The contract between a graph and what runs it: inputs, outputs, crops, the camera that is assumed where none is known.

This module is the one place where names, shapes, units and frames of the graph's inputs and outputs are written down.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of the graph. ``N`` crops, ``V`` vertices, ``K`` keypoints, ``C`` the crop's side."""

    name: str
    dtype: str
    shape: tuple[str | int, ...]
    meaning: str


GRAPH_INPUTS: tuple[TensorSpec, ...] = (
    TensorSpec("crops", "uint8", ("N", "C", "C", 3), "RGB crops as glnet_infer.crops cuts them"),
    TensorSpec(
        "cameras",
        "float32",
        ("N", 4),
        "fx, fy, cx, cy of the pinhole camera that saw the crop, in crop sides, from the crop's centre; "
        "1000/256, 1000/256, 0, 0 where nothing is known",
    ),
)

GRAPH_OUTPUTS: tuple[TensorSpec, ...] = (
    TensorSpec("vertices", "float32", ("N", "V", 3), "mesh in camera coordinates, metres (x right, y down, z forward)"),
    TensorSpec("joints", "float32", ("N", 29, 3), "posed joints (glnet_infer.skeleton) in camera coordinates, metres"),
    TensorSpec("keypoints_2d", "float32", ("N", "K", 2), "regressed keypoints x, y in crop pixels"),
    TensorSpec(
        "rotations", "float32", ("N", 24, 3, 3), "SMPL pose: rotations relative to the parent, the root's to the camera"
    ),
    TensorSpec("betas", "float32", ("N", 10), "SMPL shape, standard deviations"),
    TensorSpec("translation", "float32", ("N", 3), "added to the posed body to get vertices and joints, metres"),
    TensorSpec("confidence", "float32", ("N",), "score of the chosen pixel, 0 to 1"),
    TensorSpec("reference_pixel", "int32", ("N", 2), "the chosen pixel x, y in cells of the 4-crop-pixel grid"),
)

GRID_STRIDE = 4
"""Crop pixels between two neighbouring pixels of the network's grid."""

DEFAULT_CAMERA = (1000 / 256, 1000 / 256, 0.0, 0.0)
"""fx, fy, cx, cy, in crop sides, of the camera that stands in where the image's own is unknown (HybrIK's: 1,000
pixels of focal length for a crop of 256, looking at its centre)."""


LARGEST_CROP = 1024
"""Pixels. Four times the usual side; a crop then takes 3 MB."""


@dataclass(frozen=True)
class CropSpec:
    """How a person's crop is cut from the image (``glnet_infer.crops`` implements it).

    Attributes:
        size: Side of the crop in pixels.
        padding: Side of the square, relative to the longer side of the person's box as :attr:`counts` has it.
        aspect: Width of what the network looks at, relative to its height: a narrow network sees the middle columns of the
            square.
    """

    size: int = 256
    padding: float = 1.25
    aspect: float = 1.0

    @property
    def counts(self) -> tuple[float, float]:
        """What a box's width and height are multiplied by before the longer of the two gives the square's side.

        A width counts as the height of the columns that it fills, so that a wide person fits into a narrow network's.
        """
        return 1 / self.aspect, 1.0

    def problems(self) -> list[str]:
        """What is wrong with the values, in words."""
        problems = []
        if not isinstance(self.size, int) or not 0 < self.size <= LARGEST_CROP or self.size % 32:
            problems.append(f"crop.size is {self.size!r}, not a positive multiple of 32 up to {LARGEST_CROP}")
        if not isinstance(self.padding, int | float) or not 0.1 <= self.padding <= 10:
            problems.append(f"crop.padding is {self.padding!r}, not a number from 0.1 to 10")
        if not isinstance(self.aspect, int | float) or not 0.25 <= self.aspect <= 1:
            problems.append(f"crop.aspect is {self.aspect!r}, not a number from 0.25 to 1")
        return problems


def graph_outputs(vertices: int, keypoints: int) -> tuple[TensorSpec, ...]:
    """:data:`GRAPH_OUTPUTS` with the numbers of a body and a network."""
    sizes: dict[str | int, int] = {"V": vertices, "K": keypoints}
    return tuple(
        dataclasses.replace(spec, shape=tuple(sizes.get(side, side) for side in spec.shape)) for spec in GRAPH_OUTPUTS
    )


CROP_REDUCTIONS = (1, 2, 4, 8, 16)
"""Image pixels along each side that are averaged before a crop is sampled: the largest number that a crop pixel covers.

Without it, a large person's crop would have the camera's noise at full strength, and patterns that are not there. From 32
image pixels a crop pixel on, some are left out again."""

NO_SQUARE = (9.0, 9.0, 0.0, 0.0)
"""The place of a crop in those reductions of the frame that it is not sampled from: outside, where all is black."""

CROP_INPUTS: tuple[TensorSpec, ...] = (
    TensorSpec("frame", "uint8", ("H", "W", 3), "BGR image"),
    TensorSpec(
        "squares",
        "float32",
        ("N", len(CROP_REDUCTIONS), 4),
        "middle x, y and half side in x, y of each crop, in half sides of the frame from its centre (edges are -1 and 1), "
        "for the frame reduced by each of CROP_REDUCTIONS; NO_SQUARE but for the one that the crop is sampled from",
    ),
)

CROP_OUTPUTS: tuple[TensorSpec, ...] = (GRAPH_INPUTS[0],)

SMALLEST_FRAME = 16
"""Shortest side, in pixels, of a frame that crop engines are built for."""

LARGEST_FRAME = 16384
"""Longest side, in pixels, of such a frame; beyond, the frame in float32 takes gigabytes."""

LARGEST_BATCH = 4096
"""Crops in one run: what graphs are traced for."""
